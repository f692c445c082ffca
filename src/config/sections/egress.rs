//! `sandbox.egress`: what may leave the sandboxes, beside what an environment's `allowNet` says.

use std::time::Duration;

use super::{DAY, HOUR, Reader, secs};
use crate::domain::egress::Network;

/// `sandbox.egress.…`
#[derive(Debug, Clone)]
pub struct Egress {
    /// False: nothing leaves any sandbox.
    pub enabled: bool,
    /// Networks that are not public and may be reached all the same.
    pub allow_private: Vec<Network>,
    /// Of one sandbox: connections at once, requests and bytes in all.
    pub connections: usize,
    pub requests: u64,
    pub bytes: u64,
    pub answer_within: Duration,
    pub idle: Duration,
    pub lasts: Duration,
}

impl Egress {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            enabled: reader.switch("sandbox.egress.enabled"),
            allow_private: networks(reader, "sandbox.egress.allow_private"),
            connections: reader.whole("sandbox.egress.connections", 1..=10_000),
            requests: reader.whole("sandbox.egress.requests", 1..=1_000_000_000),
            bytes: reader.whole::<u64>("sandbox.egress.mib", 1..=1_048_576) << 20,
            answer_within: reader.span("sandbox.egress.answer_within", secs(1)..=secs(HOUR)),
            idle: reader.span("sandbox.egress.idle", secs(1)..=secs(HOUR)),
            lasts: reader.span("sandbox.egress.lasts", secs(1)..=secs(DAY)),
        }
    }
}

/// Networks that are not public and are reached all the same.
pub(super) fn networks(reader: &mut Reader<'_>, key: &'static str) -> Vec<Network> {
    let text = reader.text_if_any(key).unwrap_or_default();
    let mut networks = Vec::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        match entry.parse() {
            Ok(network) => networks.push(network),
            Err(error) => reader.refuse(key, &format!("{entry:?} is {error}")),
        }
    }
    networks
}
