//! One-for-one supervision as a pure machine: when a child starts, waits, is given up or is stopped.
//!
//! ```text
//!            Begin            Beat                Down, or no beat in time
//!  Idle ───────────► Starting ─────► Running ───────────────┐
//!   ▲▲  (spawn cap)     │ Down          │ recycled            ▼
//!   │└──────────────────┼───────────────┘ (no fall)           │
//!    │                  └───────────────────────────► Waiting (backoff, jitter)
//!    │                              too often ► crash loop (longest wait) ► GivenUp
//!    └────────────────────────────────────────────────────────┘ its time has come
//!  Shutdown, in reverse order of start: Stopping ── Down ──► Stopped
//! ```
//!
//! Invariants, held by the property tests: at most `spawns_at_once` children are starting; a fact of an earlier
//! generation changes nothing; after a shutdown began nothing is started; every shutdown ends.

mod machine;

use std::time::Duration;

pub use machine::Supervision;

/// A supervised child's stable name.
pub type ChildName = &'static str;

/// Counts a child's lives; facts from an earlier life are recognised by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation(pub u64);

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It panicked, or stopped without being asked.
    Crashed,
    /// It was asked to.
    Requested,
    /// It made way for a fresh life of itself, as its own rules say. No fall: started again at once, or, within
    /// `RestartPolicy::shortest_life` of its start, after the wait of one that fell. One that never beat has fallen.
    Recycled,
}

/// When children are restarted, and when no more.
#[derive(Debug, Clone, Copy)]
pub struct RestartPolicy {
    /// The first wait; later ones grow geometrically to `backoff_max` over `backoff_steps` steps.
    pub backoff_first: Duration,
    pub backoff_max: Duration,
    pub backoff_steps: u32,
    /// Each wait is lengthened or shortened by up to this fraction of itself (0.25 = ±25 %).
    pub jitter: f64,
    /// After so long without a fall, earlier ones are forgotten.
    pub forget_after: Duration,
    /// More than `max_restarts` falls within `window` are a crash loop: from then on every wait is the longest one.
    pub window: Duration,
    pub max_restarts: usize,
    /// So many further falls in a crash loop and the child is given up.
    pub give_up_after: u32,
    /// How many children may be between start and first beat at once.
    pub spawns_at_once: usize,
    /// A child that does not beat for so long is hung.
    pub beat_deadline: Duration,
    /// How long a drain may take before it hurries; half as long again and it is cut off.
    pub drain_deadline: Duration,
    /// A child that recycles itself sooner waits before it is started again: else it could spin.
    pub shortest_life: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            backoff_first: Duration::from_millis(500),
            backoff_max: Duration::from_secs(60),
            backoff_steps: 6,
            jitter: 0.25,
            forget_after: Duration::from_secs(600),
            window: Duration::from_secs(300),
            max_restarts: 5,
            give_up_after: 3,
            spawns_at_once: 2,
            beat_deadline: Duration::from_secs(15),
            drain_deadline: Duration::from_secs(30),
            shortest_life: Duration::from_secs(10),
        }
    }
}

impl RestartPolicy {
    /// The wait after the n-th fall in a row (n from 1), before jitter.
    pub fn backoff(&self, falls: u32) -> Duration {
        let step = falls.saturating_sub(1).min(self.backoff_steps);
        let ratio = self.backoff_max.as_secs_f64() / self.backoff_first.as_secs_f64().max(0.001);
        let grown =
            self.backoff_first.as_secs_f64() * ratio.powf(f64::from(step) / f64::from(self.backoff_steps.max(1)));
        Duration::from_secs_f64(grown.clamp(0.0, self.backoff_max.as_secs_f64()))
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The daemon starts: start all children, in order.
    Begin,
    Beat {
        child: ChildName,
        generation: Generation,
        complaints: Vec<String>,
    },
    Down {
        child: ChildName,
        generation: Generation,
        exit: Exit,
    },
    /// Time has passed.
    Tick,
    /// Stop all; a second one, or `hurry`, cancels what is running.
    Shutdown {
        hurry: bool,
    },
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Start {
        child: ChildName,
        generation: Generation,
    },
    /// The child went down or hangs: take its handles away and let go of its thread.
    Dismiss {
        child: ChildName,
        generation: Generation,
        hung: bool,
    },
    Stop {
        child: ChildName,
        generation: Generation,
        hurry: bool,
    },
    /// The child fell for the n-th time in a row and is started again after `wait`.
    Restarting {
        child: ChildName,
        falls: u32,
        wait: Duration,
    },
    GaveUp {
        child: ChildName,
        essential: bool,
    },
    /// All children are stopped, or the drain's time is over; the machine is done.
    Drained {
        in_time: bool,
    },
}
