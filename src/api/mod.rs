//! The daemon's two doors: HTTP for callers, and a Unix socket for whoever watches over the daemon.
//!
//! ```text
//!  request ─► envelope: id, token and its tenant, scope, panics, access log
//!                └─► route ─► body: caps, deadline, types ─► json: depth, duplicate keys
//!                       └─► Handle::ask, from a task of its own ─► dto ─► answer
//! ```
//!
//! Translation only. What a request is worth is decided by the actors behind [`Handles`]; a door decides whether it
//! can be read at all.

mod accepted;
pub mod access;
mod answer;
mod body;
mod desk;
pub mod dto;
mod ears;
mod ending;
mod envelope;
mod environments;
mod error;
mod events;
mod executions;
mod health;
mod health_socket;
mod held;
mod jobs;
mod keys;
mod parting;
mod pieces;
mod revisions;
mod scopes;
mod secrets;
mod server;

use std::sync::Arc;

use crate::domain::execution::LimitPolicy;
use crate::messages::call_desk::{
    AcceptCall, CancelCall, ClaimKey, GetExecution, GetExecutions, ReleaseKey, SettleKey,
};
use crate::messages::comfy_process::GetInstance;
use crate::messages::crypto::{GetCrypto, Open};
use crate::messages::egress::{GetCredentials, GetEgress, PutCredential, RemoveCredential};
use crate::messages::handle::Handle;
use crate::messages::images::{CheckImages, GetImages};
use crate::messages::queue_ingress::{CancelJob, GetIngress, SubmitJob};
use crate::messages::reaper::GetReaper;
use crate::messages::sandbox_pool::{
    CancelExecution, CloneEnvironment, DeleteEnvironment, Execute, GetPool, SetTtl, SetUp, UpdateModules,
};
use crate::messages::supervisor::GetHealth;
use crate::ports::clock::Clock;
use crate::ports::gpu::Gpus;
use crate::ports::job_queue::JobQueue;
use crate::ports::store::Store;
use crate::ports::tenants::TenantDesk;

pub use access::Access;
pub use body::Intake;
pub use ending::rendered;
pub use health_socket::{HealthDoor, SocketFile, serve_health};
pub use server::{DoorError, HttpSettings, serve_http};

/// Everyone the doors speak to.
#[derive(Debug, Clone, Default)]
pub struct Handles {
    pub set_up: Handle<SetUp>,
    pub execute: Handle<Execute>,
    pub cancel: Handle<CancelExecution>,
    pub delete: Handle<DeleteEnvironment>,
    pub pool: Handle<GetPool>,
    pub desk: DeskHandles,
    pub revisions: RevisionHandles,
    pub reaper: Handle<GetReaper>,
    /// Published where sandboxes have a way out.
    pub egress: Handle<GetEgress>,
    pub put_secret: Handle<PutCredential>,
    pub remove_secret: Handle<RemoveCredential>,
    pub secrets: Handle<GetCredentials>,
    /// These two are published where a runtime comes from an image.
    pub images: Handle<GetImages>,
    pub check_images: Handle<CheckImages>,
    pub health: Handle<GetHealth>,
    pub open: Handle<Open>,
    /// These three lead to the ingress of this host's own queue.
    pub submit: Handle<SubmitJob>,
    pub cancel_job: Handle<CancelJob>,
    pub ingress: Handle<GetIngress>,
    /// The GPU side, for the health door: its ring, its instances, its sources of jobs.
    pub crypto: Handle<GetCrypto>,
    pub instances: Vec<Handle<GetInstance>>,
    pub ingresses: Vec<Handle<GetIngress>>,
}

/// The ways to change an environment.
#[derive(Debug, Clone, Default)]
pub struct RevisionHandles {
    pub clone: Handle<CloneEnvironment>,
    pub update: Handle<UpdateModules>,
    pub set_ttl: Handle<SetTtl>,
}

/// The ways to the CallDesk.
#[derive(Debug, Clone, Default)]
pub struct DeskHandles {
    pub accept: Handle<AcceptCall>,
    pub cancel: Handle<CancelCall>,
    pub execution: Handle<GetExecution>,
    pub executions: Handle<GetExecutions>,
    pub claim: Handle<ClaimKey>,
    pub settle: Handle<SettleKey>,
    pub release: Handle<ReleaseKey>,
}

/// What the doors need. One value serves every worker of both of them.
pub struct Doors {
    pub handles: Handles,
    /// Read only: changes go through the pool.
    pub store: Arc<dyn Store>,
    /// Changed by the health socket alone.
    pub tenants: Arc<dyn TenantDesk>,
    /// This host's own queue, where it has one. Read only: changes go through its ingress.
    pub jobs: Option<Arc<dyn JobQueue>>,
    pub clock: Arc<dyn Clock>,
    /// None: no GPU work is done here.
    pub gpus: Option<Arc<dyn Gpus>>,
    pub limits: LimitPolicy,
    pub access: Access,
    pub intake: Intake,
    pub log: slog::Logger,
}

#[cfg(test)]
mod tests;
