//! In-memory doubles of the ports, for the actors' tests: each can be told to fail, to wait, or to hang.

pub mod comfy;
pub mod credentials;
pub mod parent;

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
use crate::domain::package_set::{KeepSets, KeptFacts, KeptSet, PackageSet};
use crate::domain::quota::{Exceeded, Ledger, Quotas, Rate, Work};
use crate::domain::tenant::{Caller, TenantName};
use crate::domain::time::{Moment, WallTime};
use crate::ports::packages::{HeldSet, Packages};
use crate::ports::revisions::Revisions;
use crate::ports::sandbox::{
    EngineProbe, Installed, Leftover, Preparation, Purpose, Rested, SandboxEngine, SandboxError, SlotSpec, Transpiled,
};
use crate::ports::store::{Store, StoreError};
use crate::ports::tenants::{Pass, Tenants, TenantsPicture};
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
        cpu: Duration::from_millis(3),
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
    /// How many of the next runs find their sandbox spoiled.
    pub spoiled: Mutex<usize>,
    /// How many of the next do not let themselves be laid to rest.
    pub restless: Mutex<usize>,
    /// How often one was laid to rest.
    pub rested: Mutex<usize>,
    /// How often one was woken from its rest.
    pub woken: Mutex<usize>,
    /// Ends one that stands.
    pub lose: Notify,
    /// When set, a run waits for `release`.
    pub held: Mutex<bool>,
    pub release: Notify,
    /// Told at the beginning of each run.
    pub running: Notify,
    /// When set, a held run ends without evidence when its sandbox is destroyed, as the real one does.
    pub lost_when_destroyed: Mutex<bool>,
    destroyed: Notify,
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
        if let Purpose::Execute { volume, .. } | Purpose::StandForEnvironment { volume, .. } = spec.purpose {
            locked(&self.mounted).push(volume);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        if Self::spend(&self.failing_boots) { Err(SandboxError::NotReady(Duration::from_secs(1))) } else { Ok(()) }
    }

    async fn prepare(&self, _: SlotId, preparation: Preparation) -> Result<Duration, SandboxError> {
        if preparation.main_module.contains("unprepared") {
            Err(SandboxError::TaskFailed("no_handler"))
        } else {
            Ok(Duration::from_millis(1))
        }
    }

    async fn rest(&self, slot: SlotId) -> Result<Rested, SandboxError> {
        if Self::spend(&self.restless) {
            return Err(SandboxError::Spoiled(slot));
        }
        *locked(&self.rested) += 1;
        Ok(Rested { memory_bytes: 80 << 20, cpu: Duration::from_millis(1) })
    }

    async fn wake(&self, _: SlotId) -> Result<(), SandboxError> {
        *locked(&self.woken) += 1;
        Ok(())
    }

    async fn lost(&self, _: SlotId) -> bool {
        self.lose.notified().await;
        true
    }

    async fn attach(&self, _: SlotId, volume: &str) -> Result<(), SandboxError> {
        locked(&self.mounted).push(volume.to_owned());
        Ok(())
    }

    async fn run(&self, slot: SlotId, _: &Call, _: &str, _: bool, _: Following) -> Result<Evidence, SandboxError> {
        if Self::spend(&self.spoiled) {
            return Err(SandboxError::Spoiled(slot));
        }
        self.running.notify_one();
        if *locked(&self.held) {
            tokio::select! {
                () = self.release.notified() => {}
                () = self.destroyed.notified() => return Err(SandboxError::Unknown(slot)),
            }
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

    async fn install(&self, _: SlotId, wanted: PackageSet, _: Limits) -> Result<Installed, SandboxError> {
        if wanted.identity().iter().any(|line| line.starts_with("absent@")) {
            return Ok(Installed::Failed("there is no such package".into()));
        }
        Ok(Installed::Files([(wanted.kind().record(), b"1".to_vec())].into()))
    }

    async fn destroy(&self, slot: SlotId) -> Result<(), SandboxError> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if Self::spend(&self.failing_destructions) {
            return Err(SandboxError::TaskFailed("a process that survives"));
        }
        if *locked(&self.lost_when_destroyed) {
            self.destroyed.notify_one();
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

    async fn make_with(
        &self,
        name: &str,
        files: BTreeMap<String, Vec<u8>>,
        _: Vec<PathBuf>,
    ) -> Result<(), VolumeError> {
        self.make(name, files).await
    }

    async fn derive(
        &self,
        name: &str,
        from: &str,
        _: &[&'static str],
        _: BTreeMap<String, Vec<u8>>,
    ) -> Result<u64, VolumeError> {
        // Long enough that the other may go meanwhile.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut names = locked(&self.names);
        if !names.contains(from) {
            return Err(VolumeError::Gone(from.to_owned()));
        }
        names.insert(name.to_owned());
        Ok(0)
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

/// Sets of packages that are names only.
#[derive(Default)]
pub struct PackagesDouble {
    /// Identities, with when they were resolved.
    pub kept: Mutex<BTreeMap<String, WallTime>>,
    /// What environments use of the room for all of them.
    pub used: Mutex<u64>,
}

#[async_trait]
impl Packages for PackagesDouble {
    async fn find(&self, wanted: &PackageSet, keep: KeepSets, now: WallTime) -> Result<Option<HeldSet>, VolumeError> {
        let kept = locked(&self.kept).get(&wanted.identity().join(" ")).copied();
        Ok(kept.filter(|at| keep.is_fresh(*at, now)).map(|_| HeldSet::new(PathBuf::new(), 0, Arc::default())))
    }

    async fn look_for_room(&self, keep: KeepSets, _: WallTime) -> Result<(), VolumeError> {
        let used = *locked(&self.used);
        if used < keep.bytes { Ok(()) } else { Err(VolumeError::NoRoom { used, most: keep.bytes }) }
    }

    async fn keep(
        &self,
        wanted: &PackageSet,
        _: BTreeMap<String, Vec<u8>>,
        _: KeepSets,
        now: WallTime,
    ) -> Result<HeldSet, VolumeError> {
        locked(&self.kept).insert(wanted.identity().join(" "), now);
        Ok(HeldSet::new(PathBuf::new(), 0, Arc::default()))
    }

    async fn list(&self) -> Result<Vec<KeptSet>, VolumeError> {
        let facts = |at: &WallTime| Some(KeptFacts { resolved_at: *at, used_at: *at, users: 0 });
        Ok(locked(&self.kept).iter().map(|(name, at)| KeptSet { name: name.clone(), facts: facts(at) }).collect())
    }

    async fn remove(&self, name: &str) -> Result<bool, VolumeError> {
        Ok(locked(&self.kept).remove(name).is_some())
    }
}

/// A store in memory that can be down.
#[derive(Default)]
pub struct StoreDouble {
    pub rows: Mutex<BTreeMap<EnvironmentId, Environment>>,
    pub calls: Mutex<Vec<ExecutionRecord>>,
    pub bytes: Mutex<BTreeMap<EnvironmentId, u64>>,
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
    async fn insert_environment(&self, environment: &Environment, quotas: &Quotas) -> Result<(), StoreError> {
        self.answer()?;
        let mut rows = locked(&self.rows);
        quotas.admit_environment(rows.values().filter(|row| row.tenant == environment.tenant).count() as u64)?;
        rows.insert(environment.id, environment.clone());
        Ok(())
    }

    async fn claim_storage(&self, id: EnvironmentId, bytes: u64, quotas: &Quotas) -> Result<(), StoreError> {
        self.answer()?;
        quotas.admit_bytes(0, bytes)?;
        locked(&self.bytes).insert(id, bytes);
        Ok(())
    }

    async fn try_write(&self) -> Result<(), StoreError> {
        self.answer()
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

    async fn environments_of(&self, tenant: &TenantName) -> Result<Vec<Environment>, StoreError> {
        self.answer()?;
        Ok(locked(&self.rows).values().filter(|row| row.tenant == *tenant).cloned().collect())
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

/// Tenants who all have the same quotas; without any, everything is allowed.
#[derive(Default)]
pub struct TenantsDouble {
    pub quotas: Mutex<Quotas>,
    ledger: Arc<Mutex<Ledger>>,
    pub charged: Mutex<Vec<(TenantName, Duration)>>,
    /// How often what was charged was to be written.
    pub writes: Mutex<usize>,
}

struct Place(Arc<Mutex<Ledger>>, TenantName);

impl Drop for Place {
    fn drop(&mut self) {
        locked(&self.0).leave(&self.1);
    }
}

#[async_trait]
impl Tenants for TenantsDouble {
    fn caller(&self, _: &str) -> Option<Caller> {
        None
    }

    fn quotas(&self, _: &TenantName) -> Quotas {
        *locked(&self.quotas)
    }

    fn admit(&self, tenant: &TenantName, work: Work) -> Result<Pass, Exceeded> {
        let quotas = *locked(&self.quotas);
        locked(&self.ledger).admit(tenant, work, &quotas, Moment(0), WallTime(0))?;
        Ok(Pass::new(matches!(work, Work::Call).then(|| Place(Arc::clone(&self.ledger), tenant.clone()))))
    }

    fn admit_by(&self, _: &TenantName, environment: EnvironmentId, rate: Rate) -> Result<(), Exceeded> {
        locked(&self.ledger).admit_by(environment, rate, Moment(0))
    }

    fn charge(&self, tenant: &TenantName, cpu: Duration) {
        locked(&self.charged).push((tenant.clone(), cpu));
    }

    async fn write_charges(&self) -> Result<(), StoreError> {
        *locked(&self.writes) += 1;
        Ok(())
    }

    fn picture(&self) -> TenantsPicture {
        TenantsPicture::default()
    }
}

/// All of them together, as the actors share them.
#[derive(Clone, Default)]
pub struct World {
    pub engine: Arc<EngineDouble>,
    pub packages: Arc<PackagesDouble>,
    pub volumes: Arc<VolumesDouble>,
    pub store: Arc<StoreDouble>,
    pub credentials: Arc<credentials::CredentialsDouble>,
    pub tenants: Arc<TenantsDouble>,
}
