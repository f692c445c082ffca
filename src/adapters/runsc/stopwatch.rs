//! Spans of time, finer than the milliseconds of `ports::clock`.

use std::time::Duration;

use tokio::time::Instant;

/// Measures from its start. Follows tokio's virtual time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(
        clippy::disallowed_methods,
        reason = "a span, not a time of day: handlers end within fractions of a millisecond"
    )]
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// Milliseconds with one decimal, for logs.
    pub(super) fn millis(self) -> f64 {
        (self.elapsed().as_secs_f64() * 10_000.0).round() / 10.0
    }
}
