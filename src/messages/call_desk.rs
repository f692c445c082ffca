//! The CallDesk's contract.

use actix::prelude::*;

use crate::domain::desk::{Answer, ExecutionView, Fingerprint, KeyId, Subject};
use crate::domain::execution::Call;
use crate::domain::id::{EnvironmentId, ExecutionId};
use crate::domain::pool::Refusal;
use crate::domain::tenant::TenantName;
use crate::domain::webhook::Webhook;

/// Why the desk did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeskError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{doing} failed: {cause}")]
    Host { doing: &'static str, cause: String },
}

/// Takes a call on, to be run when there is room. Durable when it is answered.
#[derive(Message)]
#[rtype(result = "Result<(), DeskError>")]
pub struct AcceptCall {
    pub call: Call,
    /// Who asks.
    pub tenant: TenantName,
    /// Told when it has ended.
    pub webhook: Option<Webhook>,
}

/// Ends a call: one that waits is over at once, one that runs ends as `cancelled`, one that has ended stays as it is.
/// False when the tenant has none.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<bool, DeskError>")]
pub struct CancelCall {
    pub execution: ExecutionId,
    pub tenant: TenantName,
}

/// How does this call of the tenant's stand?
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Option<ExecutionView>, DeskError>")]
pub struct GetExecution {
    pub execution: ExecutionId,
    pub tenant: TenantName,
}

/// Which calls of the tenant's were accepted, newest first, at most `limit`? Without their answers.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Vec<ExecutionView>, DeskError>")]
pub struct GetExecutions {
    pub tenant: TenantName,
    pub environment: Option<EnvironmentId>,
    pub limit: u32,
}

/// Asks for the right to do under this key what is about to be done. Answered at once, or, while somebody else does it,
/// when he is done.
#[derive(Debug, Message)]
#[rtype(result = "Result<Claim, DeskError>")]
pub struct ClaimKey {
    pub key: KeyId,
    pub fingerprint: Fingerprint,
    pub subject: Subject,
}

/// What a key is good for. Whoever holds it must settle or release it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// It is the asker's.
    Held,
    /// This was answered to the first request.
    Answered(Answer),
    /// The first request was taken on as this call.
    Accepted(ExecutionId),
    /// The first request made this environment.
    Made(EnvironmentId),
    /// The first request asked for something else.
    Other,
    /// The first request was answered, and its answer is not kept any more.
    Unkept(ExecutionId),
    /// The daemon ended under the first request's call, which had begun.
    CutOff(ExecutionId),
}

/// It is done: from now on the key stands for this. For a call, `answer` is what its caller is told.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct SettleKey {
    pub key: KeyId,
    pub answer: Option<Answer>,
}

/// It was not done: the key is free. Whoever waits for it is answered with the same.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ReleaseKey {
    pub key: KeyId,
    pub answer: Answer,
}
