//! placeholder
use std::time::Duration;
use serde::{Deserialize, Serialize};

/// Why work is not taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the daemon is shutting down")]
    Draining,
    #[error("the queue is full; try again in {} s", retry_after.as_secs().max(1))]
    QueueFull { retry_after: Duration },
    #[error("no sandbox came free in time; try again in {} s", retry_after.as_secs().max(1))]
    WaitedTooLong { retry_after: Duration },
}

/// How full the pool is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolPicture {
    pub running: usize,
    pub queued: usize,
    pub booting: usize,
    pub destroying: usize,
    pub wedged: usize,
    pub set_ups: usize,
    pub set_ups_queued: usize,
    pub executions_total: u64,
}
