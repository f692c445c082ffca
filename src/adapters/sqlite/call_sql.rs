//! The statements about accepted calls, answers and keys.

pub(super) const ACCEPT: &str = "
    INSERT INTO accepted_calls (id, environment_id, accepted_at, request, webhook, hook_state, tenant)
    VALUES (?1, ?2, ?3, ?4, ?5, CASE WHEN ?5 IS NULL THEN NULL ELSE 'owed' END, ?6)";

pub(super) const UNENDED: &str = "
    SELECT a.id AS accepted_id, a.environment_id AS accepted_environment, LENGTH(a.request) AS bytes, e.*
    FROM accepted_calls a LEFT JOIN executions e ON e.id = a.id
    WHERE a.ended_at IS NULL ORDER BY a.accepted_at, a.id";

pub(super) const REQUEST: &str = "
    SELECT tenant, request FROM accepted_calls WHERE id = ?1 AND request IS NOT NULL";

pub(super) const END: &str = "
    UPDATE accepted_calls
    SET request = NULL, ended_at = ?2, outcome = ?3, hook_due_at = CASE WHEN webhook IS NULL THEN NULL ELSE ?2 END
    WHERE id = ?1 AND ended_at IS NULL";

/// The environment may be gone by now, and the call's answer with it.
pub(super) const ANSWER_OF_CALL: &str = "
    INSERT INTO answers (id, environment_id, status, body, bytes, given_at)
    SELECT id, environment_id, ?2, ?3, ?4, ?5 FROM accepted_calls WHERE id = ?1
    ON CONFLICT DO NOTHING";

pub(super) const VIEW: &str = "
    SELECT v.*, w.status AS answer_status, w.body AS answer_body
    FROM (
        SELECT a.id, a.tenant, a.environment_id, a.accepted_at, e.started_at, a.ended_at, a.outcome, a.hook_state,
               a.hook_attempts
        FROM accepted_calls a LEFT JOIN executions e ON e.id = a.id WHERE a.id = ?1
        UNION ALL
        SELECT e.id, n.tenant, e.environment_id, NULL, e.started_at, e.completed_at, e.outcome, NULL, 0
        FROM executions e JOIN environments n ON n.id = e.environment_id WHERE e.id = ?1
        LIMIT 1
    ) v LEFT JOIN answers w ON w.id = v.id";

pub(super) const VIEWS: &str = "
    SELECT a.id, a.tenant, a.environment_id, a.accepted_at, e.started_at, a.ended_at, a.outcome, a.hook_state,
           a.hook_attempts, NULL AS answer_status, NULL AS answer_body
    FROM accepted_calls a LEFT JOIN executions e ON e.id = a.id
    WHERE a.tenant = ?1 AND (?2 IS NULL OR a.environment_id = ?2)
    ORDER BY a.accepted_at DESC, a.id DESC LIMIT ?3";

pub(super) const DUE_HOOKS: &str = "
    SELECT id, webhook, hook_attempts FROM accepted_calls
    WHERE hook_due_at <= ?1 AND webhook IS NOT NULL ORDER BY hook_due_at LIMIT ?2";

/// One that is settled needs its address and its secret no more.
pub(super) const NOTE_HOOK: &str = "
    UPDATE accepted_calls
    SET hook_attempts = ?2, hook_state = ?3, hook_due_at = ?4, webhook = CASE WHEN ?4 IS NULL THEN NULL ELSE webhook END
    WHERE id = ?1";

pub(super) const KEY: &str = "SELECT * FROM idempotency_keys WHERE id = ?1";

pub(super) const INSERT_KEY: &str = "
    INSERT INTO idempotency_keys (id, fingerprint, kind, environment_id, execution_id, made_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

pub(super) const TRIM_KEYS: &str = "
    DELETE FROM idempotency_keys
    WHERE settled = 1
      AND id IN (SELECT id FROM idempotency_keys ORDER BY made_at DESC, id DESC LIMIT -1 OFFSET ?1)";

pub(super) const SETTLE_KEY: &str = "UPDATE idempotency_keys SET settled = 1 WHERE id = ?1";

pub(super) const ANSWER_OF_KEY: &str = "
    INSERT INTO answers (id, environment_id, status, body, bytes, given_at)
    SELECT k.execution_id, k.environment_id, ?2, ?3, ?4, ?5
    FROM idempotency_keys k JOIN environments e ON e.id = k.environment_id
    WHERE k.id = ?1 AND k.execution_id IS NOT NULL
    ON CONFLICT DO NOTHING";

pub(super) const RELEASE_KEY: &str = "DELETE FROM idempotency_keys WHERE id = ?1";

pub(super) const FORGET_KEYS: &str = "DELETE FROM idempotency_keys WHERE made_at < ?1";

pub(super) const FORGET_CALLS: &str = "DELETE FROM accepted_calls WHERE ended_at < ?1 AND webhook IS NULL";

pub(super) const FORGET_ANSWERS: &str = "DELETE FROM answers WHERE given_at < ?1";

/// All answers that are older than the newest that fit.
pub(super) const TRIM_ANSWERS: &str = "
    DELETE FROM answers WHERE id IN (
        SELECT id FROM (SELECT id, SUM(bytes) OVER (ORDER BY given_at DESC, id DESC) AS total FROM answers)
        WHERE total > ?1
    )";
