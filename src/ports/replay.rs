//! What the replay guard remembers beyond the daemon's life.

use async_trait::async_trait;

use crate::domain::envelope::ReplayTag;
use crate::domain::job::JobId;
use crate::domain::time::WallTime;

/// One request that was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub tag: ReplayTag,
    pub job: JobId,
    /// When it may be forgotten; none: not as long as the key lives (v1).
    pub until: Option<WallTime>,
}

/// The log failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} the replay guard's log")]
pub struct ReplayError {
    pub doing: &'static str,
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// A log that survives a kill -9 of the daemon. It holds hashes and job ids, nothing that was sent.
#[async_trait]
pub trait ReplayLog: Send + Sync {
    /// All that is still remembered.
    async fn load(&self) -> Result<Vec<Seen>, ReplayError>;
    /// Remembers; returns once a kill -9 would not lose it.
    async fn remember(&self, seen: &Seen) -> Result<(), ReplayError>;
    /// Drops what may be forgotten at `now`. Says how many.
    async fn forget(&self, now: WallTime) -> Result<u64, ReplayError>;
}
