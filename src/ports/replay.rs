//! What the replay guard remembers beyond the daemon's life.

use async_trait::async_trait;

use crate::domain::envelope::Kid;
use crate::domain::replay::Seen;
use crate::domain::time::WallTime;

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
    /// Remembers; returns once a kill -9 would not lose it. A tag that is there already stays as it is.
    async fn remember(&self, seen: &Seen) -> Result<(), ReplayError>;
    /// Drops what ended before `now`, and what has no end of keys that are not in `ring`; an empty ring keeps all of
    /// the latter. Says how many.
    async fn forget(&self, now: WallTime, ring: &[Kid]) -> Result<u64, ReplayError>;
}
