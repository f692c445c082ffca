//! Tenants in memory, over the store (`ports::tenants`).
//!
//! ```text
//!   start ─► store ─► State ◄─ caller, quotas, admit, charge      at once, no I/O
//!                       ▲
//!   desk: a change ─► store, then here                            one after the other
//!   charges ─► here ─► store, each second                         a kill loses the last second's
//! ```

mod desk;
#[cfg(test)]
pub mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use slog::{Logger, info};
use subtle::ConstantTimeEq;

use crate::domain::id::EnvironmentId;
use crate::domain::quota::{Allowance, Exceeded, Ledger, Quotas, Rate, Work, day_of};
use crate::domain::tenant::{Caller, Tenant, TenantName, Token, TokenId};
use crate::ports::clock::Clock;
use crate::ports::store::StoreError;
use crate::ports::tenant_store::{TenantStore, TokenDigest};
use crate::ports::tenants::{Pass, Tenants, TenantsPicture};

struct Known {
    tenant: Tenant,
    quotas: Quotas,
}

#[derive(Default)]
struct State {
    tenants: BTreeMap<TenantName, Known>,
    tokens: BTreeMap<TokenId, (Token, TokenDigest)>,
    ledger: Ledger,
}

/// All tenants of one daemon.
pub struct TenantRegistry {
    store: Arc<dyn TenantStore>,
    clock: Arc<dyn Clock>,
    /// What the configuration gives to every tenant that has no settings of its own.
    defaults: Allowance,
    state: Arc<Mutex<State>>,
    /// One change after the other: the store, then the memory.
    changing: tokio::sync::Mutex<()>,
    log: Logger,
}

impl TenantRegistry {
    /// Reads what the store has. The operator's own tenant is made where it is missing.
    ///
    /// # Errors
    /// When the store cannot be read, or holds what cannot be.
    pub async fn open(
        store: Arc<dyn TenantStore>,
        clock: Arc<dyn Clock>,
        defaults: Allowance,
        log: Logger,
    ) -> Result<Self, StoreError> {
        let mut tenants = store.tenants().await?;
        let operator = TenantName::operator();
        if !tenants.iter().any(|tenant| tenant.name == operator) {
            let made = Tenant { name: operator, created_at: clock.wall(), allowance: Allowance::default() };
            store.write_tenant(&made).await?;
            tenants.push(made);
        }
        let mut state = State::default();
        for tenant in tenants {
            let corrupt = |_| StoreError::Corrupt { what: "rate", found: tenant.name.to_string() };
            let quotas = tenant.allowance.over(defaults).quotas().map_err(corrupt)?;
            state.tenants.insert(tenant.name.clone(), Known { tenant, quotas });
        }
        let tokens = store.tokens().await?;
        state.tokens = tokens.into_iter().map(|(token, digest)| (token.id.clone(), (token, digest))).collect();
        for charge in store.cpu_of(day_of(clock.wall())).await? {
            state.ledger.restore(charge);
        }
        let state = Arc::new(Mutex::new(state));
        Ok(Self { store, clock, defaults, state, changing: tokio::sync::Mutex::default(), log })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self, tenant: &TenantName, exceeded: Exceeded) -> Exceeded {
        info!(self.log, "quota.refused"; "tenant" => tenant.as_str(), "quota" => exceeded.quota.as_str(),
            "limit" => exceeded.limit, "used" => exceeded.used);
        exceeded
    }
}

/// A call's place among its tenant's.
struct Place {
    state: Arc<Mutex<State>>,
    tenant: TenantName,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ledger.leave(&self.tenant);
    }
}

fn digest(token: &str) -> TokenDigest {
    Sha256::digest(token.as_bytes()).into()
}

#[async_trait]
impl Tenants for TenantRegistry {
    fn caller(&self, token: &str) -> Option<Caller> {
        let id = TokenId::of_text(token)?;
        let presented = digest(token);
        let state = self.state();
        // An id that nobody has costs the same comparison.
        let known = state.tokens.get(&id);
        let same: bool = known.map_or(&[0; 32], |(_, digest)| digest).ct_eq(&presented).into();
        let (token, _) = known.filter(|(token, _)| same && !token.is_over(self.clock.wall()))?;
        Some(Caller { tenant: token.tenant.clone(), scopes: token.scopes.clone(), token: Some(id) })
    }

    fn quotas(&self, tenant: &TenantName) -> Quotas {
        self.state().tenants.get(tenant).map_or_else(Quotas::default, |known| known.quotas)
    }

    fn admit(&self, tenant: &TenantName, work: Work) -> Result<Pass, Exceeded> {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let admitted = {
            let state = &mut *self.state();
            let quotas = state.tenants.get(tenant).map_or_else(Quotas::default, |known| known.quotas);
            state.ledger.admit(tenant, work, &quotas, now, wall)
        };
        match (admitted, work) {
            (Err(exceeded), _) => Err(self.told(tenant, exceeded)),
            (Ok(()), Work::Call | Work::QueuedCall) => {
                Ok(Pass::new(Place { state: Arc::clone(&self.state), tenant: tenant.clone() }))
            }
            (Ok(()), Work::SetUp | Work::Job) => Ok(Pass::new(())),
        }
    }

    fn admit_by(&self, tenant: &TenantName, environment: EnvironmentId, rate: Rate) -> Result<(), Exceeded> {
        let admitted = self.state().ledger.admit_by(environment, rate, self.clock.now());
        admitted.map_err(|exceeded| self.told(tenant, exceeded))
    }

    fn charge(&self, tenant: &TenantName, cpu: Duration) {
        self.state().ledger.charge(tenant, cpu, self.clock.wall());
    }

    async fn write_charges(&self) -> Result<(), StoreError> {
        let charges = self.state().ledger.take_unwritten();
        if charges.is_empty() {
            return Ok(());
        }
        let written = self.store.add_cpu(&charges).await;
        if written.is_err() {
            self.state().ledger.give_back(charges);
        }
        written
    }

    fn picture(&self) -> TenantsPicture {
        let state = self.state();
        TenantsPicture { tenants: state.tenants.len(), tokens: state.tokens.len(), counts: state.ledger.counts() }
    }
}
