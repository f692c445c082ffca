//! How a call stands, for whoever asks.

use serde::{Deserialize, Serialize};

use super::Answer;
use crate::domain::id::{EnvironmentId, ExecutionId};
use crate::domain::tenant::TenantName;
use crate::domain::time::WallTime;

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallStatus {
    /// It has not begun.
    Queued,
    Running,
    Done,
}

/// How a webhook stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HookState {
    /// It has not been taken yet.
    Owed,
    Delivered,
    /// It was given up.
    Failed,
}

impl HookState {
    /// Its name in the store and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            HookState::Owed => "owed",
            HookState::Delivered => "delivered",
            HookState::Failed => "failed",
        }
    }
}

/// A webhook, and how often it was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HookView {
    pub state: HookState,
    pub attempts: u32,
}

/// A call, whether its caller waited for it or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutionView {
    pub execution: ExecutionId,
    /// Whose it is.
    pub tenant: TenantName,
    pub environment: EnvironmentId,
    /// None for a call whose caller waited.
    pub accepted_at: Option<WallTime>,
    pub started_at: Option<WallTime>,
    pub ended_at: Option<WallTime>,
    /// One of the outcomes; `failed` when there is no report.
    pub outcome: Option<String>,
    /// The plain answer or refusal, while it is kept.
    pub answer: Option<Answer>,
    pub webhook: Option<HookView>,
}

impl ExecutionView {
    /// How far it has come.
    pub fn status(&self) -> CallStatus {
        match (self.ended_at, self.started_at) {
            (Some(_), _) => CallStatus::Done,
            (None, Some(_)) => CallStatus::Running,
            (None, None) => CallStatus::Queued,
        }
    }
}
