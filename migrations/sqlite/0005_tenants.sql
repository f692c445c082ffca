-- Tenants, their tokens, and what they use. Times are milliseconds since 1970 in UTC.
-- A migration that has been released is never edited, not even its comments: its checksum is kept in every database.

ALTER TABLE environments ADD COLUMN tenant TEXT NOT NULL DEFAULT 'default';
-- {"concurrency", "rate": {"perSecond", "burst"}}, each optional; null where the set-up named none.
ALTER TABLE environments ADD COLUMN limits TEXT CHECK (limits IS NULL OR json_valid(limits));
-- What its files take on disk. 0 while it is being made, and for environments that are older than this column.
ALTER TABLE environments ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;

CREATE INDEX environments_tenant ON environments (tenant, created_at);

CREATE TABLE tenants (
    name       TEXT    NOT NULL PRIMARY KEY,
    created_at INTEGER NOT NULL,
    allowance  TEXT    NOT NULL CHECK (json_valid(allowance))   -- what is not in it is left to the configuration
) STRICT;

CREATE TABLE tokens (
    id         TEXT    NOT NULL PRIMARY KEY,                    -- 12 hexadecimal digits, a part of the token's text
    tenant     TEXT    NOT NULL REFERENCES tenants (name),
    digest     BLOB    NOT NULL CHECK (length(digest) = 32),    -- SHA-256 of the whole text
    scopes     TEXT    NOT NULL,                                -- names with commas
    created_at INTEGER NOT NULL,
    expires_at INTEGER                                          -- null: until it is revoked
) STRICT;

CREATE TABLE tenant_cpu (
    tenant     TEXT    NOT NULL,
    day        INTEGER NOT NULL,                                -- days since 1970 in UTC
    micros     INTEGER NOT NULL,
    PRIMARY KEY (tenant, day)
) STRICT, WITHOUT ROWID;
