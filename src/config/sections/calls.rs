//! `[calls]`: calls that are answered later, idempotency keys, webhooks.

use std::time::Duration;

use super::egress::networks;
use super::{DAY, MINUTE, Reader, secs};
use crate::domain::egress::Network;

/// `[calls]`
#[derive(Debug, Clone)]
pub struct Calls {
    /// How long keys, ended calls and their answers are kept.
    pub keep: Duration,
    /// The most bytes of answers.
    pub keep_bytes: usize,
    pub keys: u32,
    /// Accepted calls that have not ended, and the bytes of their requests.
    pub queue: usize,
    pub queue_bytes: usize,
    pub at_once: usize,
    pub webhook_attempts: u32,
    pub webhook_within: Duration,
    /// Networks that are not public and may be told all the same.
    pub webhook_allow_private: Vec<Network>,
}

impl Calls {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            keep: reader.span("calls.keep", secs(MINUTE)..=secs(365 * DAY)),
            keep_bytes: reader.whole::<usize>("calls.keep_mib", 1..=65_536) << 20,
            keys: reader.whole("calls.keys", 1..=1_000_000),
            queue: reader.whole("calls.queue", 0..=1_000_000),
            queue_bytes: reader.whole::<usize>("calls.queue_mib", 1..=65_536) << 20,
            at_once: reader.whole("calls.at_once", 1..=10_000),
            webhook_attempts: reader.whole("calls.webhook_attempts", 1..=20),
            webhook_within: reader.span("calls.webhook_within", secs(1)..=secs(2 * MINUTE)),
            webhook_allow_private: networks(reader, "calls.webhook_allow_private"),
        }
    }
}
