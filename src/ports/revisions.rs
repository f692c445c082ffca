//! What changes of an environment after it was made.

use async_trait::async_trait;

use crate::domain::environment::Environment;
use crate::domain::id::EnvironmentId;
use crate::ports::store::StoreError;

/// Durable changes, as in `ports::store`.
#[async_trait]
pub trait Revisions: Send + Sync {
    /// False when there is no such environment, or none that is ready.
    async fn set_ttl(&self, id: EnvironmentId, seconds: u64) -> Result<bool, StoreError>;
    /// Makes `next` the environment's newest revision: its volume, its main module and its metadata, in one step. False
    /// unless the environment is ready and at the revision before it.
    async fn switch(&self, next: &Environment) -> Result<bool, StoreError>;
}
