//! The real ComfyUI (`ports::comfy`): a process of its own in a RAM directory of its own, spoken to on loopback.
//!
//! ```text
//!   start ─ room (tmpfs) ─ cgroup ─ process ─ printed (its output, in RAM)
//!   ready ─ GET /system_stats until it answers, and the WebSocket opened ahead
//!   run   ─ inputs into the room ─ POST /prompt ┬ WebSocket: progress, outputs, end ┐
//!                                               ├ history, where the socket is silent├─ files out of the room
//!                                               └ the process's end                  ┘
//!   clean ─ the room swept, the history deleted
//!   stop  ─ TERM, grace, KILL of the cgroup, the room removed
//! ```
//!
//! Invariants: a port and a room belong to one instance; nothing of a prompt is logged or written outside the room; a
//! run ends with the prompt's end, with its refusal, or with the process's.

mod collect;
mod command;
mod failure;
mod follow;
mod history;
mod http;
mod instance;
mod kind;
mod message;
mod printed;
mod prompt;
mod room;
mod seen;
mod socket;
mod start;
mod stop;
mod stopwatch;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use slog::Logger;

pub use self::command::INHERITED;
use crate::domain::instance::InstanceSpec;
use crate::ports::cgroup::Cgroups;
use crate::ports::comfy::{ComfyEngine as Port, ComfyError, ComfyUi};
use crate::ports::process::Spawner;

/// How ComfyUI is run on this host.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The checkout, with `main.py` in it. None: there is no ComfyUI here.
    pub dir: Option<PathBuf>,
    /// The interpreter. None: `python3` on PATH.
    pub python: Option<PathBuf>,
    /// Appended to ours.
    pub args: Vec<String>,
    /// What ComfyUI gets of the daemon's environment: see [`INHERITED`].
    pub environment: Vec<(OsString, OsString)>,
    /// The daemon's instance: rooms and processes carry it, so that two daemons of a host do not take one another's.
    pub mark: String,
    /// Where models lie, beside the checkout's own folder.
    pub model_dir: Option<PathBuf>,
    /// What ComfyUI prints is dropped, for it quotes prompts. False: it is logged.
    pub silent: bool,
    /// How long a start may take, from its spawn to its first answer.
    pub start_deadline: Duration,
    /// A directory on a tmpfs, such as `/dev/shm`.
    pub ram_dir: PathBuf,
    /// The size of one instance's RAM directory, in MiB.
    pub ram_mib: u64,
    /// The limit on one instance's memory, its RAM directory included, in MiB.
    pub memory_mib: Option<u64>,
    /// Bytes of all outputs of one job.
    pub output_bytes: u64,
    /// Node results stay in memory until the next job, and with them the models (ADR 10). False: `--cache-none`.
    pub keep_models: bool,
}

/// Starts instances on this host.
pub struct ComfyEngine {
    shared: Arc<Shared>,
}

/// What all instances of an engine share.
struct Shared {
    settings: Settings,
    spawner: Arc<dyn Spawner>,
    cgroups: Option<Arc<dyn Cgroups>>,
    ports: Arc<Mutex<BTreeSet<u16>>>,
    log: Logger,
}

/// A port that no other instance of this engine may take. Given back when it is dropped.
struct PortClaim {
    ports: Arc<Mutex<BTreeSet<u16>>>,
    port: u16,
}

impl PortClaim {
    /// None when another instance has it.
    fn take(ports: &Arc<Mutex<BTreeSet<u16>>>, port: u16) -> Option<Self> {
        let fresh = ports.lock().unwrap_or_else(PoisonError::into_inner).insert(port);
        fresh.then(|| Self { ports: ports.clone(), port })
    }
}

impl Drop for PortClaim {
    fn drop(&mut self) {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.port);
    }
}

impl ComfyEngine {
    /// An engine for this host. Without `cgroups` its processes are held together by their group and by a mark in their
    /// environment, and no limit of memory is in force.
    pub fn new(settings: Settings, spawner: Arc<dyn Spawner>, cgroups: Option<Arc<dyn Cgroups>>, log: Logger) -> Self {
        let shared = Shared { settings, spawner, cgroups, ports: Arc::default(), log };
        Self { shared: Arc::new(shared) }
    }

    /// Ends what a life that was killed left of instances that are none of `ours`: their files are jobs'. What cannot be
    /// ended is logged.
    pub async fn end_others(&self, ours: &[InstanceSpec]) {
        stop::sweep_others(&self.shared, ours).await;
    }
}

#[async_trait]
impl Port for ComfyEngine {
    async fn start(&self, instance: &InstanceSpec) -> Result<Arc<dyn ComfyUi>, ComfyError> {
        Ok(Arc::new(start::start(&self.shared, instance).await?))
    }

    async fn sweep(&self, instance: &InstanceSpec) -> Result<(), ComfyError> {
        stop::sweep(&self.shared, instance).await
    }
}

/// A failure of the host while `doing`.
fn host<E: Into<Box<dyn std::error::Error + Send + Sync>>>(doing: &'static str) -> impl FnOnce(E) -> ComfyError {
    move |source| ComfyError::Host { doing, source: source.into() }
}

/// File work, beside the actor's thread.
async fn beside<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, ComfyError> {
    tokio::task::spawn_blocking(work).await.map_err(host(doing))?.map_err(host(doing))
}
