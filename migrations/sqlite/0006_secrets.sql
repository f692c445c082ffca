-- Named secrets that the proxy puts into requests. Times are milliseconds since 1970 in UTC.
-- The number of a row is its key, so that a name can be one of several owners' later.

CREATE TABLE secrets (
    id         INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL,
    hosts      TEXT    NOT NULL CHECK (json_valid(hosts)),  -- an array of host, host:port, *.suffix
    sealed     BLOB    NOT NULL,                            -- version, nonce, box: COMPATIBILITY.md
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX secrets_name ON secrets (name);
