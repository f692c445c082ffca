//! The record of accepted calls, of their answers, and of idempotency keys.

use async_trait::async_trait;

use crate::domain::desk::{Answer, Claimed, ExecutionView, Fingerprint, HookState, KeyId, Subject};
use crate::domain::execution::{Call, ExecutionRecord};
use crate::domain::id::{EnvironmentId, ExecutionId};
use crate::domain::tenant::TenantName;
use crate::domain::time::WallTime;
use crate::domain::webhook::Webhook;
use crate::ports::store::StoreError;

/// A call that is taken on.
#[derive(Clone)]
pub struct AcceptedCall {
    pub call: Call,
    /// Who asked for it.
    pub tenant: TenantName,
    pub accepted_at: WallTime,
    pub webhook: Option<Webhook>,
}

/// An accepted call that has not ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Unended {
    pub execution: ExecutionId,
    pub environment: EnvironmentId,
    /// Of its request.
    pub bytes: usize,
    /// The pool's record of it, once it has begun.
    pub record: Option<ExecutionRecord>,
}

/// A webhook whose time has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueHook {
    pub execution: ExecutionId,
    pub webhook: Webhook,
    /// Tries so far.
    pub attempts: u32,
}

/// How a call ended.
#[derive(Debug, Clone)]
pub struct CallEnd {
    pub execution: ExecutionId,
    /// One of the outcomes, or `failed`.
    pub outcome: String,
    pub at: WallTime,
    /// Kept only where the configuration asks for it.
    pub answer: Option<Answer>,
}

/// Durable records, as in `ports::store`: every write is on disk when its future is done. What belongs to an environment
/// goes with it.
#[async_trait]
pub trait CallBook: Send + Sync {
    /// Writes a new accepted call.
    async fn accept(&self, accepted: &AcceptedCall) -> Result<(), StoreError>;
    /// What was accepted and has not ended, oldest first.
    async fn unended(&self) -> Result<Vec<Unended>, StoreError>;
    /// Who asked for an accepted call, and for what, while it has not ended.
    async fn request(&self, execution: ExecutionId) -> Result<Option<(TenantName, Call)>, StoreError>;
    /// Writes an accepted call's end and forgets its request. Its webhook, if any, is due from now on.
    async fn end(&self, end: &CallEnd) -> Result<(), StoreError>;
    /// A call, accepted or not; its answer only where it is kept here.
    async fn view(&self, execution: ExecutionId) -> Result<Option<ExecutionView>, StoreError>;
    /// A tenant's accepted calls, newest first, without their answers.
    async fn views(
        &self,
        tenant: &TenantName,
        environment: Option<EnvironmentId>,
        limit: u32,
    ) -> Result<Vec<ExecutionView>, StoreError>;
    /// Webhooks that are due at `now`, the longest due first.
    async fn due_hooks(&self, now: WallTime, limit: u32) -> Result<Vec<DueHook>, StoreError>;
    /// Writes how a webhook stands after a try; `again` for one that is still owed.
    async fn note_hook(
        &self,
        execution: ExecutionId,
        attempts: u32,
        state: HookState,
        again: Option<WallTime>,
    ) -> Result<(), StoreError>;
    /// Writes a key unless it is there. Of more than `most`, the oldest that are settled go.
    async fn claim_key(
        &self,
        key: &KeyId,
        fingerprint: &Fingerprint,
        subject: Subject,
        now: WallTime,
        most: u32,
    ) -> Result<Claimed, StoreError>;
    /// The key's request is answered. `answer`, with the call that it belongs to, only where answers are kept here.
    async fn settle_key(&self, key: &KeyId, answer: Option<&Answer>, now: WallTime) -> Result<(), StoreError>;
    /// The key is free again.
    async fn release_key(&self, key: &KeyId) -> Result<(), StoreError>;
    /// Whether the environment is there and ready.
    async fn is_ready(&self, environment: EnvironmentId) -> Result<bool, StoreError>;
    /// Forgets keys, and ended calls whose webhooks are settled, of before that time; then the oldest answers beyond so
    /// many bytes. Returns how many records went.
    async fn forget(&self, before: WallTime, most_answer_bytes: u64) -> Result<u64, StoreError>;
}
