//! Sandboxes by gVisor's `runsc`, or by `crun`/`runc` where isolation is switched off for development.
//!
//! The life of a slot:
//!
//! ```text
//!            create                    run / transpile / install
//!   (none) ─────────► booting ──ready──► ready ─────────► claimed ─────► spent
//!     ▲                  │                 │ (prepare) rest  ▲             │
//!     │                  │                 ▼                 │             │
//!     │                  │              resting ─(attach)─ run             │
//!     │                  └──── error ──────┴──── destroy ────┴─────────────┤
//!     │                                                                    ▼
//!     └──────────── nothing of it left ◄──── cgroup killed and empty ◄── doomed
//! ```
//!
//! Invariants:
//!
//! * All that a slot has on the host carries its name: one cgroup, one directory `<run_dir>/slots/<slot>` with bundle
//!   and runtime state, and where its environment may reach something, one socket of `ports::egress`. What an earlier life of the daemon left is found and destroyed by that name alone.
//! * The engine is started inside the cgroup, so that nothing it starts is ever outside. A slot is gone when its cgroup
//!   was seen empty, and never because a command said so. With no process left, its state is only files: no
//!   `runsc delete` is run (30 ms of CPU each).
//! * A slot serves one task. Who claims it takes its line; there is no second one.
//! * A resting slot is frozen: what it holds can do nothing until it is woken or claimed, and then it is looked at before anything
//!   of the call is sent to it.
//! * `doomed` ends whatever waits on the slot, and is never taken back.

mod capture;
mod channel;
mod create;
mod delivery;
mod destroy;
mod dialogue;
mod egress;
mod flags;
mod frame;
mod layout;
mod leftovers;
mod line;
mod live;
mod mount_points;
mod permissions;
mod probe;
mod result;
mod run;
mod runners;
mod seccomp;
mod settings;
mod slot;
mod spec;
mod stand;
mod stopwatch;
mod tools;
mod tree;
mod trial;
mod turns;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use slog::Logger;
use tokio::sync::OnceCell;

use self::capture::CaptureCaps;
use self::flags::Engine;
use self::layout::Layout;
use self::runners::Runners;
pub use self::settings::{Choice, InstallLimits, OutLimits, OutputLimits, Settings};
use self::slot::Slots;
pub use self::trial::Trials;
use crate::domain::execution::{Call, Evidence, Following, Limits};
use crate::domain::id::SlotId;
use crate::domain::package_set::PackageSet;
use crate::ports::cgroup::Cgroups;
use crate::ports::egress::EgressGates;
use crate::ports::images::RuntimeImages;
use crate::ports::process::Spawner;
use crate::ports::sandbox::{
    EngineProbe, Installed, Leftover, Preparation, Rested, SandboxEngine, SandboxError, SlotSpec, Transpiled,
};
use crate::ports::volumes::Volumes;

/// How long the end of the process may follow the end of its channel.
const CLOSING_PATIENCE: Duration = Duration::from_secs(1);

/// The sandbox engine of this host. Nothing is touched before the first sandbox or probe is asked for.
pub struct RunscEngine {
    settings: Settings,
    layout: Layout,
    spawner: Arc<dyn Spawner>,
    cgroups: Arc<dyn Cgroups>,
    volumes: Arc<dyn Volumes>,
    images: Arc<dyn RuntimeImages>,
    /// None: nothing gets out of any sandbox.
    gates: Option<Arc<dyn EgressGates>>,
    slots: Slots,
    tools: OnceCell<Tools>,
    warned_of_closed_path: AtomicBool,
    log: Logger,
}

/// Found and laid out at first use, then kept.
struct Tools {
    engine: Engine,
    runners: Runners,
    can_map_ids: bool,
}

impl RunscEngine {
    pub fn new(
        settings: Settings,
        spawner: Arc<dyn Spawner>,
        cgroups: Arc<dyn Cgroups>,
        volumes: Arc<dyn Volumes>,
        images: Arc<dyn RuntimeImages>,
        gates: Option<Arc<dyn EgressGates>>,
        log: Logger,
    ) -> Self {
        Self {
            layout: Layout::new(settings.run_dir.clone()),
            settings,
            spawner,
            cgroups,
            volumes,
            images,
            gates,
            slots: Slots::default(),
            tools: OnceCell::new(),
            warned_of_closed_path: AtomicBool::new(false),
            log,
        }
    }

    /// An error is not kept: what was installed meanwhile is found at the next try.
    async fn tools(&self) -> Result<&Tools, SandboxError> {
        self.tools.get_or_try_init(|| self.find_tools()).await
    }

    async fn find_tools(&self) -> Result<Tools, SandboxError> {
        if let Some(problem) = self.layout.problem() {
            return Err(SandboxError::Off(problem));
        }
        let (choice, runners) = (self.settings.choice.clone(), self.layout.runners());
        let find = move || {
            let engine = tools::find_engine(&choice).map_err(SandboxError::Off)?;
            let runners = runners::lay_out(&runners).map_err(host("laying out the runners"))?;
            let uid_map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
            Ok(Tools { can_map_ids: engine.maps_ids() && tools::can_map_ids(&uid_map), engine, runners })
        };
        tokio::task::spawn_blocking(find).await.map_err(host("looking for the sandbox engine"))?
    }

    fn capture_caps(&self) -> CaptureCaps {
        CaptureCaps { keep: self.settings.output.keep, discard: self.settings.output.discard }
    }
}

/// A failure of this host while `doing` something.
fn host<E: Into<Box<dyn Error + Send + Sync>>>(doing: &'static str) -> impl FnOnce(E) -> SandboxError {
    move |source| SandboxError::Host { doing, source: source.into() }
}

#[async_trait]
impl SandboxEngine for RunscEngine {
    async fn probe(&self) -> EngineProbe {
        self.look_around().await
    }

    async fn create(&self, spec: SlotSpec) -> Result<(), SandboxError> {
        self.boot(spec).await
    }

    async fn prepare(&self, slot: SlotId, preparation: Preparation) -> Result<Duration, SandboxError> {
        self.import(slot, preparation).await
    }

    async fn rest(&self, slot: SlotId) -> Result<Rested, SandboxError> {
        self.lay_to_rest(slot).await
    }

    async fn wake(&self, slot: SlotId) -> Result<(), SandboxError> {
        self.let_stretch(slot).await
    }

    async fn lost(&self, slot: SlotId) -> bool {
        self.ended_by_itself(slot).await
    }

    async fn attach(&self, slot: SlotId, volume: &str) -> Result<(), SandboxError> {
        self.mount_volume(slot, volume).await
    }

    async fn run(
        &self,
        slot: SlotId,
        call: &Call,
        main_module: &str,
        keep: bool,
        following: Following,
    ) -> Result<Evidence, SandboxError> {
        self.execute(slot, call, main_module, keep, following).await
    }

    async fn transpile(
        &self,
        slot: SlotId,
        modules: BTreeMap<String, String>,
        limits: Limits,
    ) -> Result<Transpiled, SandboxError> {
        self.turn_into_javascript(slot, modules, limits).await
    }

    async fn install(&self, slot: SlotId, wanted: PackageSet, limits: Limits) -> Result<Installed, SandboxError> {
        self.install_set(slot, wanted, limits).await
    }

    async fn destroy(&self, slot: SlotId) -> Result<(), SandboxError> {
        self.unmake(slot).await
    }

    async fn leftovers(&self) -> Result<Vec<Leftover>, SandboxError> {
        self.find_leftovers().await
    }
}
