//! In-memory doubles of the ports, for the actors' tests: each can be told to fail, to wait, or to hang.

pub mod comfy;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::domain::environment::{Environment, EnvironmentStatus};
use crate::domain::execution::{
    Call, Captured, End, Evidence, ExecutionRecord, Following, Limits, Phase, ProcessEnd, Settlement,
};
use crate::domain::id::{EnvironmentId, SlotId};
use crate::domain::time::WallTime;
use crate::ports::revisions::Revisions;
use crate::ports::sandbox::{
    EngineProbe, Installed, Leftover, Purpose, SandboxEngine, SandboxError, SlotSpec, Transpiled,
};
use crate::ports::store::{Store, StoreError};
use crate::ports::volumes::{VolumeError, Volumes};

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Evidence of a call that returned `null` and did nothing else.
pub fn plain_evidence() -> Evidence {
    Evidence {
        end: End::Settled,
        settlement: Some(Settlement::Result("null".into())),
        phase: Phase::Handler,
        process: ProcessEnd::Running,
        oom_kills: 0,
        pids_refused: 0,
        peak_memory_bytes: 0,
        memory_limit_bytes: 1,
        cpu: Duration::ZERO,
        handler_time: Duration::from_millis(1),
        stdout: Captured::default(),
        stderr: Captured::default(),
        logs: Vec::new(),
        files: Vec::new(),
    }
}

/// Sandboxes that exist only as entries.
#[derive(Default)]
pub struct EngineDouble {
    pub live: Mutex<BTreeSet<SlotId>>,
    pub created: Mutex<Vec<SlotId>>,
    /// The volumes of the sandboxes for calls, in the order in which those were made.
    pub mounted: Mutex<Vec<String>>,
    /// How many of the next boots fail.
    pub failing_boots: Mutex<usize>,
    /// How many of the next destructions fail.
    pub failing_destructions: Mutex<usize>,
    /// When set, a run waits for `release`.
    pub held: Mutex<bool>,
    pub release: Notify,
    /// Told at the beginning of each run.
    pub running: Notify,
}

impl EngineDouble {
    pub fn live(&self) -> usize {
        locked(&self.live).len()
    }

    fn spend(counter: &Mutex<usize>) -> bool {
        let mut left = locked(counter);
        let fails = *left > 0;
        *left = left.saturating_sub(1);
        fails
    }
}

