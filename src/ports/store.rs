//! The record of environments and executions. State goes here first and is told second.

use async_trait::async_trait;

use crate::domain::environment::{Environment, EnvironmentStatus};
use crate::domain::execution::ExecutionRecord;
use crate::domain::id::EnvironmentId;
use crate::domain::quota::{Exceeded, Quotas};
use crate::domain::tenant::TenantName;
use crate::domain::time::WallTime;

/// Why the store cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store cannot be opened at {path}")]
    Open {
        path: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the store cannot {action}")]
    Query {
        action: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the store holds a {what} that cannot be read: {found:?}")]
    Corrupt { what: &'static str, found: String },
    /// A tenant's quota does not allow it. Nothing is written.
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
}

/// Durable records. Every write is on disk when its future is done.
#[async_trait]
pub trait Store: Send + Sync {
    /// Writes a new environment, if its tenant may have one more: counted and written in one step, those included that
    /// are being made or deleted.
    async fn insert_environment(&self, environment: &Environment, quotas: &Quotas) -> Result<(), StoreError>;
    /// Notes what an environment's files take on disk, if its tenant may have so many bytes more: one step. No error when
    /// there is no such environment.
    async fn claim_storage(&self, id: EnvironmentId, bytes: u64, quotas: &Quotas) -> Result<(), StoreError>;
    /// Writes something that changes nothing, all the way to the file: whether the store takes what is written again.
    async fn try_write(&self) -> Result<(), StoreError>;
    /// False when there is no such environment.
    async fn set_status(&self, id: EnvironmentId, status: EnvironmentStatus) -> Result<bool, StoreError>;
    async fn environment(&self, id: EnvironmentId) -> Result<Option<Environment>, StoreError>;
    /// All environments of any status, newest first.
    async fn environments(&self) -> Result<Vec<Environment>, StoreError>;
    /// A tenant's environments of any status, newest first.
    async fn environments_of(&self, tenant: &TenantName) -> Result<Vec<Environment>, StoreError>;
    /// Removes an environment and its executions. False when there is none.
    async fn delete_environment(&self, id: EnvironmentId) -> Result<bool, StoreError>;
    /// Writes a call's beginning, raises its environment's count and sets its `last_executed_at`. One transaction.
    async fn begin_execution(&self, record: &ExecutionRecord) -> Result<(), StoreError>;
    /// Completes a call's record.
    async fn finish_execution(&self, record: &ExecutionRecord) -> Result<(), StoreError>;
    /// Marks every call that never finished as `cancelled` at `now`; returns how many. For start-up.
    async fn close_unfinished(&self, now: WallTime) -> Result<u64, StoreError>;
    /// An environment's calls, newest first, at most `limit`.
    async fn executions(&self, environment: EnvironmentId, limit: u32) -> Result<Vec<ExecutionRecord>, StoreError>;
    /// Deletes call records completed before `before`; returns how many.
    async fn forget_executions(&self, before: WallTime) -> Result<u64, StoreError>;
}
