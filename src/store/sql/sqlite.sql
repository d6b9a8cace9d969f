CREATE TABLE IF NOT EXISTS sessions (
    id blob PRIMARY KEY,       -- SHA-256 of the first 16 bytes of the id in the cookie
    verifier blob NOT NULL,      -- SHA-256 of the other 32, which a renewal replaces
    created integer NOT NULL,  -- milliseconds since 1970
    last_seen integer NOT NULL,
    expires integer NOT NULL,
    sweep_at integer NOT NULL, -- when a sweep looks at the row; a touch leaves it as it is
    version integer NOT NULL,
    user_id blob,              -- UTF-8, as the application gave it
    user_hash blob,            -- its SHA-256
    data text NOT NULL
);
CREATE INDEX IF NOT EXISTS sessions_sweep ON sessions (sweep_at);
CREATE INDEX IF NOT EXISTS sessions_user ON sessions (user_hash, id) WHERE user_hash IS NOT NULL;
