//! `[jobs]`: how jobs are taken, kept and answered, whatever their source.

use std::time::Duration;

use super::{DAY, HOUR, Reader, millis, secs};

/// The largest number of MiB for anything that is kept in memory.
const MOST_MIB: u64 = 65_536;

/// `[jobs]`
#[derive(Debug, Clone)]
pub struct Jobs {
    pub no_history: bool,
    pub dry_run: bool,
    /// Jobs that may wait in this host's own queue, and the bytes of their inputs.
    pub queue: usize,
    pub queue_bytes: usize,
    pub keep: Duration,
    pub keep_bytes: usize,
    /// The largest answer in this host's own queue, in bytes.
    pub answer_bytes: usize,
    /// Bytes of answers that are not off yet.
    pub spool_bytes: usize,
    pub sandbox_slots: usize,
    pub instance_wait: Duration,
    pub progress_every: Duration,
    /// Whole names, or `*.` and a domain. Empty: nothing is fetched.
    pub url_hosts: Vec<String>,
    /// The largest image that is fetched.
    pub fetch_bytes: u64,
}

impl Jobs {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let hosts = reader.text_if_any("jobs.url_hosts").unwrap_or_default();
        Self {
            no_history: reader.switch("jobs.no_history"),
            dry_run: reader.switch("jobs.dry_run"),
            queue: reader.whole("jobs.queue", 0..=1_000_000),
            queue_bytes: mib(reader, "jobs.queue_mib", MOST_MIB),
            keep: reader.span("jobs.keep", secs(1)..=secs(7 * DAY)),
            keep_bytes: mib(reader, "jobs.keep_mib", MOST_MIB),
            answer_bytes: mib(reader, "jobs.answer_mib", 4096),
            spool_bytes: mib(reader, "jobs.spool_mib", MOST_MIB),
            sandbox_slots: reader.whole("jobs.sandbox_slots", 1..=10_000),
            instance_wait: reader.span("jobs.instance_wait", secs(1)..=secs(DAY)),
            progress_every: reader.span("jobs.progress_every", millis(10)..=secs(HOUR)),
            url_hosts: hosts.split(',').map(|host| host.trim().to_owned()).filter(|host| !host.is_empty()).collect(),
            fetch_bytes: reader.whole::<u64>("jobs.fetch_mib", 1..=4096) << 20,
        }
    }
}

fn mib(reader: &mut Reader<'_>, key: &'static str, most: u64) -> usize {
    reader.whole::<usize>(key, 1..=most).saturating_mul(1 << 20)
}
