//! How a call stands, for whoever asks by its id.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::domain::desk::{Answer, ExecutionView};
pub use crate::domain::desk::{CallStatus, HookState};
use crate::domain::id::{EnvironmentId, ExecutionId};

/// The body of `GET /executions/{id}`, of the answer to a call that was accepted, and of what a webhook is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallBody {
    pub id: ExecutionId,
    pub environment_id: EnvironmentId,
    pub status: CallStatus,
    /// RFC 3339 in UTC, as are the others; absent for a call whose caller waited for its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// One of the outcomes; `failed` when there was no answer but a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// The plain answer, while it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Box<RawValue>>,
    /// The plain refusal, while it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<HookBody>,
}

/// How a webhook stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookBody {
    pub state: HookState,
    pub attempts: u32,
}

/// A call as JSON text, for a webhook.
pub fn call_json(view: ExecutionView) -> String {
    // Strings, numbers and raw JSON only: nothing of it can fail to be written.
    serde_json::to_string(&CallBody::from(view)).unwrap_or_default()
}

impl From<ExecutionView> for CallBody {
    fn from(view: ExecutionView) -> Self {
        let status = view.status();
        let (answer, error) = match view.answer {
            Some(Answer { status: 200, body }) => (raw(&body), None),
            Some(Answer { body, .. }) => (None, raw(&body)),
            None => (None, None),
        };
        Self {
            id: view.execution,
            environment_id: view.environment,
            status,
            accepted_at: view.accepted_at.map(|at| at.to_rfc3339()),
            started_at: view.started_at.map(|at| at.to_rfc3339()),
            ended_at: view.ended_at.map(|at| at.to_rfc3339()),
            outcome: view.outcome,
            answer,
            error,
            webhook: view.webhook.map(|hook| HookBody { state: hook.state, attempts: hook.attempts }),
        }
    }
}

fn raw(json: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(json.to_owned()).ok()
}
