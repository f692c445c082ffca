//! The host's clocks: the only place that reads them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::domain::time::WallTime;
use crate::ports::clock::Clock;

/// The clocks of the kernel. `now` counts from this value's creation and follows tokio's clock, so that a paused
/// runtime drives it; `wall` is the host's own and may jump.
#[derive(Debug, Clone)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose zero is now.
    pub fn start() -> Self {
        Self { started: monotonic() }
    }
}

impl Clock for SystemClock {
    fn uptime(&self) -> Duration {
        monotonic().saturating_duration_since(self.started)
    }

    fn wall(&self) -> WallTime {
        WallTime(wall_millis())
    }
}

#[expect(clippy::disallowed_methods, reason = "this is adapters::clock")]
fn monotonic() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970; a host whose clock stands before that reads 0.
#[expect(clippy::disallowed_methods, reason = "this is adapters::clock")]
fn wall_millis() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

/// For tests under `tokio::time::pause()`: both clocks move with the runtime's, the wall from a fixed date.
#[cfg(test)]
#[derive(Debug, Clone)]
pub struct PausedClock {
    started: Instant,
}

#[cfg(test)]
impl PausedClock {
    /// What the wall shows at the start: 2023-11-14T22:13:20Z.
    pub const WALL_AT_START: WallTime = WallTime(1_700_000_000_000);

    /// A clock whose zero is now. Call it inside a paused runtime.
    pub fn start() -> Self {
        Self { started: monotonic() }
    }
}

#[cfg(test)]
impl Clock for PausedClock {
    fn uptime(&self) -> Duration {
        monotonic().saturating_duration_since(self.started)
    }

    fn wall(&self) -> WallTime {
        let elapsed = i64::try_from(self.now().0).unwrap_or(i64::MAX);
        WallTime(Self::WALL_AT_START.0.saturating_add(elapsed))
    }
}

#[cfg(test)]
mod tests {


    use super::*;
    use crate::domain::time::Moment;

    #[tokio::test(start_paused = true)]
    async fn virtual_time_drives_both_clocks_of_a_test() {
        let clock = PausedClock::start();
        let system = SystemClock::start();
        tokio::time::advance(Duration::from_secs(3700)).await;
        assert_eq!(clock.now(), Moment(3_700_000));
        assert_eq!(system.now(), Moment(3_700_000));
        assert_eq!(clock.wall(), PausedClock::WALL_AT_START.plus_seconds(3700));
    }

    #[test]
    fn the_system_clock_works_without_a_runtime_and_does_not_go_back() {
        let clock = SystemClock::start();
        assert!(clock.now() <= clock.now());
        assert!(clock.wall() > PausedClock::WALL_AT_START);
    }
}
