//! What a tenant may use, and what an environment may be asked for: limits, and the decisions that follow.
//!
//! ```text
//!   configuration ─┐                                  rate, concurrency, CPU ─► Ledger ──► 429 with Retry-After
//!   tenant's own ──┴─► Allowance::over ─► Quotas ─┬─► environments, bytes ───► in the store's own transaction ─► 403
//!                                                 └─► shown
//! ```

mod ledger;
mod rate;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use ledger::{Charge, Counts, Ledger, Work, day_of};
pub use rate::{Bucket, InvalidRate, Rate};

/// What a file takes on disk at the least, and in steps of it.
const BLOCK: u64 = 4096;
/// The most calls of one environment at once that can be asked for.
const MOST_CONCURRENT: u32 = 10_000;

/// What a tenant may use. None: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quotas {
    pub environments: Option<u64>,
    /// Calls at once, those that wait for a sandbox included.
    pub concurrency: Option<u64>,
    /// Calls, set-ups and jobs.
    pub rate: Option<Rate>,
    /// CPU time of calls in a day (UTC), in seconds.
    pub cpu_seconds: Option<u64>,
    /// Of its environments' files.
    pub storage_bytes: Option<u64>,
}

/// A tenant's own settings. None leaves it to the configuration, 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Allowance {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environments: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u64>,
    /// A second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// A day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_mib: Option<u64>,
}

/// A rate that was checked is never NaN.
impl Eq for Allowance {}

impl Allowance {
    /// This allowance, and `below` where it leaves something open.
    pub fn over(self, below: Self) -> Self {
        Self {
            environments: self.environments.or(below.environments),
            concurrency: self.concurrency.or(below.concurrency),
            rate: self.rate.or(below.rate),
            burst: self.burst.or(below.burst),
            cpu_seconds: self.cpu_seconds.or(below.cpu_seconds),
            storage_mib: self.storage_mib.or(below.storage_mib),
        }
    }

    /// The limits that it comes to.
    ///
    /// # Errors
    /// When its rate cannot be.
    pub fn quotas(self) -> Result<Quotas, InvalidRate> {
        let limit = |number: Option<u64>| number.filter(|number| *number > 0);
        let rate = match self.rate {
            None | Some(0.0) => None,
            Some(per_second) => Some(Rate::new(per_second, limit(self.burst))?),
        };
        Ok(Quotas {
            environments: limit(self.environments),
            concurrency: limit(self.concurrency),
            rate,
            cpu_seconds: limit(self.cpu_seconds),
            storage_bytes: limit(self.storage_mib).map(|mib| mib.saturating_mul(1 << 20)),
        })
    }
}

/// What a tenant uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub environments: u64,
    pub storage_bytes: u64,
    /// Calls at the moment.
    pub calls: u64,
    /// CPU time of calls today.
    pub cpu: Duration,
}

impl Quotas {
    /// Whether one environment more is allowed beside so many.
    ///
    /// # Errors
    /// When there are as many as may be.
    pub fn admit_environment(&self, present: u64) -> Result<(), Exceeded> {
        match self.environments {
            Some(limit) if present >= limit => Err(Exceeded::lasting(Quota::Environments, limit, present)),
            _ => Ok(()),
        }
    }

    /// Whether so many bytes more are allowed beside those that are there.
    ///
    /// # Errors
    /// When they would be more than may be.
    pub fn admit_bytes(&self, present: u64, more: u64) -> Result<(), Exceeded> {
        match self.storage_bytes {
            Some(limit) if present.saturating_add(more) > limit => {
                Err(Exceeded::lasting(Quota::Storage, limit, present.saturating_add(more)))
            }
            _ => Ok(()),
        }
    }
}

/// What files of these sizes take on disk, in whole blocks.
pub fn bytes_on_disk(sizes: impl IntoIterator<Item = usize>) -> u64 {
    let blocks = |size: usize| u64::try_from(size).unwrap_or(u64::MAX).div_ceil(BLOCK).max(1);
    sizes.into_iter().fold(0_u64, |sum, size| sum.saturating_add(blocks(size).saturating_mul(BLOCK)))
}

/// What one environment may be asked for, by its own set-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvironmentLimits {
    /// Calls at once; more wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Calls; more are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

impl EnvironmentLimits {
    /// Whether they can be.
    pub fn are_valid(&self) -> bool {
        self.concurrency.is_none_or(|calls| (1..=MOST_CONCURRENT).contains(&calls))
    }
}

