//! A call as the store keeps it.

use serde::{Deserialize, Serialize};

use crate::domain::execution::ExecutionRecord;
use crate::domain::id::ExecutionId;

/// One element of `GET /environments/{id}/executions`. What is absent is not known yet, or not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordBody {
    pub id: ExecutionId,
    /// RFC 3339 in UTC, as is `completedAt`.
    pub started_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<String>,
    /// One of the outcomes; `failed` when the host failed and the call has no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<i64>,
    /// Kept only with `store.keep_output`, as is `stderr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
}

impl From<ExecutionRecord> for RecordBody {
    fn from(record: ExecutionRecord) -> Self {
        Self {
            id: record.id,
            started_at: record.started_at.to_rfc3339(),
            completed_at: record.completed_at.map(|time| time.to_rfc3339()),
            outcome: record.outcome,
            exit_code: record.exit_code,
            duration_ms: record.duration_ms,
            stdout: record.stdout,
            stderr: record.stderr,
        }
    }
}
