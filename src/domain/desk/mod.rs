//! The desk: calls that are accepted now and run when there is room, and keys under which a request is made once.
//!
//! ```text
//!   Asked ─► Recording ──stored──► Waiting ──turn──► Running ──told──► Ending ──stored──► gone
//!     │          │ not stored         │  ▲              │                ▲
//!     ▼          ▼                    │  └── put off ───┘                │
//!   Refuse     Refuse                 └────────── cancelled ────────────┘
//! ```
//!
//! A call is accepted when the store has it; it has ended when the store has that. Waiting calls take turns by
//! environment, the oldest of each first. A call that the pool has no place for is put off, and has not begun; so is one
//! whose tenant or environment is at a quota, and then its environment's calls wait, and no other's.
//!
//! Invariants, held by the property tests: each call that is asked for is accepted or refused once; each accepted one
//! ends once, or is still here; never more run than `at_once`, nor wait than `queue` or `queue_bytes` allow; a drain ends.

mod answers;
mod key;
mod machine;
mod view;

use std::time::Duration;

pub use answers::{Answer, Answers};
pub use key::{Claimed, Fingerprint, IdempotencyKey, KeyId, KeyInvalid, Subject};
pub use machine::Desk;
pub use view::{CallStatus, ExecutionView, HookState, HookView};

use crate::domain::id::{EnvironmentId, ExecutionId};
use crate::domain::pool::Refusal;

/// The desk's bounds.
#[derive(Debug, Clone, Copy)]
pub struct DeskPolicy {
    /// Accepted calls that are with the pool at once.
    pub at_once: usize,
    /// Accepted calls that have not ended.
    pub queue: usize,
    /// And the size of their requests.
    pub queue_bytes: usize,
}

/// A call that an earlier life accepted and that has not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    pub execution: ExecutionId,
    pub environment: EnvironmentId,
    pub bytes: usize,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// What an earlier life accepted, oldest first: from now on calls may start.
    Recovered(Vec<Recovered>),
    Asked(Recovered),
    Recorded {
        execution: ExecutionId,
        stored: bool,
    },
    Cancelled {
        execution: ExecutionId,
    },
    /// The pool has no place; it has not begun.
    PutOff {
        execution: ExecutionId,
        wait: Duration,
    },
    /// Its tenant or its environment may have no more at the moment, which is nothing to other environments; it has
    /// not begun.
    HeldUp {
        execution: ExecutionId,
        wait: Duration,
    },
    /// The pool is done with it; its end is being recorded.
    Told {
        execution: ExecutionId,
    },
    /// Its end is recorded.
    Ended {
        execution: ExecutionId,
    },
    Tick,
    Drain {
        hurry: bool,
    },
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Record {
        execution: ExecutionId,
    },
    Refuse {
        execution: ExecutionId,
        refusal: Refusal,
    },
    Accept {
        execution: ExecutionId,
    },
    Start {
        execution: ExecutionId,
    },
    /// It is with the pool.
    CancelRunning {
        execution: ExecutionId,
    },
    /// It has not begun: its end is to be recorded.
    EndCancelled {
        execution: ExecutionId,
    },
    WakeIn(Duration),
    Drained,
}

#[cfg(test)]
mod tests;
