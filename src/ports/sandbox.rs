//! Sandboxes: made, readied, claimed for one task, destroyed, and verified gone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::domain::credential::CredentialName;
use crate::domain::environment::{Permissions, Runtime, SourceFault};
use crate::domain::execution::{Call, Evidence, Following, Limits};
use crate::domain::id::{EnvironmentId, SlotId};
use crate::domain::package_set::PackageSet;

/// What a sandbox is made for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Calls of one environment: `volume`, the tree of its revision, is mounted at `/workspace`, its permissions are in force,
    /// and placeholders stand for its secrets.
    Execute { environment: EnvironmentId, volume: String, permissions: Permissions, secrets: Vec<CredentialName> },
    /// The same, made before it is needed: the runtime loads more before it is ready, to answer sooner.
    StandForEnvironment {
        environment: EnvironmentId,
        volume: String,
        permissions: Permissions,
        secrets: Vec<CredentialName>,
    },
    /// Made before it is known which environment it will be for: one without permissions. See `attach`.
    StandForRuntime,
    /// Turning TypeScript into JavaScript: no volume at all, but the trees of the dependencies that it imports.
    Transpile { dependencies: Vec<PathBuf> },
    /// Installing dependencies, packages on Bun and modules on Deno: no volume, and a way out to where they come from alone.
    Install,
}

/// A sandbox to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotSpec {
    pub slot: SlotId,
    pub runtime: Runtime,
    pub purpose: Purpose,
    /// The memory its task will be given above the idle runtime, in MiB; the engine's heap flag carries it.
    pub memory_mb: u64,
}

/// What a standing sandbox does before it is claimed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preparation {
    pub main_module: String,
    /// In force during the import, and the memory of the call that it will be claimed for.
    pub limits: Limits,
}

/// What was found when a sandbox was laid to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rested {
    /// What it is charged.
    pub memory_bytes: u64,
    /// CPU time since its module was imported or since it last rested. Zero for one that has imported none, and for one that
    /// has served calls: there the next call is charged.
    pub cpu: Duration,
}

/// The answer to a transpile task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transpiled {
    /// JavaScript by module name.
    Modules(BTreeMap<String, String>),
    Faults(Vec<SourceFault>),
}

/// The answer to an install task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Installed {
    /// Plain files by their paths in a volume. What lies in them is strangers' data.
    Files(BTreeMap<String, Vec<u8>>),
    /// The installer's reason: one line, of its own words.
    Failed(String),
}

