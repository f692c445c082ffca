//! Unmaking a slot: killed, seen empty, its directory removed. Idempotent, and resumable at every step.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use slog::debug;
use tokio::time::timeout;

use super::flags::{Kind, delete};
use super::layout::state_in;
use super::slot::Making;
use super::stopwatch::Stopwatch;
use super::{Choice, RunscEngine, host, tree};
use crate::domain::id::SlotId;
use crate::ports::sandbox::SandboxError;

/// How long processes may take to die of SIGKILL.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// How long the end of a killed engine may take to be told, once its cgroup is empty.
const REAP_PATIENCE: Duration = Duration::from_secs(2);
const DELETE_DEADLINE: Duration = Duration::from_secs(10);

impl RunscEngine {
    pub(super) async fn unmake(&self, id: SlotId) -> Result<(), SandboxError> {
        let stopwatch = Stopwatch::start();
        let slot = self.slots.adopt(id);
        let unmaking = slot.begin_unmaking().await;
        // A spawn that was under way has come to its end by now.
        if let Some(process) = slot.process.get() {
            process.kill();
        }
        let cgroup = slot.cgroup.get().cloned().unwrap_or_else(|| self.cgroups.open(&id.to_string()));
        cgroup.kill_and_remove(KILL_PATIENCE).await.map_err(host("ending the sandbox's processes"))?;
        if let Some(process) = slot.process.get() {
            // It is dead: its cgroup is empty. This only lets its zombie be collected.
            let _ = timeout(REAP_PATIENCE, process.wait()).await;
        }
        let slot_dir = self.layout.slot(id);
        self.delete_by_runc(&slot_dir).await?;
        if let Some(gates) = &self.gates {
            gates.close(id).map_err(host("closing the sandbox's way out"))?;
        }
        remove(slot_dir, unmaking).await?;
        self.slots.strike(&slot);
        debug!(self.log, "slot.destroyed"; "slot" => %id, "ms" => stopwatch.millis());
        Ok(())
    }

    /// runc alone leaves cgroups outside of the slot's; the others' state is only files once no process is left.
    async fn delete_by_runc(&self, slot_dir: &Path) -> Result<(), SandboxError> {
        if self.settings.choice != Choice::PlainContainer || !state_in(slot_dir).exists() {
            return Ok(());
        }
        let tools = self.tools().await?;
        if tools.engine.kind != Kind::Runc {
            return Ok(());
        }
        let finished = self.command(&tools.engine, delete(slot_dir), DELETE_DEADLINE).await;
        finished.map(drop).map_err(host("removing the container's cgroups"))
    }
}

/// Takes off what is mounted below and removes bundle and runtime state. No link is followed.
async fn remove(slot_dir: PathBuf, unmaking: Making) -> Result<(), SandboxError> {
    let remove = move || {
        let _unmaking = unmaking;
        tree::fell(&slot_dir)?;
        match fs::remove_dir_all(slot_dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    };
    let removed = tokio::task::spawn_blocking(remove).await.map_err(host("removing the sandbox's bundle"))?;
    removed.map_err(host("removing the sandbox's bundle"))
}
