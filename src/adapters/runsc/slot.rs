//! One sandbox as the daemon holds it, and the register of all of them.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{OwnedMutexGuard, watch};

use super::dialogue::Dialogue;
use super::host;
use super::line::Line;
use crate::domain::environment::Runtime;
use crate::domain::id::SlotId;
use crate::ports::cgroup::{Cgroup, CgroupUsage};
use crate::ports::process::Process;
use crate::ports::sandbox::SandboxError;

/// A sandbox, from the decision to make it until nothing of it is left.
pub(super) struct Slot {
    pub id: SlotId,
    /// None for a slot of an earlier life, which can only be destroyed.
    pub runtime: Option<Runtime>,
    /// Held while something of the slot is being made or unmade on the host.
    making: Arc<tokio::sync::Mutex<()>>,
    pub cgroup: OnceLock<Arc<dyn Cgroup>>,
    pub process: OnceLock<Box<dyn Process>>,
    /// What stands for its environment's secrets in this sandbox, by the variable's name.
    pub placeholders: OnceLock<BTreeMap<String, String>>,
    /// It has host ids of its own, to which what it is shown must be open.
    pub maps_ids: OnceLock<bool>,
    /// What was in use when the runner was ready.
    pub idle: OnceLock<CgroupUsage>,
    /// There from `ready` until the slot is claimed.
    parked: Mutex<Option<Parked>>,
    /// Told when it is claimed.
    claimed: watch::Sender<bool>,
    /// Held while it is being laid to rest or woken: whoever claims it then waits for that.
    lulling: tokio::sync::Mutex<()>,
    resting: AtomicBool,
    doom: watch::Sender<bool>,
}

/// What a slot that waits for its task is held by.
pub(super) struct Parked {
    pub line: Line,
    pub standing: Standing,
}

/// How far a slot has come before its task.
pub(super) enum Standing {
    /// The runner waits for its first request.
    Ready,
    /// The module is imported; the runner waits for the call. The cgroup holds it to the limits of a call with as much memory.
    /// `known`: what it has used for which its tenant was charged.
    Prepared { dialogue: Dialogue, memory_mb: u64, known: CgroupUsage },
    /// It has served calls, and waits for another; the cgroup likewise. `known`: what it had used by the end of the last.
    Used { memory_mb: u64, known: CgroupUsage },
}

/// The right to make or unmake things of a slot on the host. Move it into blocking work: it must outlive that work,
/// also when whoever waited for it is gone.
pub(super) type Making = OwnedMutexGuard<()>;

impl Slot {
    fn new(id: SlotId, runtime: Option<Runtime>) -> Arc<Self> {
        Arc::new(Self {
            id,
            runtime,
            making: Arc::default(),
            cgroup: OnceLock::new(),
            process: OnceLock::new(),
            placeholders: OnceLock::new(),
            maps_ids: OnceLock::new(),
            idle: OnceLock::new(),
            parked: Mutex::new(None),
            claimed: watch::Sender::new(false),
            lulling: tokio::sync::Mutex::default(),
            resting: AtomicBool::new(false),
            doom: watch::Sender::new(false),
        })
    }

    /// None once the slot is to be destroyed.
    pub(super) async fn begin_making(&self) -> Option<Making> {
        let making = Arc::clone(&self.making).lock_owned().await;
        (!*self.doom.borrow()).then_some(making)
    }

    /// Ends whatever is going on with the slot, then gives the right to unmake it.
    pub(super) async fn begin_unmaking(&self) -> Making {
        self.doom.send_replace(true);
        if let Some(process) = self.process.get() {
            process.kill();
        }
        Arc::clone(&self.making).lock_owned().await
    }

    /// Returns once the slot is to be destroyed.
    pub(super) async fn doomed(&self) {
        // The sender lives as long as the slot: this cannot fail.
        let _ = self.doom.subscribe().wait_for(|doomed| *doomed).await;
    }

