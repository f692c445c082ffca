-- Environments and their calls, as the first system kept them. Times are milliseconds since 1970 in UTC.
-- A migration that has been released is never edited, not even its comments: its checksum is kept in every database.

CREATE TABLE environments (
    id               TEXT    NOT NULL PRIMARY KEY,          -- a UUID in its hyphenated form
    volume_name      TEXT    NOT NULL UNIQUE,               -- tee-env-<uuid>
    main_module      TEXT    NOT NULL,
    runtime          TEXT    NOT NULL DEFAULT 'deno',
    created_at       INTEGER NOT NULL,
    last_executed_at INTEGER,
    execution_count  INTEGER NOT NULL DEFAULT 0,
    status           TEXT    NOT NULL DEFAULT 'ready',      -- setting_up, ready or deleting
    metadata         TEXT    NOT NULL CHECK (json_valid(metadata)),
    ttl_seconds      INTEGER NOT NULL DEFAULT 3600
) STRICT;

CREATE INDEX environments_created_at ON environments (created_at);
CREATE INDEX environments_last_executed_at ON environments (last_executed_at);
CREATE INDEX environments_status ON environments (status);
CREATE INDEX environments_runtime ON environments (runtime);

CREATE TABLE executions (
    id             TEXT    NOT NULL PRIMARY KEY,
    environment_id TEXT    NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
    started_at     INTEGER NOT NULL,
    completed_at   INTEGER,                                 -- null while the call runs
    exit_code      INTEGER,
    stdout         TEXT,                                    -- null unless store.keep_output is on
    stderr         TEXT,
    duration_ms    INTEGER,
    outcome        TEXT
) STRICT;

CREATE INDEX executions_environment_id ON executions (environment_id);
CREATE INDEX executions_started_at ON executions (started_at);
-- New here: the Reaper forgets by this column, and start-up looks for the calls that have none.
CREATE INDEX executions_completed_at ON executions (completed_at);
