//! The two clocks.

use crate::domain::time::{Moment, WallTime};

/// Tells the time. Tests drive it together with tokio's virtual time.
pub trait Clock: Send + Sync {
    /// Monotonic; counts from the daemon's start and never goes back.
    fn now(&self) -> Moment;
    /// Wall time; may jump.
    fn wall(&self) -> WallTime;
}
