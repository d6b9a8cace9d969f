CREATE TABLE IF NOT EXISTS sessions (
    id bytea PRIMARY KEY,      -- SHA-256 of the first 16 bytes of the id in the cookie
    verifier bytea NOT NULL,     -- SHA-256 of the other 32, which a renewal replaces
    created bigint NOT NULL,   -- milliseconds since 1970
    last_seen bigint NOT NULL,
    expires bigint NOT NULL,
    sweep_at bigint NOT NULL,  -- when a sweep looks at the row; a touch leaves it as it is
    version bigint NOT NULL,
    user_id bytea,             -- UTF-8, as the application gave it
    user_hash bytea,           -- its SHA-256: an index has no room for a long one
    data jsonb NOT NULL
) WITH (fillfactor = 90);      -- an update finds room on its page and changes no index
CREATE INDEX IF NOT EXISTS sessions_sweep ON sessions (sweep_at);
CREATE INDEX IF NOT EXISTS sessions_user ON sessions (user_hash, id) WHERE user_hash IS NOT NULL;
