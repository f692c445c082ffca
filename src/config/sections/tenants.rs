//! `[tenants]`: what a tenant may use that has no settings of its own.

use super::Reader;
use crate::domain::quota::Allowance;

/// Reads `[tenants]`. 0 is no limit.
pub(super) fn read(reader: &mut Reader<'_>) -> Allowance {
    let allowance = Allowance {
        environments: Some(reader.whole("tenants.environments", 0..=1_000_000)),
        concurrency: Some(reader.whole("tenants.concurrency", 0..=1_000_000)),
        rate: Some(reader.real("tenants.rate", 0.0..=10_000.0)),
        burst: Some(reader.whole("tenants.burst", 0..=1_000_000)),
        cpu_seconds: Some(reader.whole("tenants.cpu_seconds", 0..=1_000_000_000)),
        storage_mib: Some(reader.whole("tenants.storage_mib", 0..=1_000_000_000)),
    };
    if allowance.quotas().is_err() {
        reader.refuse("tenants.rate", "write 0 for no limit, else 0.001 or more");
    }
    allowance
}
