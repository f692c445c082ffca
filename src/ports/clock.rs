//! The two clocks.

use std::time::Duration;

use crate::domain::time::{Moment, WallTime, whole_millis};

/// Tells the time. Tests drive it together with tokio's virtual time.
pub trait Clock: Send + Sync {
    /// Monotonic time since the daemon's start, at full resolution.
    fn uptime(&self) -> Duration;
    /// Wall time; may jump.
    fn wall(&self) -> WallTime;

    /// [`Clock::uptime`] as the core counts it.
    fn now(&self) -> Moment {
        Moment(whole_millis(self.uptime()))
    }
}
