CREATE TABLE IF NOT EXISTS sessions (
    id binary(32) PRIMARY KEY,  -- SHA-256 of the first 16 bytes of the id in the cookie
    verifier binary(32) NOT NULL, -- SHA-256 of the other 32, which a renewal replaces
    created bigint NOT NULL,    -- milliseconds since 1970
    last_seen bigint NOT NULL,
    expires bigint NOT NULL,
    sweep_at bigint NOT NULL,   -- when a sweep looks at the row; a touch leaves it as it is
    version bigint NOT NULL,
    user_id longblob,           -- UTF-8, as the application gave it
    user_hash binary(32),       -- its SHA-256: an index has no room for a long one
    data json NOT NULL,
    INDEX sessions_sweep (sweep_at),
    INDEX sessions_user (user_hash)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
