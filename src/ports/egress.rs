//! The way out of sandboxes: one Unix socket for each that has one, and the proxy behind them all.

use std::io;
use std::path::PathBuf;

use async_trait::async_trait;

use crate::domain::egress::{EgressPicture, Policy};
use crate::domain::id::SlotId;

/// A sandbox's way out could not be made or unmade.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {path}")]
pub struct GateError {
    pub doing: &'static str,
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

/// Who wrote a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// An environment's: its hosts may lead to public addresses, and to what the operator admits.
    Environment,
    /// The operator's own (registries): its hosts may lead anywhere.
    Operator,
}

/// Opens and closes ways out. What is on the host carries the slot's name. The methods block for a moment: a few calls
/// on a directory in memory.
pub trait EgressGates: Send + Sync {
    /// Makes a socket that `owner` (a user id of the host, and root) may connect to, and lets out what `policy` says.
    /// Connections wait in it while the proxy is being started anew.
    ///
    /// # Errors
    /// When it cannot be made; what was begun is removed by [`close`](Self::close).
    fn open(&self, slot: SlotId, policy: Policy, whose: Whose, owner: u32) -> Result<PathBuf, GateError>;

    /// Cuts what goes through it and removes the socket. Idempotent, also for slots of an earlier life.
    ///
    /// # Errors
    /// When the socket cannot be removed; it is cut all the same.
    fn close(&self, slot: SlotId) -> Result<(), GateError>;

    /// The slots that have a socket on this host, whichever life of the daemon made it.
    ///
    /// # Errors
    /// When they cannot be listed.
    fn left(&self) -> Result<Vec<SlotId>, GateError>;
}

/// The proxy itself.
#[async_trait]
pub trait EgressProxy: Send + Sync {
    /// Serves all gates, those to come among them, until it is dropped: then every connection is cut, and the gates stay.
    async fn serve(&self);

    /// What went out so far.
    fn picture(&self) -> EgressPicture;
}
