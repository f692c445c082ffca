//! The way out of sandboxes: one Unix socket for each that has one, and the proxy behind them all.

use std::io;
use std::path::PathBuf;

use async_trait::async_trait;

use crate::domain::credential::{CredentialName, Placeholder};
use crate::domain::egress::{EgressPicture, HostHeader, Policy};
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

/// What a sandbox's way out lets through, and what is put into it there.
#[derive(Debug, Clone)]
pub struct Passage {
    pub policy: Policy,
    pub whose: Whose,
    /// The secrets that the sandbox may use, by what it sees instead of them.
    pub placeholders: Vec<(CredentialName, Placeholder)>,
    /// Headers of the daemon's own: a private registry's token.
    pub headers: Vec<HostHeader>,
}

/// A way out that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayOut {
    pub socket: PathBuf,
    /// The certificate, as PEM, that the sandbox must trust: the proxy ends TLS to the hosts that something is put in for.
    /// It is this sandbox's own. None: TLS goes through as it is.
    pub authority: Option<PathBuf>,
}

/// Opens and closes ways out. What is on the host carries the slot's name. The methods block for a moment: a few calls
/// on a directory in memory.
pub trait EgressGates: Send + Sync {
    /// Makes a socket that `owner` (a user id of the host, and root) may connect to, and lets out what `passage` says.
    /// Connections wait in it while the proxy is being started anew.
    ///
    /// # Errors
    /// When it cannot be made; what was begun is removed by [`close`](Self::close).
    fn open(&self, slot: SlotId, passage: Passage, owner: u32) -> Result<WayOut, GateError>;

    /// Cuts what goes through it and removes what was made. Idempotent, also for slots of an earlier life.
    ///
    /// # Errors
    /// When the socket cannot be removed; it is cut all the same.
    fn close(&self, slot: SlotId) -> Result<(), GateError>;

    /// The slots that have something of it on this host, whichever life of the daemon made it.
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
