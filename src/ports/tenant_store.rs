//! The record of tenants, their tokens and what they used. State goes here first and is told second.

use async_trait::async_trait;

use crate::domain::quota::Charge;
use crate::domain::tenant::{Tenant, TenantName, Token, TokenId};
use crate::ports::store::StoreError;

/// SHA-256 of a token's text.
pub type TokenDigest = [u8; 32];

/// What a tenant's environments come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    pub tenant: TenantName,
    pub environments: u64,
    pub bytes: u64,
}

/// Durable records of tenants. Every write is on disk when its future is done.
#[async_trait]
pub trait TenantStore: Send + Sync {
    async fn tenants(&self) -> Result<Vec<Tenant>, StoreError>;
    /// Writes a tenant, or its new allowance.
    async fn write_tenant(&self, tenant: &Tenant) -> Result<(), StoreError>;
    async fn tokens(&self) -> Result<Vec<(Token, TokenDigest)>, StoreError>;
    /// Writes a new token. An error when its id is taken.
    async fn insert_token(&self, token: &Token, digest: &TokenDigest) -> Result<(), StoreError>;
    /// False when there is no such token.
    async fn delete_token(&self, id: &TokenId) -> Result<bool, StoreError>;
    /// CPU time of a day, by tenant.
    async fn cpu_of(&self, day: i64) -> Result<Vec<Charge>, StoreError>;
    /// Adds all of these or none, and forgets days that are long over.
    async fn add_cpu(&self, charges: &[Charge]) -> Result<(), StoreError>;
    /// What each tenant has that has anything.
    async fn holdings(&self) -> Result<Vec<Holding>, StoreError>;
}
