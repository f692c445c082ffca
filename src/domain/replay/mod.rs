//! The replay guard: a sealed request runs under one job id, whoever sends it again.
//!
//! ```text
//!   Asked ─┬─ unknown, in time ──► Remember ─┬─ Written ────► Admit
//!          │                                 └─ NotWritten ─► Refuse(Unwritten)
//!          ├─ known, same job (a redelivery) ─► Admit, once it is written
//!          ├─ known, another job ────────────► Refuse(Replayed)
//!          ├─ its time is outside the window ─► Refuse(Stale)
//!          └─ no room ───────────────────────► Refuse(Full)
//! ```
//!
//! What holds, and is held by the property tests:
//! * a request that was admitted under one job id is never admitted under another: for v1 as long as its key lives, for
//!   v2 for ever, since it is remembered until its own time is out of the window;
//! * whatever was admitted was written first: a kill of the daemon opens nothing;
//! * each question is answered once; a failed write leaves nothing behind;
//! * no more is remembered than there is room for, and v1, which is not forgotten, leaves a quarter of it to v2;
//! * a job that was admitted and waits in a queue for longer than the window is admitted when it is opened again, within a
//!   day and as long as there is room;
//! * a clock that jumps ahead and back does not let a forgotten request in again.

mod machine;

use std::time::Duration;

use crate::domain::envelope::{Kid, ReplayTag};
use crate::domain::job::JobId;
use crate::domain::time::WallTime;

pub use machine::Guard;

#[cfg(test)]
mod tests;

/// One request that was admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub tag: ReplayTag,
    /// The key that it was sealed to.
    pub kid: Kid,
    pub job: JobId,
    /// From when on it may be forgotten, for it would be refused as stale; none: not as long as the key lives (v1).
    pub until: Option<WallTime>,
}

/// How the guard behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How far the time of a v2 request may be from ours, to either side.
    pub window: Duration,
    /// The most requests that are remembered.
    pub room: usize,
}

/// Names a question until it is answered.
pub type Question = u64;

/// What the guard is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// What an earlier life wrote.
    Loaded(Vec<Seen>),
    /// May this request run under this job id? `sealed_at`: its own time (v2).
    Asked { question: Question, tag: ReplayTag, kid: Kid, job: JobId, sealed_at: Option<WallTime> },
    /// What [`Effect::Remember`] asked for is done.
    Written { question: Question, tag: ReplayTag },
    /// It failed.
    NotWritten { question: Question, tag: ReplayTag },
    /// Time to forget. `ring`: the keys that live; when there is none, no key has died: its source is missing.
    Tick { ring: Vec<Kid> },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write it where a kill does not lose it, then tell.
    Remember {
        question: Question,
        seen: Seen,
    },
    Admit(Question),
    Refuse(Question, Refusal),
    /// The log may forget what the guard forgets.
    Forget,
}

/// Why a request may not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Replayed,
    Stale,
    Full,
    /// The log failed; the request may come again.
    Unwritten,
}
