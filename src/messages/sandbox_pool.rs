//! The SandboxPool's contract.

use actix::prelude::*;

use crate::domain::environment::{Environment, ModulesUpdate, Runtime, SetUpInvalid, SetUpRequest, SourceFault};
use crate::domain::execution::{Call, ExecutionReport, Following};
use crate::domain::failure::FailureKind;
use crate::domain::id::{EnvironmentId, ExecutionId, SlotId};
use crate::domain::image::Digest;
use crate::domain::pool::{PoolPicture, Refusal};
use crate::domain::quota::{Exceeded, Work};
use crate::domain::tenant::TenantName;

/// Makes an environment: validated, transpiled, written, sealed, recorded.
#[derive(Message)]
#[rtype(result = "Result<Environment, SetUpError>")]
pub struct SetUp {
    pub id: EnvironmentId,
    pub tenant: TenantName,
    pub request: SetUpRequest,
}

/// Why there is no environment. Nothing half-made is left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetUpError {
    #[error(transparent)]
    Invalid(#[from] SetUpInvalid),
    #[error("{} could not be read as TypeScript", .0.first().map_or("a module", |fault| fault.module.as_str()))]
    Source(Vec<SourceFault>),
    #[error("environment {0} does not exist")]
    Absent(EnvironmentId),
    #[error("another change of environment {0} is under way: try again when that is done")]
    Busy(EnvironmentId),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    /// What failed, without the handler's own words.
    #[error("{doing} failed: {cause}")]
    Host { doing: &'static str, cause: String, kind: FailureKind },
}

/// Makes an environment of another one's tree, main module and permissions.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Environment, SetUpError>")]
pub struct CloneEnvironment {
    pub id: EnvironmentId,
    /// Whose both are.
    pub tenant: TenantName,
    pub from: EnvironmentId,
    /// None: as long as the other.
    pub ttl_seconds: Option<u64>,
}

/// Gives an environment new modules. Calls that have begun keep the old ones; calls that come after the answer have the
/// new ones.
#[derive(Message)]
#[rtype(result = "Result<Environment, SetUpError>")]
pub struct UpdateModules {
    pub id: EnvironmentId,
    /// Who asks. The environment has to be its own.
    pub tenant: TenantName,
    pub update: ModulesUpdate,
}

/// Changes how long an environment lives, counted from its creation.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Environment, SetUpError>")]
pub struct SetTtl {
    pub id: EnvironmentId,
    /// Who asks. The environment has to be its own.
    pub tenant: TenantName,
    pub seconds: u64,
}

/// Removes a volume of an environment that has another one now, unless something of it is under way.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Expired")]
pub struct RetireVolume {
    pub environment: EnvironmentId,
    pub volume: String,
}

/// Calls an environment's handler once.
#[derive(Message)]
#[rtype(result = "Result<ExecutionReport, ExecuteError>")]
pub struct Execute {
    pub call: Call,
    /// Who calls. The environment has to be its own.
    pub tenant: TenantName,
    /// How it counts against the tenant's quotas.
    pub work: Work,
    /// Hears what the call says while it runs.
    pub following: Following,
}

/// Why a call has no report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError {
    #[error("environment {0} does not exist")]
    Absent(EnvironmentId),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    #[error("{doing} failed: {cause}")]
    Host { doing: &'static str, cause: String, kind: FailureKind },
}

/// What failed when the sandbox had the call's request.
pub const RUNNING: &str = "running the sandbox";
/// What failed when the pool itself fell.
pub const POOL_FELL: &str = "the call";

impl ExecuteError {
    /// Whether the pool fell under the call: its record tells whether it had begun.
    pub fn is_of_a_lost_pool(&self) -> bool {
        matches!(self, ExecuteError::Host { doing: POOL_FELL, .. })
    }

    /// Whether the handler may have begun all the same.
    pub fn may_have_begun(&self) -> bool {
        matches!(self, ExecuteError::Host { doing: RUNNING | POOL_FELL, .. })
    }
}

/// The caller of this execution is gone: a waiting call is dropped, a running one is ended as `cancelled`.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct CancelExecution {
    pub execution: ExecutionId,
}

/// Deletes an environment: no new call begins, running ones are cancelled, then its volume and its record go.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), DeleteError>")]
pub struct DeleteEnvironment {
    pub id: EnvironmentId,
    /// Who asks. It has to be its own.
    pub tenant: TenantName,
}

/// Why an environment is not deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeleteError {
    #[error("environment {0} does not exist")]
    Absent(EnvironmentId),
    #[error("{doing} failed: {cause}")]
    Host { doing: &'static str, cause: String, kind: FailureKind },
}

/// Deletes an environment whose time is over, unless a call of it is waiting or running.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Expired")]
pub struct ExpireEnvironment {
    pub id: EnvironmentId,
    /// What was known of its life: one that was given another meanwhile is left alone.
    pub ttl_seconds: u64,
}

/// What became of an environment, or of a volume, whose time is over. `InUse`, too, when it is not over after all.
#[derive(Debug, Clone, PartialEq, Eq, MessageResponse)]
pub enum Expired {
    Deleted,
    InUse,
    Failed(String),
}

/// New sandboxes of the runtime are made of this image. Told when that changes, and again with each beat of Images, since it
/// may be lost.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct ImageServes {
    pub runtime: Runtime,
    pub image: Digest,
}

/// Which slots and environments is the pool holding right now?
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "PoolHoldings")]
pub struct GetHoldings;

/// What the Reaper must leave alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, MessageResponse)]
pub struct PoolHoldings {
    pub slots: Vec<SlotId>,
    /// Environments that are being set up, deleted or executed.
    pub environments: Vec<EnvironmentId>,
}

/// How full is the pool?
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "PoolPicture")]
pub struct GetPool;