#[async_trait]
impl SandboxEngine for EngineDouble {
    async fn probe(&self) -> EngineProbe {
        EngineProbe {
            engine: "double".into(),
            engine_version: "1".into(),
            isolated: true,
            cgroup: "none".into(),
            runtimes: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    async fn create(&self, spec: SlotSpec) -> Result<(), SandboxError> {
        locked(&self.live).insert(spec.slot);
        locked(&self.created).push(spec.slot);
        if let Purpose::Execute { volume, .. } = spec.purpose {
            locked(&self.mounted).push(volume);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        if Self::spend(&self.failing_boots) { Err(SandboxError::NotReady(Duration::from_secs(1))) } else { Ok(()) }
    }

    async fn run(&self, _: SlotId, _: Call, _: String, _: Following) -> Result<Evidence, SandboxError> {
        self.running.notify_one();
        if *locked(&self.held) {
            self.release.notified().await;
        }
        Ok(plain_evidence())
    }

    async fn transpile(
        &self,
        _: SlotId,
        modules: BTreeMap<String, String>,
        _: Limits,
    ) -> Result<Transpiled, SandboxError> {
        Ok(Transpiled::Modules(modules))
    }

    async fn install(
        &self,
        _: SlotId,
        packages: BTreeMap<String, String>,
        _: Limits,
    ) -> Result<Installed, SandboxError> {
        if packages.contains_key("absent") {
            return Ok(Installed::Failed("there is no such package".into()));
        }
        let file = |name: String| (format!("node_modules/{name}/index.js"), b"1".to_vec());
        Ok(Installed::Files(packages.into_keys().map(file).collect()))
    }

    async fn destroy(&self, slot: SlotId) -> Result<(), SandboxError> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if Self::spend(&self.failing_destructions) {
            return Err(SandboxError::TaskFailed("a process that survives"));
        }
        locked(&self.live).remove(&slot);
        Ok(())
    }

    async fn leftovers(&self) -> Result<Vec<Leftover>, SandboxError> {
        let live = locked(&self.live);
        Ok(live.iter().map(|slot| Leftover { slot: *slot, kind: "cgroup" }).collect())
    }
}

/// Volumes that are names only.
#[derive(Default)]
pub struct VolumesDouble {
    pub names: Mutex<BTreeSet<String>>,
}

#[async_trait]
impl Volumes for VolumesDouble {
    async fn make(&self, name: &str, _: BTreeMap<String, Vec<u8>>) -> Result<(), VolumeError> {
        locked(&self.names).insert(name.to_owned());
        Ok(())
    }

    async fn derive(
        &self,
        name: &str,
        from: &str,
        _: &[&'static str],
        _: BTreeMap<String, Vec<u8>>,
    ) -> Result<(), VolumeError> {
        let mut names = locked(&self.names);
        if !names.contains(from) {
            return Err(VolumeError::Interrupted);
        }
        names.insert(name.to_owned());
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), VolumeError> {
        locked(&self.names).remove(name);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<String>, VolumeError> {
        Ok(locked(&self.names).iter().cloned().collect())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(name)
    }
}

/// A store in memory that can be down.
#[derive(Default)]
pub struct StoreDouble {
    pub rows: Mutex<BTreeMap<EnvironmentId, Environment>>,
    pub calls: Mutex<Vec<ExecutionRecord>>,
    pub down: Mutex<bool>,
}

impl StoreDouble {
    fn answer(&self) -> Result<(), StoreError> {
        if !*locked(&self.down) {
            return Ok(());
        }
        Err(StoreError::Query { action: "answer", source: "it is down".into() })
    }
}

#[async_trait]
impl Store for StoreDouble {
    async fn insert_environment(&self, environment: &Environment) -> Result<(), StoreError> {
        self.answer()?;
        locked(&self.rows).insert(environment.id, environment.clone());
        Ok(())
    }

    async fn set_status(&self, id: EnvironmentId, status: EnvironmentStatus) -> Result<bool, StoreError> {
        self.answer()?;
        Ok(locked(&self.rows).get_mut(&id).map(|row| row.status = status).is_some())
    }

    async fn environment(&self, id: EnvironmentId) -> Result<Option<Environment>, StoreError> {
        self.answer()?;
        Ok(locked(&self.rows).get(&id).cloned())
    }

    async fn environments(&self) -> Result<Vec<Environment>, StoreError> {
        self.answer()?;
        Ok(locked(&self.rows).values().cloned().collect())
    }

    async fn delete_environment(&self, id: EnvironmentId) -> Result<bool, StoreError> {
        self.answer()?;
        Ok(locked(&self.rows).remove(&id).is_some())
    }

    async fn begin_execution(&self, record: &ExecutionRecord) -> Result<(), StoreError> {
        self.answer()?;
        locked(&self.calls).push(record.clone());
        Ok(())
    }

    async fn finish_execution(&self, record: &ExecutionRecord) -> Result<(), StoreError> {
        // Long enough that whoever does not wait for it is found out.
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.answer()?;
        if let Some(row) = locked(&self.calls).iter_mut().find(|row| row.id == record.id) {
            *row = record.clone();
        }
        Ok(())
    }

    async fn close_unfinished(&self, _: WallTime) -> Result<u64, StoreError> {
        self.answer().map(|()| 0)
    }

    async fn executions(&self, _: EnvironmentId, _: u32) -> Result<Vec<ExecutionRecord>, StoreError> {
        Ok(locked(&self.calls).clone())
    }

    async fn forget_executions(&self, before: WallTime) -> Result<u64, StoreError> {
        self.answer()?;
        let mut calls = locked(&self.calls);
        let many = calls.len();
        calls.retain(|row| row.completed_at.is_none_or(|completed| completed >= before));
        Ok(u64::try_from(many - calls.len()).unwrap_or(0))
    }
}

#[async_trait]
impl Revisions for StoreDouble {
    async fn set_ttl(&self, id: EnvironmentId, seconds: u64) -> Result<bool, StoreError> {
        self.answer()?;
        Ok(locked(&self.rows).get_mut(&id).map(|row| row.ttl_seconds = seconds).is_some())
    }

    async fn switch(&self, next: &Environment) -> Result<bool, StoreError> {
        self.answer()?;
        let mut rows = locked(&self.rows);
        let Some(row) = rows.get_mut(&next.id).filter(|row| row.status == EnvironmentStatus::Ready) else {
            return Ok(false);
        };
        *row = next.clone();
        Ok(true)
    }
}

/// The three together, as the actors share them.
#[derive(Clone, Default)]
pub struct World {
    pub engine: Arc<EngineDouble>,
    pub volumes: Arc<VolumesDouble>,
    pub store: Arc<StoreDouble>,
}
