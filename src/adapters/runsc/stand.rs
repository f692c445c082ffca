//! Sandboxes that are made before they are needed: their module imported, themselves frozen, and an environment mounted
//! in those that were made for none.

use std::time::Duration;

use slog::debug;

use super::create::duty_of;
use super::dialogue::{Settled, Task};
use super::run::{Asked, evidence, failed, is_untouched};
use super::slot::{Parked, Standing};
use super::spec::Duty;
use super::stopwatch::Stopwatch;
use super::tools::is_open_to_all;
use super::watch::watch;
use super::{RunscEngine, host, tree};
use crate::domain::id::SlotId;
use crate::ports::sandbox::{Preparation, Rested, SandboxError};

impl RunscEngine {
    pub(super) async fn import(&self, id: SlotId, preparation: Preparation) -> Result<Duration, SandboxError> {
        let stopwatch = Stopwatch::start();
        let Preparation { main_module, limits } = preparation;
        let slot = self.slots.get(id).ok_or(SandboxError::Unknown(id))?;
        let Parked { mut line, .. } = slot.unpark().ok_or(SandboxError::Unknown(id))?;
        self.restrict(&slot, limits, self.settings.cpu_quota_us)?;
        let (request, mut dialogue) = self.request(Task::Prepare, Asked::Prepare { main: &main_module })?;
        let frame_cap = self.call_frame_cap();
        let work = self.watched(request, false, limits, (frame_cap, frame_cap));
        let before = slot.usage()?;
        let mut seen = watch(&slot, &mut line, work, &mut dialogue, &self.log).await?;
        let known = slot.usage()?;
        let settled = seen.settled.take();
        if settled != Some(Settled::Prepared) {
            return Err(failed(settled, evidence(&slot, &mut line, &seen, &mut dialogue, (before, known), limits)));
        }
        slot.park(Parked { line, standing: Standing::Prepared { dialogue, memory_mb: limits.memory_mb, known } });
        debug!(self.log, "slot.prepared"; "slot" => %id, "ms" => stopwatch.millis());
        Ok(known.cpu.saturating_sub(before.cpu))
    }

    pub(super) async fn lay_to_rest(&self, id: SlotId) -> Result<Rested, SandboxError> {
        let slot = self.slots.get(id).ok_or(SandboxError::Unknown(id))?;
        let _lulling = slot.begin_rest().await.ok_or(SandboxError::Unknown(id))?;
        let cgroup = slot.cgroup()?;
        cgroup.freeze().await.map_err(host("freezing the sandbox"))?;
        slot.note_resting();
        let mut parked = slot.unpark().ok_or(SandboxError::Unknown(id))?;
        let usage = slot.usage()?;
        let mut used = Duration::ZERO;
        let dialogue = match &mut parked.standing {
            Standing::Ready | Standing::Used { .. } => None,
            Standing::Prepared { dialogue, known, .. } => {
                used = usage.cpu.saturating_sub(known.cpu);
                *known = usage;
                Some(dialogue)
            }
        };
        is_untouched(&slot, &mut parked.line, dialogue)?;
        slot.park(parked);
        debug!(self.log, "slot.rests"; "slot" => %id, "memory" => usage.memory_bytes);
        Ok(Rested { memory_bytes: usage.memory_bytes, cpu: used })
    }

    pub(super) async fn let_stretch(&self, id: SlotId) -> Result<(), SandboxError> {
        let slot = self.slots.get(id).ok_or(SandboxError::Unknown(id))?;
        let _lulling = slot.begin_rest().await.ok_or(SandboxError::Unknown(id))?;
        slot.end_rest()
    }

    pub(super) async fn ended_by_itself(&self, id: SlotId) -> bool {
        let Some(slot) = self.slots.get(id) else { return false };
        let Ok(process) = slot.process() else { return false };
        tokio::select! {
            biased;
            () = slot.doomed() => false,
            () = slot.was_claimed() => false,
            _end = process.wait() => true,
        }
    }

    pub(super) async fn mount_volume(&self, id: SlotId, volume: &str) -> Result<(), SandboxError> {
        let slot = self.slots.get(id).ok_or(SandboxError::Unknown(id))?;
        let making = slot.begin_making().await.ok_or(SandboxError::Unknown(id))?;
        let (slot_dir, volume) = (self.layout.slot(id), self.volumes.path(volume));
        let maps_ids = slot.maps_ids.get().is_none_or(|maps| *maps);
        let graft = move || {
            let _making = making;
            let duty = duty_of(&volume)?;
            let Duty::Call { workspace, emitted, remote } = duty else { return Err(SandboxError::Unknown(id)) };
            if maps_ids && !is_open_to_all(&workspace) {
                // The sandbox's ids are set by now, and would find it closed.
                return Err(SandboxError::Spoiled(id));
            }
            tree::graft(&slot_dir, &workspace, emitted.as_deref(), remote.as_deref())
                .map_err(host("mounting the environment"))
        };
        tokio::task::spawn_blocking(graft).await.map_err(host("mounting the environment"))?
    }
}
