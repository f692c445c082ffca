//! Who has begun how much: the calls under way, the rates, and the CPU time of the day.
//!
//! Invariants, held by the property test: a tenant never has more calls under way than its quota at the time each of
//! them was admitted; what is refused takes nothing; one tenant's doings never change another's answer; every charge is
//! written once, and none is lost by a store that fails.
//!
//! CPU time is charged when a call ends, by its cgroup's own count. So the calls under way when a day's time is used up
//! may go beyond it, each by its own time limit; the quota of calls at once bounds that.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Bucket, Exceeded, Quota, Quotas, Rate};
use crate::domain::id::EnvironmentId;
use crate::domain::tenant::TenantName;
use crate::domain::time::{Moment, WallTime};

/// A day, in milliseconds.
const DAY: i64 = 24 * 3600 * 1000;
/// When to come again after too many calls at once: nobody knows when one ends.
const BUSY: Duration = Duration::from_secs(1);
/// So many environments' rates are remembered before those that are full again are forgotten; then twice as many as were
/// left, so that the looks over all of them stay few.
const SWEPT_AT: usize = 1024;

/// The number of a day (UTC) since 1970.
pub fn day_of(wall: WallTime) -> i64 {
    wall.0.div_euclid(DAY)
}

/// What is to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A call of a handler, asked for at the door.
    Call,
    /// A call that came through a queue, where its rate was counted.
    QueuedCall,
    SetUp,
    Job,
}

impl Work {
    fn is_call(self) -> bool {
        matches!(self, Work::Call | Work::QueuedCall)
    }
}

/// CPU time that is to be added to what the store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    pub tenant: TenantName,
    /// See [`day_of`].
    pub day: i64,
    pub cpu: Duration,
}

/// How often something was refused since the start, by limit, and the calls under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    pub calls: u64,
    pub refused_concurrency: u64,
    pub refused_rate: u64,
    pub refused_cpu: u64,
}

#[derive(Debug, Default)]
struct Account {
    calls: u64,
    bucket: Option<Bucket>,
    day: i64,
    cpu: Duration,
    /// Not in the store yet, by day.
    unwritten: BTreeMap<i64, Duration>,
}

impl Account {
    /// A clock that went back does not give a day anew.
    fn turn_to(&mut self, day: i64) {
        if day > self.day {
            self.day = day;
            self.cpu = Duration::ZERO;
        }
    }
}

/// All tenants' accounts.
#[derive(Debug, Default)]
pub struct Ledger {
    accounts: BTreeMap<TenantName, Account>,
    environments: BTreeMap<EnvironmentId, (Rate, Bucket)>,
    sweep_at: usize,
    counts: Counts,
}

impl Ledger {
    /// Takes over what the store has of a day. For the start.
    pub fn restore(&mut self, charge: Charge) {
        let account = self.accounts.entry(charge.tenant).or_default();
        account.turn_to(charge.day);
        if charge.day == account.day {
            account.cpu = account.cpu.saturating_add(charge.cpu);
        }
    }

    /// Lets something begin. A call counts as under way until [`Ledger::leave`].
    ///
    /// # Errors
    /// The limit that is reached. Nothing is taken then.
    pub fn admit(
        &mut self,
        tenant: &TenantName,
        work: Work,
        quotas: &Quotas,
        now: Moment,
        wall: WallTime,
    ) -> Result<(), Exceeded> {
        let account = self.accounts.entry(tenant.clone()).or_default();
        account.turn_to(day_of(wall));
        if work.is_call() {
            if let Some(limit) = quotas.cpu_seconds.filter(|limit| account.cpu >= Duration::from_secs(*limit)) {
                self.counts.refused_cpu += 1;
                return Err(Exceeded::passing(Quota::Cpu, limit, account.cpu.as_secs(), until_tomorrow(wall)));
            }
            if let Some(limit) = quotas.concurrency.filter(|limit| account.calls >= *limit) {
                self.counts.refused_concurrency += 1;
                return Err(Exceeded::passing(Quota::Concurrency, limit, account.calls, BUSY));
            }
        }
        // The last one, since it takes a permit.
        match quotas.rate {
            Some(rate) if work != Work::QueuedCall => {
                let bucket = account.bucket.get_or_insert_with(|| Bucket::new(rate, now));
                bucket.take(rate, now).map_err(|after| {
                    self.counts.refused_rate += 1;
                    Exceeded::passing(Quota::Rate, rate.burst(), rate.burst(), after)
                })?;
            }
            Some(_) => {}
            None => account.bucket = None,
        }
        if work.is_call() {
            account.calls += 1;
            self.counts.calls += 1;
        }
        Ok(())
    }

    /// A call that was admitted is over.
    pub fn leave(&mut self, tenant: &TenantName) {
        if let Some(account) = self.accounts.get_mut(tenant).filter(|account| account.calls > 0) {
            account.calls -= 1;
            self.counts.calls -= 1;
        }
    }

    /// Lets one call of an environment begin, by that environment's own rate.
    ///
    /// # Errors
    /// When it is called more often than that.
    pub fn admit_by(&mut self, environment: EnvironmentId, rate: Rate, now: Moment) -> Result<(), Exceeded> {
        if self.environments.len() >= self.sweep_at.max(SWEPT_AT) {
            self.environments.retain(|_, (rate, bucket)| !bucket.is_full(*rate, now));
            self.sweep_at = self.environments.len().saturating_mul(2);
        }
        let entry = self.environments.entry(environment).or_insert_with(|| (rate, Bucket::new(rate, now)));
        entry.0 = rate;
        entry.1.take(rate, now).map_err(|after| {
            self.counts.refused_rate += 1;
            Exceeded::passing(Quota::EnvironmentRate, rate.burst(), rate.burst(), after)
        })
    }

    /// Notes what a call has used.
    pub fn charge(&mut self, tenant: &TenantName, cpu: Duration, wall: WallTime) {
        let account = self.accounts.entry(tenant.clone()).or_default();
        account.turn_to(day_of(wall));
        account.cpu = account.cpu.saturating_add(cpu);
        let unwritten = account.unwritten.entry(account.day).or_default();
        *unwritten = unwritten.saturating_add(cpu);
    }

    /// Takes what is to be written. What cannot be is given back with [`Ledger::give_back`].
    pub fn take_unwritten(&mut self) -> Vec<Charge> {
        let mut charges = Vec::new();
        for (tenant, account) in &mut self.accounts {
            let days = std::mem::take(&mut account.unwritten);
            charges.extend(days.into_iter().map(|(day, cpu)| Charge { tenant: tenant.clone(), day, cpu }));
        }
        charges
    }

    /// The store did not take these.
    pub fn give_back(&mut self, charges: Vec<Charge>) {
        for Charge { tenant, day, cpu } in charges {
            let unwritten = self.accounts.entry(tenant).or_default().unwritten.entry(day).or_default();
            *unwritten = unwritten.saturating_add(cpu);
        }
    }

    /// A tenant's calls under way, and its CPU time of the day.
    pub fn of(&self, tenant: &TenantName, wall: WallTime) -> (u64, Duration) {
        self.accounts.get(tenant).map_or((0, Duration::ZERO), |account| {
            let cpu = if day_of(wall) > account.day { Duration::ZERO } else { account.cpu };
            (account.calls, cpu)
        })
    }

    /// All of them together.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

fn until_tomorrow(wall: WallTime) -> Duration {
    Duration::from_millis(u64::try_from(DAY - wall.0.rem_euclid(DAY)).unwrap_or(0))
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
