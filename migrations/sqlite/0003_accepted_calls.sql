-- Calls that are answered later, answers that are kept, and idempotency keys. Times are milliseconds since 1970 in UTC.
-- A migration that has been released is never edited, not even its comments: its checksum is kept in every database.

CREATE TABLE accepted_calls (
    id             TEXT    NOT NULL PRIMARY KEY,            -- the execution's id
    tenant         TEXT    NOT NULL,                        -- who asked for it
    environment_id TEXT    NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
    accepted_at    INTEGER NOT NULL,
    request        TEXT,                                    -- JSON, user data; null once the call has ended
    ended_at       INTEGER,
    outcome        TEXT,
    webhook        TEXT,                                    -- JSON, user data; null without one, or when it is settled
    hook_state     TEXT,                                    -- owed, delivered or failed; null without one
    hook_attempts  INTEGER NOT NULL DEFAULT 0,
    hook_due_at    INTEGER                                  -- null before the call's end, and when it is settled
) STRICT;

CREATE INDEX accepted_calls_environment_id ON accepted_calls (environment_id, accepted_at);
CREATE INDEX accepted_calls_tenant ON accepted_calls (tenant, accepted_at);
CREATE INDEX accepted_calls_ended_at ON accepted_calls (ended_at);
CREATE INDEX accepted_calls_hook_due_at ON accepted_calls (hook_due_at) WHERE hook_due_at IS NOT NULL;

-- Filled only where store.keep_output is on.
CREATE TABLE answers (
    id             TEXT    NOT NULL PRIMARY KEY,            -- the execution's id
    environment_id TEXT    NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
    status         INTEGER NOT NULL,
    body           TEXT    NOT NULL,                        -- JSON, user data
    bytes          INTEGER NOT NULL,
    given_at       INTEGER NOT NULL
) STRICT;

CREATE INDEX answers_environment_id ON answers (environment_id);
CREATE INDEX answers_given_at ON answers (given_at);

CREATE TABLE idempotency_keys (
    id             TEXT    NOT NULL PRIMARY KEY,            -- a SHA-256 of the key and of where it was used
    fingerprint    TEXT    NOT NULL,                        -- a SHA-256 of what was asked
    kind           TEXT    NOT NULL,                        -- call, accepted or set_up
    environment_id TEXT    NOT NULL,
    execution_id   TEXT,                                    -- null for a set-up
    made_at        INTEGER NOT NULL,
    settled        INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX idempotency_keys_made_at ON idempotency_keys (made_at);
CREATE INDEX idempotency_keys_environment_id ON idempotency_keys (environment_id);

-- A set-up's key is there before its environment is, so that no reference can hold this.
CREATE TRIGGER idempotency_keys_go_with_their_environment AFTER DELETE ON environments
BEGIN
    DELETE FROM idempotency_keys WHERE environment_id = OLD.id AND kind <> 'set_up';
END;

-- Rises with each change of an environment's modules; its volume_name names the tree of the newest.
ALTER TABLE environments ADD COLUMN revision INTEGER NOT NULL DEFAULT 1;
