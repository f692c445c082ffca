//! Every statement that is ever sent. Values are bound, never written into the text.

pub(super) const INSERT_ENVIRONMENT: &str = "
    INSERT INTO environments (id, volume_name, main_module, runtime, created_at, last_executed_at, execution_count,
                              status, metadata, ttl_seconds, tenant, limits)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";

/// A number of the file's head that nobody reads: unlike an update that finds no row, it is always written.
pub(super) const TRY_WRITE: &str = "PRAGMA user_version = 0";
pub(super) const SET_STATUS: &str = "UPDATE environments SET status = ?2 WHERE id = ?1";

pub(super) const SET_TTL: &str = "UPDATE environments SET ttl_seconds = ?2 WHERE id = ?1 AND status = 'ready'";

pub(super) const SWITCH: &str = "
    UPDATE environments SET volume_name = ?2, main_module = ?3, metadata = ?4, revision = ?5
    WHERE id = ?1 AND status = 'ready' AND revision = ?5 - 1";

pub(super) const ENVIRONMENT: &str = "SELECT * FROM environments WHERE id = ?1";

/// The id decides between environments of the same millisecond, so that the order is the same each time.
pub(super) const ENVIRONMENTS: &str = "SELECT * FROM environments ORDER BY created_at DESC, id DESC";

pub(super) const ENVIRONMENTS_OF: &str = "
    SELECT * FROM environments WHERE tenant = ?1 ORDER BY created_at DESC, id DESC";

pub(super) const DELETE_ENVIRONMENT: &str = "DELETE FROM environments WHERE id = ?1";

/// Takes the write lock at once: a transaction that reads first and then wants to write can only fail.
pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";

pub(super) const INSERT_EXECUTION: &str = "
    INSERT INTO executions (id, environment_id, started_at, completed_at, exit_code, stdout, stderr, duration_ms,
                            outcome)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

pub(super) const FINISH_EXECUTION: &str = "
    UPDATE executions
    SET completed_at = ?2, exit_code = ?3, stdout = ?4, stderr = ?5, duration_ms = ?6, outcome = ?7
    WHERE id = ?1";

pub(super) const CLOSE_UNFINISHED: &str = "
    UPDATE executions SET completed_at = ?1, exit_code = ?2, outcome = ?3 WHERE completed_at IS NULL";

pub(super) const EXECUTIONS: &str = "
    SELECT * FROM executions WHERE environment_id = ?1 ORDER BY started_at DESC, id DESC LIMIT ?2";

pub(super) const FORGET_EXECUTIONS: &str = "
    DELETE FROM executions
    WHERE id IN (SELECT id FROM executions WHERE completed_at < ?1 ORDER BY completed_at LIMIT ?2)";

pub(super) const SECRETS: &str = "SELECT * FROM secrets ORDER BY name";

pub(super) const KEEP_SECRET: &str = "
    INSERT INTO secrets (name, hosts, sealed, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (name) DO UPDATE
    SET hosts = excluded.hosts, sealed = excluded.sealed, updated_at = excluded.updated_at";

pub(super) const FORGET_SECRET: &str = "DELETE FROM secrets WHERE name = ?1";

pub(super) const COUNT_ENVIRONMENTS: &str = "SELECT count(*) FROM environments WHERE tenant = ?1";

/// What the tenant of an environment has beside it.
pub(super) const SUM_OTHER_BYTES: &str = "
    SELECT coalesce(sum(bytes), 0) FROM environments
    WHERE tenant = (SELECT tenant FROM environments WHERE id = ?1) AND id <> ?1";

pub(super) const SET_BYTES: &str = "UPDATE environments SET bytes = ?2 WHERE id = ?1";

pub(super) const TENANTS: &str = "SELECT * FROM tenants ORDER BY name";

pub(super) const WRITE_TENANT: &str = "
    INSERT INTO tenants (name, created_at, allowance) VALUES (?1, ?2, ?3)
    ON CONFLICT (name) DO UPDATE SET allowance = excluded.allowance";

pub(super) const TOKENS: &str = "SELECT * FROM tokens ORDER BY created_at, id";

pub(super) const INSERT_TOKEN: &str = "
    INSERT INTO tokens (id, tenant, digest, scopes, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

pub(super) const DELETE_TOKEN: &str = "DELETE FROM tokens WHERE id = ?1";

pub(super) const CPU_OF: &str = "SELECT * FROM tenant_cpu WHERE day = ?1";

pub(super) const ADD_CPU: &str = "
    INSERT INTO tenant_cpu (tenant, day, micros) VALUES (?1, ?2, ?3)
    ON CONFLICT (tenant, day) DO UPDATE SET micros = micros + excluded.micros";

pub(super) const FORGET_CPU: &str = "DELETE FROM tenant_cpu WHERE day < ?1";

pub(super) const HOLDINGS: &str = "
    SELECT tenant, count(*) AS environments, sum(bytes) AS bytes FROM environments GROUP BY tenant";
