//! placeholder
use serde::{Deserialize, Serialize};

/// What the Reaper has done since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReaperPicture {
    pub rounds: u64,
    pub expired_environments: u64,
    pub orphan_volumes: u64,
    pub orphan_records: u64,
    pub orphan_slots: u64,
    pub reaped_zombies: u64,
    pub forgotten_executions: u64,
    pub failures: u64,
    /// What could not be removed in the last round, and why.
    pub last_failures: Vec<String>,
}
