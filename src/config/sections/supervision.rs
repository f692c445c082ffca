//! `[supervision]`: restarts, their limits, and liveness.

use std::time::Duration;

use super::{DAY, HOUR, MINUTE, Reader, millis, secs};

/// `[supervision]`
#[derive(Debug, Clone)]
pub struct Supervision {
    /// The wait before the first restart.
    pub backoff_first: Duration,
    pub backoff_max: Duration,
    /// Restarts from the first wait to the longest.
    pub backoff_steps: u32,
    /// Each wait is off by up to this part of itself, to either side.
    pub jitter: f64,
    /// After so long in health earlier restarts are forgotten.
    pub forget_after: Duration,
    /// More than `max_restarts` within it are a crash loop.
    pub window: Duration,
    pub max_restarts: u32,
    pub spawns_at_once: usize,
    pub beat_every: Duration,
    /// A child without a beat for so long counts as hung.
    pub beat_deadline: Duration,
}

impl Supervision {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            backoff_first: reader.span("supervision.backoff_first", millis(1)..=secs(HOUR)),
            backoff_max: reader.span("supervision.backoff_max", millis(1)..=secs(HOUR)),
            backoff_steps: reader.whole("supervision.backoff_steps", 1..=64),
            jitter: reader.real("supervision.jitter", 0.0..=0.9),
            forget_after: reader.span("supervision.forget_after", secs(1)..=secs(DAY)),
            window: reader.span("supervision.window", secs(1)..=secs(DAY)),
            max_restarts: reader.whole("supervision.max_restarts", 1..=1000),
            spawns_at_once: reader.whole("supervision.spawns_at_once", 1..=64),
            beat_every: reader.span("supervision.beat_every", millis(10)..=secs(10 * MINUTE)),
            beat_deadline: reader.span("supervision.beat_deadline", millis(20)..=secs(HOUR)),
        }
    }
}
