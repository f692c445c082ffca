//! Who may come in, and how much of everything each tenant may use.

use std::any::Any;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::domain::id::EnvironmentId;
use crate::domain::quota::{Allowance, Counts, Exceeded, InvalidRate, Quotas, Rate, Work};
use crate::domain::tenant::{Caller, TenantName, TenantView, Token, TokenId, TokenOrder};
use crate::ports::store::StoreError;

/// A call under way. It counts against its tenant's quota until this is dropped.
pub struct Pass(#[expect(dead_code, reason = "held for its Drop")] Box<dyn Any + Send>);

impl Pass {
    /// `held`: what gives the place back when it is dropped.
    pub fn new(held: impl Any + Send) -> Self {
        Self(Box::new(held))
    }
}

/// What the health door shows of tenants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantsPicture {
    pub tenants: usize,
    pub tokens: usize,
    #[serde(flatten)]
    pub counts: Counts,
}

/// Answers from memory, so that no answer's time tells what there is; whatever changes is in the store first.
#[async_trait]
pub trait Tenants: Send + Sync {
    /// Whose this token is. None: nobody's, or its time is over.
    fn caller(&self, token: &str) -> Option<Caller>;
    /// What is in force for a tenant.
    fn quotas(&self, tenant: &TenantName) -> Quotas;
    /// Lets something begin.
    ///
    /// # Errors
    /// The quota that is reached; it has been logged.
    fn admit(&self, tenant: &TenantName, work: Work) -> Result<Pass, Exceeded>;
    /// Lets a call of an environment begin, by that environment's own rate.
    ///
    /// # Errors
    /// When it is called more often than that; it has been logged.
    fn admit_by(&self, tenant: &TenantName, environment: EnvironmentId, rate: Rate) -> Result<(), Exceeded>;
    /// Notes the CPU time of a call. In the store with the next [`Tenants::write_charges`].
    fn charge(&self, tenant: &TenantName, cpu: Duration);
    /// Writes what has been charged since the last time. What the store does not take is kept.
    async fn write_charges(&self) -> Result<(), StoreError>;
    fn picture(&self) -> TenantsPicture;
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum TenantsError {
    #[error("there is no tenant {0}: make it with `cloister tenants set {0}`")]
    NoTenant(TenantName),
    #[error("there are {0} tenants already, the most that there may be")]
    TooManyTenants(usize),
    #[error("there are {0} tokens already, the most that there may be: revoke some")]
    TooManyTokens(usize),
    #[error("a token may live for ten years at most")]
    LivesTooLong,
    #[error(transparent)]
    Rate(#[from] InvalidRate),
    #[error("no random numbers can be had")]
    Random(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A new token. Its text is shown once and kept nowhere.
pub struct NewToken {
    pub token: Token,
    pub text: String,
}

/// Changes tenants and tokens; each change holds at once. For whoever runs the daemon.
#[async_trait]
pub trait TenantDesk: Tenants {
    /// Every tenant by name, with what it uses.
    async fn tenants(&self) -> Result<Vec<TenantView>, TenantsError>;
    /// Makes a tenant, or changes what is given of its allowance; `anew`: what is not given is left to the configuration
    /// again.
    async fn set_tenant(&self, name: TenantName, given: Allowance, anew: bool) -> Result<TenantView, TenantsError>;
    /// Every token, the oldest first.
    fn tokens(&self) -> Vec<Token>;
    async fn make_token(&self, order: TokenOrder) -> Result<NewToken, TenantsError>;
    /// False when there is no such token.
    async fn revoke_token(&self, id: &TokenId) -> Result<bool, TenantsError>;
}
