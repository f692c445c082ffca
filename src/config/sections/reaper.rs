//! `[reaper]`: when what is over is taken away.

use std::time::Duration;

use super::{DAY, Reader, secs};

/// `[reaper]`
#[derive(Debug, Clone)]
pub struct Reaper {
    pub interval: Duration,
    /// Environments that nobody called for so long are deleted; none: they live to the end of their time.
    pub idle_ttl: Option<Duration>,
    /// Sets of packages that no environment has used for so long are removed.
    pub unused_packages: Duration,
}

impl Reaper {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let interval = reader.span("reaper.interval", secs(1)..=secs(DAY));
        let idle_ttl = reader.span("reaper.idle_ttl", secs(0)..=secs(3650 * DAY));
        let unused_packages = reader.span("reaper.unused_packages", secs(0)..=secs(3650 * DAY));
        Self { interval, idle_ttl: (!idle_ttl.is_zero()).then_some(idle_ttl), unused_packages }
    }
}
