//! When a source is asked for jobs, and for how many.
//!
//! ```text
//!              room, and its time has come
//!   Resting ──────────────────────────────► Polling ──► jobs: at once again
//!      ▲                                       │         empty: at once, but so many a second
//!      └───────────────────────────────────────┘         429: a pause of 5 s or more
//!                                                        failed: backoff; after several, the circuit opens
//!   circuit:  closed ──failures──► open ──its wait is over──► half open (one probe) ──► closed, or open again
//! ```
//!
//! Invariants, held by the property test: one poll at a time; none without room, none after the close; no more than
//! `empties_a_second` that brought nothing; after a failure not before its backoff; a half open circuit asks for one job.

mod backoff;
mod machine;

use std::time::Duration;

pub use backoff::{Backoff, Dice};
pub use machine::Admission;

/// How a source is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdmissionPolicy {
    pub backoff: Backoff,
    /// So many failures in a row open the circuit.
    pub circuit_after: u32,
    /// How long it stays open.
    pub circuit: Backoff,
    /// A pause that the source asks for is at least and at most so long.
    pub pause_least: Duration,
    pub pause_most: Duration,
    /// Polls that bring nothing, in any one second.
    pub empties_a_second: usize,
}

impl Default for AdmissionPolicy {
    fn default() -> Self {
        let backoff = |first, longest| Backoff { first, longest: Duration::from_secs(longest), jitter: 0.25 };
        Self {
            backoff: backoff(Duration::from_millis(500), 15),
            circuit_after: 5,
            circuit: backoff(Duration::from_secs(15), 60),
            pause_least: Duration::from_secs(5),
            pause_most: Duration::from_secs(600),
            empties_a_second: 4,
        }
    }
}

/// The circuit before a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circuit {
    Closed,
    Open,
    /// One probe is under way, or may go.
    HalfOpen,
}

impl Circuit {
    /// Its stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Circuit::Closed => "closed",
            Circuit::Open => "open",
            Circuit::HalfOpen => "half_open",
        }
    }
}

/// What a poll came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Poll {
    /// At least one job that was not held already.
    Jobs,
    /// Nothing, or nothing new.
    Empty,
    Throttled {
        retry_after: Option<Duration>,
    },
    Failed {
        reason: String,
    },
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// There is room for so many jobs.
    Room {
        slots: usize,
    },
    Ended(Poll),
    /// Time has passed.
    Tick,
    /// Nothing is asked for any more.
    Close,
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Poll for up to so many jobs.
    Take {
        slots: usize,
    },
    /// Give up the open poll: there is no room for what it would bring.
    Abort,
    /// Come back with a `Tick`.
    WakeIn(Duration),
    CircuitOpened {
        reason: String,
        wait: Duration,
    },
    CircuitClosed,
}

#[cfg(test)]
mod tests;