/// A limit that can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quota {
    Environments,
    Concurrency,
    Rate,
    Cpu,
    Storage,
    /// An environment's own rate.
    EnvironmentRate,
}

impl Quota {
    /// The stable name in refusals and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Quota::Environments => "environments",
            Quota::Concurrency => "concurrency",
            Quota::Rate => "rate",
            Quota::Cpu => "cpu_seconds",
            Quota::Storage => "storage_bytes",
            Quota::EnvironmentRate => "environment_rate",
        }
    }
}

/// Why something is not allowed: which limit, how much it is, how much is used with what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct Exceeded {
    pub quota: Quota,
    pub limit: u64,
    pub used: u64,
    /// When it may be allowed again; none when that takes something else than time.
    pub retry_after: Option<Duration>,
}

impl Exceeded {
    fn lasting(quota: Quota, limit: u64, used: u64) -> Self {
        Self { quota, limit, used, retry_after: None }
    }

    fn passing(quota: Quota, limit: u64, used: u64, retry_after: Duration) -> Self {
        Self { quota, limit, used, retry_after: Some(retry_after) }
    }
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { quota, limit, used, retry_after } = self;
        match quota {
            Quota::Environments => {
                write!(f, "the tenant has all environments that it may have, {used} of {limit}: delete some")?
            }
            Quota::Concurrency => write!(f, "the tenant has all calls under way that it may have, {used} of {limit}")?,
            Quota::Rate => write!(f, "the tenant asks more often than it may")?,
            Quota::Cpu => write!(f, "the tenant's calls have used {used} of {limit} s CPU time today (UTC)")?,
            Quota::Storage => {
                write!(f, "the tenant's environments would take {used} bytes of {limit}: delete some")?;
            }
            Quota::EnvironmentRate => write!(f, "the environment is called more often than its limits allow")?,
        }
        match retry_after {
            Some(span) => write!(f, "; try again in {} s", span.as_secs() + u64::from(span.subsec_nanos() > 0)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_own_settings_stand_above_the_configurations_and_0_is_no_limit() {
        let config = Allowance { environments: Some(5), rate: Some(2.0), storage_mib: Some(1), ..Allowance::default() };
        let own = Allowance { environments: Some(0), cpu_seconds: Some(9), ..Allowance::default() };
        let quotas = own.over(config).quotas().unwrap();
        assert_eq!((quotas.environments, quotas.cpu_seconds, quotas.storage_bytes), (None, Some(9), Some(1 << 20)));
        assert_eq!(quotas.rate, Rate::new(2.0, Some(2)).ok());
        assert_eq!(Allowance::default().quotas(), Ok(Quotas::default()));
        assert!(Allowance { rate: Some(-1.0), ..own }.quotas().is_err());
        assert_eq!(Allowance { rate: Some(0.0), burst: Some(7), ..own }.quotas().unwrap().rate, None);
    }

    #[test]
    fn what_lasts_is_refused_at_the_limit_and_told_with_its_use() {
        let quotas = Quotas { environments: Some(2), storage_bytes: Some(8192), ..Quotas::default() };
        assert_eq!(quotas.admit_environment(1), Ok(()));
        let text = quotas.admit_environment(2).unwrap_err().to_string();
        assert_eq!(text, "the tenant has all environments that it may have, 2 of 2: delete some");
        assert_eq!(quotas.admit_bytes(4096, 4096), Ok(()));
        let refused = quotas.admit_bytes(4096, 4097).unwrap_err();
        assert_eq!((refused.limit, refused.used, refused.retry_after), (8192, 8193, None));
        assert!(Quotas::default().admit_bytes(u64::MAX, u64::MAX).is_ok());
    }

    #[test]
    fn files_count_in_whole_blocks_empty_ones_too() {
        assert_eq!(bytes_on_disk([]), 0);
        assert_eq!(bytes_on_disk([0, 1, 4096, 4097]), 4096 + 4096 + 4096 + 8192);
    }

    #[test]
    fn an_environments_limits_are_bounded() {
        let limits = |text: &str| serde_json::from_str::<EnvironmentLimits>(text);
        assert!(limits(r#"{"concurrency":1,"rate":{"perSecond":5}}"#).unwrap().are_valid());
        assert!(!limits(r#"{"concurrency":0}"#).unwrap().are_valid());
        assert!(!limits(r#"{"concurrency":10001}"#).unwrap().are_valid());
        assert!(limits(r#"{"concurency":1}"#).is_err());
    }
}
