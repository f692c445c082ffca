//! What one sandbox has used of its way out.

use std::time::Duration;

use super::Refusal;

/// How much may go through one sandbox's way out, and how slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Connections at once.
    pub connections: usize,
    /// Requests, those refused among them.
    pub requests: u64,
    /// Bytes, to and from the sandbox together.
    pub bytes: u64,
    /// For a request's head, for a name to be looked up, for a connection to stand: each.
    pub answer_within: Duration,
    /// A connection on which nothing moves for so long is closed.
    pub idle: Duration,
    /// The longest life of a connection.
    pub lasts: Duration,
}

/// The account of one sandbox.
#[derive(Debug, Clone)]
pub struct Ledger {
    caps: Caps,
    open: usize,
    requests: u64,
    bytes: u64,
}

impl Ledger {
    pub fn new(caps: Caps) -> Self {
        Self { caps, open: 0, requests: 0, bytes: 0 }
    }

    /// A connection wants to be served.
    ///
    /// # Errors
    /// `Connections`: as many are open as may be. It is not counted and must not be [closed](Self::close).
    pub fn open(&mut self) -> Result<(), Refusal> {
        if self.open >= self.caps.connections {
            return Err(Refusal::Connections);
        }
        self.open += 1;
        Ok(())
    }

    /// A connection that was opened has ended.
    pub fn close(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// A request came on a connection.
    ///
    /// # Errors
    /// `Requests`, when there were as many as may be.
    pub fn ask(&mut self) -> Result<(), Refusal> {
        if self.requests >= self.caps.requests {
            return Err(Refusal::Requests);
        }
        self.requests += 1;
        Ok(())
    }

    /// How many of `wanted` bytes may be moved now; none when all are used up.
    pub fn room(&self, wanted: usize) -> usize {
        let left = self.caps.bytes.saturating_sub(self.bytes);
        usize::try_from(left).map_or(wanted, |left| left.min(wanted))
    }

    /// So many bytes were moved.
    pub fn spend(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// Connections at this moment.
    pub fn connections(&self) -> usize {
        self.open
    }
}