/// Why a sandbox could not be made or used. Never holds what the handler printed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("sandboxes are off on this host: {0}")]
    Off(String),
    #[error("the {0} runtime is not installed on this host")]
    RuntimeMissing(Runtime),
    #[error("the sandbox was not ready within {0:?}")]
    NotReady(Duration),
    #[error("the sandbox ended before it was ready ({end}): {detail}")]
    DiedEarly { end: String, detail: String },
    #[error("there is no sandbox {0}")]
    Unknown(SlotId),
    #[error("the sandbox's task ended as {0}")]
    TaskFailed(&'static str),
    /// A ready sandbox that was not as it should be when it was claimed. Nothing of the call has reached it.
    #[error("the sandbox {0}, which was ready, is of no use any more")]
    Spoiled(SlotId),
    #[error("{doing} failed")]
    Host {
        doing: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Something of ours that the host still holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leftover {
    pub slot: SlotId,
    /// "cgroup", "runtime state", "bundle", "mount", "way out" or "process": where it was found.
    pub kind: &'static str,
}

/// What the sandbox side of this host can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EngineProbe {
    /// `runsc`, `crun` or `runc`.
    pub engine: String,
    pub engine_version: String,
    /// True when calls run in gVisor.
    pub isolated: bool,
    pub cgroup: String,
    /// Versions of the runtimes that are installed.
    pub runtimes: BTreeMap<Runtime, String>,
    /// What is missing or wrong, each with its remedy. Empty: all is well.
    pub problems: Vec<String>,
}

/// Makes and ends sandboxes. Every method may be called for any slot at any time; a call for a slot that is going
/// or gone answers with an error, never with another slot's facts.
#[async_trait]
pub trait SandboxEngine: Send + Sync {
    /// What this host can do. Bounded by deadlines of its own.
    async fn probe(&self) -> EngineProbe;

    /// Boots a sandbox without a CPU quota, up to its runner's `ready` frame.
    ///
    /// # Errors
    /// Whatever was made remains and must be destroyed, also after an error.
    async fn create(&self, spec: SlotSpec) -> Result<(), SandboxError>;

    /// Imports the environment's module in a `Purpose::StandForEnvironment` sandbox, within the limits. Answers with the CPU
    /// time that it took.
    ///
    /// # Errors
    /// `TaskFailed` with the outcome that a call would have had, when the module does not let itself be imported.
    async fn prepare(&self, slot: SlotId, preparation: Preparation) -> Result<Duration, SandboxError>;

    /// Freezes a ready sandbox until it is claimed or woken.
    ///
    /// # Errors
    /// `Spoiled` when it does not stand still, or said what nobody asked for; `Unknown` when it is claimed.
    async fn rest(&self, slot: SlotId) -> Result<Rested, SandboxError>;

    /// Lets a sandbox go on if it rests, until it is laid to rest again.
    ///
    /// # Errors
    /// `Unknown` when it is claimed.
    async fn wake(&self, slot: SlotId) -> Result<(), SandboxError>;

    /// Returns when a sandbox that waits to be claimed has ended by itself (true), or is claimed or being destroyed (false).
    async fn lost(&self, slot: SlotId) -> bool;

    /// Mounts a volume, the tree of an environment's revision, in a `Purpose::StandForRuntime` sandbox, which is the environment's from then on.
    ///
    /// # Errors
    /// When it cannot be mounted. Nothing of the call has reached the sandbox.
    async fn attach(&self, slot: SlotId, volume: &str) -> Result<(), SandboxError>;

    /// Lets the sandbox go on if it rests, writes the call's limits to the cgroup, sends the request and watches until it is settled, closed, over time,
    /// flooded or out of memory. The sandbox is spent afterwards, unless it was asked to `keep` waiting and the handler
    /// has returned a result: then it can run another call of its environment, or rest. The time limit starts when the request is sent.
    /// `following` hears logs and output as they are read, within the caps that hold for the evidence.
    ///
    /// # Errors
    /// `Spoiled`, before anything was sent; else only when the host itself failed: what the handler did is evidence, not
    /// an error.
    async fn run(
        &self,
        slot: SlotId,
        call: &Call,
        main_module: &str,
        keep: bool,
        following: Following,
    ) -> Result<Evidence, SandboxError>;

    /// Turns TypeScript into JavaScript in a `Purpose::Transpile` sandbox.
    async fn transpile(
        &self,
        slot: SlotId,
        modules: BTreeMap<String, String>,
        limits: Limits,
    ) -> Result<Transpiled, SandboxError>;

    /// Installs a set in a `Purpose::Install` sandbox of its installer's runtime, without running anything of it.
    async fn install(&self, slot: SlotId, wanted: PackageSet, limits: Limits) -> Result<Installed, SandboxError>;

    /// Kills all processes of the slot, verifies that none is left, removes its state, mounts, bundle and cgroup.
    /// Idempotent; also for slots of an earlier life of the daemon.
    ///
    /// # Errors
    /// When something survives: the slot is wedged and the call can be repeated.
    async fn destroy(&self, slot: SlotId) -> Result<(), SandboxError>;

    /// Everything of ours on the host, by slot, whether this life of the daemon made it or an earlier one.
    async fn leftovers(&self) -> Result<Vec<Leftover>, SandboxError>;
}