    /// # Errors
    /// When there is none: the slot was never started in this life.
    pub(super) fn process(&self) -> Result<&dyn Process, SandboxError> {
        self.process.get().map(AsRef::as_ref).ok_or(SandboxError::Unknown(self.id))
    }

    /// # Errors
    /// As for [`Slot::process`].
    pub(super) fn cgroup(&self) -> Result<&dyn Cgroup, SandboxError> {
        self.cgroup.get().map(AsRef::as_ref).ok_or(SandboxError::Unknown(self.id))
    }

    /// # Errors
    /// As for [`Slot::process`], and when the cgroup cannot be read.
    pub(super) fn usage(&self) -> Result<CgroupUsage, SandboxError> {
        self.cgroup()?.usage().map_err(host("reading the sandbox's usage"))
    }

    pub(super) fn park(&self, parked: Parked) {
        *lock(&self.parked) = Some(parked);
    }

    /// The line to the runner, for whoever comes first.
    pub(super) fn unpark(&self) -> Option<Parked> {
        let parked = lock(&self.parked).take();
        if *self.doom.borrow() { None } else { parked }
    }

    /// As [`Slot::unpark`], for a task that the slot was made for: nobody watches over its rest any more.
    pub(super) async fn claim(&self) -> Option<Parked> {
        self.claimed.send_replace(true);
        let _awake = self.lulling.lock().await;
        self.unpark()
    }

    /// As [`Slot::park`], after a task, for another.
    pub(super) fn keep(&self, parked: Parked) {
        self.park(parked);
        self.claimed.send_replace(false);
    }

    /// The right to freeze it or to let it go on; None once it is claimed.
    pub(super) async fn begin_rest(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let lulling = self.lulling.lock().await;
        (!*self.claimed.borrow()).then_some(lulling)
    }

    /// It was frozen, and stays so until it is claimed or woken.
    pub(super) fn note_resting(&self) {
        self.resting.store(true, Ordering::Release);
    }

    /// Ends its rest, if it rests.
    ///
    /// # Errors
    /// When it cannot be thawed.
    pub(super) fn end_rest(&self) -> Result<(), SandboxError> {
        if self.resting.swap(false, Ordering::AcqRel) {
            self.cgroup()?.thaw().map_err(host("letting the sandbox go on"))?;
        }
        Ok(())
    }

    /// Returns once the slot is claimed.
    pub(super) async fn was_claimed(&self) {
        // The sender lives as long as the slot: this cannot fail.
        let _ = self.claimed.subscribe().wait_for(|claimed| *claimed).await;
    }
}

/// All slots of this life of the daemon that are not gone yet.
#[derive(Default)]
pub(super) struct Slots {
    by_id: Mutex<HashMap<SlotId, Arc<Slot>>>,
}

impl Slots {
    /// Enters a new slot; None when its name is taken.
    pub(super) fn enter(&self, id: SlotId, runtime: Runtime) -> Option<Arc<Slot>> {
        match lock(&self.by_id).entry(id) {
            Entry::Occupied(_) => None,
            Entry::Vacant(place) => Some(Arc::clone(place.insert(Slot::new(id, Some(runtime))))),
        }
    }

    pub(super) fn get(&self, id: SlotId) -> Option<Arc<Slot>> {
        lock(&self.by_id).get(&id).cloned()
    }

    /// The slot, or a place for one of an earlier life: two who destroy it at once meet there.
    pub(super) fn adopt(&self, id: SlotId) -> Arc<Slot> {
        Arc::clone(lock(&self.by_id).entry(id).or_insert_with(|| Slot::new(id, None)))
    }

    /// Strikes out a slot that is gone, unless its name stands for another one already.
    pub(super) fn strike(&self, slot: &Arc<Slot>) {
        let mut by_id = lock(&self.by_id);
        if by_id.get(&slot.id).is_some_and(|entered| Arc::ptr_eq(entered, slot)) {
            by_id.remove(&slot.id);
        }
    }
}

/// No code of ours panics between a lock and its release, so that what is behind it is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
