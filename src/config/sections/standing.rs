//! `sandbox.standing`: sandboxes that are made before anybody calls.

use std::time::Duration;

use super::{DAY, Reader, secs};
use crate::config::value::Value;

/// The share of the host's memory that is taken where nothing is said, and the most of it.
const SHARE: u64 = 8;
const MOST_MB: u64 = 4096;

/// `sandbox.standing.…`
#[derive(Debug, Clone)]
pub struct Standing {
    /// False: every call waits for a sandbox of its own.
    pub enabled: bool,
    /// Of all that stand, in MiB.
    pub memory_mb: u64,
    /// Of each runtime.
    pub runtimes: usize,
    /// Of one environment, at the most.
    pub environment: usize,
    /// Of those that compile TypeScript at set-ups.
    pub compilers: usize,
    pub age: Duration,
    /// Calls that one serves where an environment's calls share it.
    pub reuses: u32,
    /// Such a one is ended when nobody calls it for so long.
    pub reuse_idle: Duration,
}

impl Standing {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            enabled: reader.switch("sandbox.standing.enabled"),
            memory_mb: memory_mb(reader),
            runtimes: reader.whole("sandbox.standing.runtimes", 0..=1000),
            environment: reader.whole("sandbox.standing.environment", 0..=1000),
            compilers: reader.whole("sandbox.standing.compilers", 0..=1000),
            age: reader.span("sandbox.standing.age", secs(10)..=secs(DAY)),
            reuses: reader.whole("sandbox.standing.reuses", 1..=1_000_000),
            reuse_idle: reader.span("sandbox.standing.reuse_idle", secs(1)..=secs(DAY)),
        }
    }
}

fn memory_mb(reader: &mut Reader<'_>) -> u64 {
    const KEY: &str = "sandbox.standing.memory_mib";
    let asked = reader.whole(KEY, 0..=1_048_576);
    if asked > 0 {
        return asked;
    }
    let host = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_mb(&text)).unwrap_or(0);
    let derived = (host / SHARE).min(MOST_MB);
    reader.derive(KEY, "an eighth of the host's memory, 4096 at the most", Value::Whole(derived));
    derived
}

/// `MemTotal` of /proc/meminfo (proc(5)), in MiB.
fn total_mb(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_memory_is_read_in_mebibytes() {
        assert_eq!(total_mb("MemTotal:       16384000 kB\nMemFree: 1 kB\n"), Some(16_000));
        assert_eq!(total_mb("MemFree: 1 kB\n"), None);
    }
}
