//! What changes of an environment after it was made: clones, new modules, its time to live.
//!
//! ```text
//!   UpdateModules ─► (a turn among the set-ups) ─► tree of the new revision, sealed ─► store: switched ─► answer
//!                                                                                        │
//!        old tree ◄── removed when no slot has it any more ◄── retired ◄──────────────────┘
//! ```
//!
//! A volume's name is never used twice. What a kill leaves at any step is a volume that no record names: the Reaper asks
//! for it to be retired, and gets it refused while anything of it is under way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use slog::{info, warn};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::alarms::Alarm;
use super::packages::{Installs, Wanted};
use super::set_up::{Contents, contents, host, lost, refused, undo};
use super::{Deps, Making, PendingSetUp, SandboxPool};
use crate::domain::environment::{Dependencies, Environment, EnvironmentStatus, Metadata, ModulesUpdate};
use crate::domain::failure::FailureKind;
use crate::domain::id::{EnvironmentId, SlotId};
use crate::domain::layout;
use crate::domain::pool::{Event, set_up_slot};
use crate::domain::quota::Work;
use crate::domain::tenant::TenantName;
use crate::messages::sandbox_pool::{CloneEnvironment, Expired, RetireVolume, SetTtl, SetUpError, UpdateModules};
use crate::ports::store::StoreError;
use crate::ports::volumes::VolumeError;
use crate::telemetry::error_chain;

/// How long a volume that is gone is still known to be: a call may have looked its environment up before.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Older revisions that calls of one environment may keep on the disk. Its tenant is charged for the newest alone.
const MOST_OLDER: usize = 4;

type Reply = oneshot::Sender<Result<Environment, SetUpError>>;
type Answer = ResponseFuture<Result<Environment, SetUpError>>;

impl Handler<SetTtl> for SandboxPool {
    type Result = Answer;

    fn handle(&mut self, message: SetTtl, ctx: &mut Self::Context) -> Self::Result {
        let SetTtl { id, tenant, seconds } = message;
        let (store, revisions) = (Arc::clone(&self.deps.store), Arc::clone(&self.deps.revisions));
        let (reply, answer) = oneshot::channel();
        let (tenants, clock) = (Arc::clone(&self.deps.tenants), Arc::clone(&self.deps.clock));
        let failed = |error: StoreError| host("changing the environment", &error, FailureKind::Retryable);
        let work = async move {
            let found = store.environment(id).await.map_err(failed)?;
            if !found.is_some_and(|found| found.is_found_by(&tenant, clock.wall())) {
                return Err(SetUpError::Absent(id));
            }
            // It takes the one writer of the store, as a set-up does.
            tenants.admit(&tenant, Work::SetUp)?;
            if !revisions.set_ttl(id, seconds).await.map_err(failed)? {
                return Err(SetUpError::Absent(id));
            }
            store.environment(id).await.map_err(failed)?.ok_or(SetUpError::Absent(id))
        };
        self.spawn(ctx, work, move |pool, changed, _| {
            pool.trees.forget(id);
            drop(reply.send(changed));
        });
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(lost())) })
    }
}

impl Handler<CloneEnvironment> for SandboxPool {
    type Result = Answer;

    fn handle(&mut self, message: CloneEnvironment, ctx: &mut Self::Context) -> Self::Result {
        let CloneEnvironment { id, tenant, from, ttl_seconds } = message;
        if let Err(exceeded) = self.deps.tenants.admit(&tenant, Work::SetUp) {
            return Box::pin(std::future::ready(Err(exceeded.into())));
        }
        let (reply, answer) = oneshot::channel();
        let pending = PendingSetUp { tenant, work: Making::Clone { from, ttl_seconds }, reply };
        self.look_for(id, Vec::new(), pending, ctx);
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(lost())) })
    }
}

impl Handler<UpdateModules> for SandboxPool {
    type Result = Answer;

    fn handle(&mut self, message: UpdateModules, ctx: &mut Self::Context) -> Self::Result {
        let UpdateModules { id, tenant, update } = message;
        let sets = match self.sets_of(update.dependencies.as_ref().unwrap_or(&Dependencies::default())) {
            Ok(sets) => sets,
            Err(invalid) => return Box::pin(std::future::ready(Err(invalid.into()))),
        };
        let (reply, answer) = oneshot::channel();
        let store = Arc::clone(&self.deps.store);
        // Whose it is comes before whether another change is under way: to others it is not there.
        self.spawn(ctx, async move { store.environment(id).await }, move |pool, found, ctx| {
            let now = pool.deps.clock.wall();
            let refused = match found {
                Err(error) => Some(host("reading the environment", &error, FailureKind::Retryable)),
                Ok(found) if !found.as_ref().is_some_and(|found| found.is_found_by(&tenant, now)) => {
                    Some(SetUpError::Absent(id))
                }
                Ok(_) => pool.deps.tenants.admit(&tenant, Work::SetUp).err().map(SetUpError::from),
            };
            let many = pool.older_in_use(id) >= MOST_OLDER;
            let refused = refused.or_else(|| (many || !pool.updating.insert(id)).then_some(SetUpError::Busy(id)));
            if let Some(refused) = refused {
                return drop(reply.send(Err(refused)));
            }
            let pending = PendingSetUp { tenant, work: Making::Revision { update, wanted: Vec::new() }, reply };
            pool.look_for(id, sets, pending, ctx);
        });
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(lost())) })
    }
}

impl Handler<RetireVolume> for SandboxPool {
    type Result = ResponseFuture<Expired>;

    fn handle(&mut self, message: RetireVolume, _: &mut Self::Context) -> Self::Result {
        let RetireVolume { environment, volume } = message;
        if self.updating.contains(&environment) || self.trees.holds(&volume) {
            return Box::pin(std::future::ready(Expired::InUse));
        }
        let deps = self.deps.clone();
        Box::pin(async move {
            // An update that begins now makes a volume of another name.
            match deps.store.environment(environment).await {
                Ok(Some(found)) if found.volume_name == volume => Expired::InUse,
                Ok(_) => match deps.volumes.remove(&volume).await {
                    Ok(()) => Expired::Deleted,
                    Err(error) => Expired::Failed(error_chain(&error).to_string()),
                },
                Err(error) => Expired::Failed(error_chain(&error).to_string()),
            }
        })
    }
}

impl SandboxPool {
    pub(super) fn begin_clone(
        &mut self,
        id: EnvironmentId,
        (from, tenant): (EnvironmentId, TenantName),
        ttl_seconds: Option<u64>,
        reply: Reply,
        ctx: &mut Context<Self>,
    ) {
        let store = Arc::clone(&self.deps.store);
        self.spawn(ctx, async move { store.environment(from).await }, move |pool, found, ctx| {
            let now = pool.deps.clock.wall();
            let source = match found {
                Ok(found) => found.filter(|found| found.is_found_by(&tenant, now)),
                Err(error) => {
                    let failed = host("reading the environment", &error, FailureKind::Retryable);
                    return pool.end_making(id, Err(failed), reply, ctx);
                }
            };
            let Some(source) = source.map(|source| pool.newest(source)) else {
                return pool.end_making(id, Err(SetUpError::Absent(from)), reply, ctx);
            };
            // Its tree is read: it stays until that is done.
            pool.trees.hold(set_up_slot(id), source.volume_name.clone());
            let work = copy(pool.deps.clone(), id, source, ttl_seconds);
            pool.spawn(ctx, work, move |pool, made, ctx| {
                pool.let_go(set_up_slot(id), ctx);
                pool.end_making(id, made, reply, ctx);
            });
        });
    }

    pub(super) fn begin_update(
        &mut self,
        id: EnvironmentId,
        tenant: TenantName,
        (update, wanted): (ModulesUpdate, Vec<Wanted>),
        reply: Reply,
        ctx: &mut Context<Self>,
    ) {
        let work = revise(self.deps.clone(), self.installs.clone(), (id, tenant), update, wanted);
        self.spawn(ctx, work, move |pool, revised, ctx| {
            let made = revised.map(|(old, next)| {
                pool.retire(old, next.clone(), ctx);
                next
            });
            pool.updating.remove(&id);
            pool.end_making(id, made, reply, ctx);
        });
    }

    fn end_making(
        &mut self,
        id: EnvironmentId,
        made: Result<Environment, SetUpError>,
        reply: Reply,
        ctx: &mut Context<Self>,
    ) {
        match &made {
            Ok(made) => info!(self.deps.log, "environment.ready"; "environment" => %id, "revision" => made.revision),
            Err(error) => warn!(self.deps.log, "environment.failed"; "environment" => %id, "error" => %error),
        }
        drop(reply.send(made));
        self.step(Event::SetUpEnded { environment: id }, ctx);
    }

    /// From now on calls begin with `next`; the volume of the revision before goes when no slot has it.
    fn retire(&mut self, volume: String, next: Environment, ctx: &mut Context<Self>) {
        let environment = next.id;
        self.move_waiting(&next);
        self.retired.insert(volume.clone(), next);
        // What stands ready has the old modules.
        self.step(Event::ModulesChanged { environment }, ctx);
        self.remove_if_unused(volume, ctx);
    }

    /// How many volumes of older revisions slots still have.
    fn older_in_use(&self, id: EnvironmentId) -> usize {
        let of_it = |volume: &&str| self.retired.get(*volume).is_some_and(|next| next.id == id);
        self.trees.volumes().into_iter().filter(of_it).count()
    }

    /// What a call that looked its environment up before it was changed has to begin with.
    pub(super) fn newest(&self, mut environment: Environment) -> Environment {
        while let Some(next) = self.retired.get(&environment.volume_name) {
            environment = Environment { ttl_seconds: environment.ttl_seconds, ..next.clone() };
        }
        environment
    }

    /// The slot is gone, and has no volume any more.
    pub(super) fn let_go(&mut self, slot: SlotId, ctx: &mut Context<Self>) {
        if let Some(volume) = self.trees.release(slot).filter(|volume| self.retired.contains_key(volume)) {
            self.remove_if_unused(volume, ctx);
        }
    }

    fn remove_if_unused(&mut self, volume: String, ctx: &mut Context<Self>) {
        if self.trees.holds(&volume) {
            return;
        }
        let (volumes, name) = (Arc::clone(&self.deps.volumes), volume.clone());
        self.spawn(ctx, async move { volumes.remove(&name).await }, |pool, removed, ctx| {
            if let Err(error) = removed {
                // No record names it: the Reaper will come back to it.
                warn!(pool.deps.log, "revision.left_volume"; "volume" => &volume, "error" => error_chain(&error));
            }
            pool.set_alarm(REMEMBERED, Alarm::Forget { volume }, ctx);
        });
    }
}

async fn copy(
    deps: Deps,
    id: EnvironmentId,
    source: Environment,
    ttl_seconds: Option<u64>,
) -> Result<Environment, SetUpError> {
    let made = Environment {
        id,
        volume_name: id.volume_name(),
        created_at: deps.clock.wall(),
        last_executed_at: None,
        execution_count: 0,
        status: EnvironmentStatus::SettingUp,
        ttl_seconds: ttl_seconds.unwrap_or(source.ttl_seconds),
        revision: 1,
        ..source.clone()
    };
    let quotas = deps.tenants.quotas(&made.tenant);
    let recorded = deps.store.insert_environment(&made, &quotas).await;
    recorded.map_err(|error| refused("recording the environment", error))?;
    let derived = deps.volumes.derive(&made.volume_name, &source.volume_name, &layout::FOLDERS, BTreeMap::new()).await;
    let readied = match derived {
        Ok(bytes) => match deps.store.claim_storage(id, bytes, &quotas).await {
            Ok(()) => match deps.store.set_status(id, EnvironmentStatus::Ready).await {
                Ok(_) => return Ok(Environment { status: EnvironmentStatus::Ready, ..made }),
                Err(error) => host("recording the environment", &error, FailureKind::Retryable),
            },
            Err(error) => refused("recording the volume", error),
        },
        Err(error) => underived(&deps, &source, error).await,
    };
    undo(&deps, id).await;
    Err(readied)
}

/// Makes the next revision and switches to it. The volume of the one before, and the environment as it is now.
async fn revise(
    deps: Deps,
    installs: Installs,
    (id, tenant): (EnvironmentId, TenantName),
    update: ModulesUpdate,
    wanted: Vec<Wanted>,
) -> Result<(String, Environment), SetUpError> {
    let found = deps.store.environment(id).await;
    let found = found.map_err(|error| host("reading the environment", &error, FailureKind::Retryable))?;
    let found = found.filter(|found| found.is_found_by(&tenant, deps.clock.wall()));
    let now = found.ok_or(SetUpError::Absent(id))?;
    let keeps_packages = update.dependencies.is_none() && now.metadata.has_dependencies;
    let request = update.applied_to(&now);
    request.validate()?;
    let as_new = request.environment(id, tenant.clone(), now.created_at);
    let packages = if keeps_packages { now.metadata.dependency_count } else { as_new.metadata.dependency_count };
    let next = Environment {
        volume_name: id.revised_volume_name(Uuid::new_v4()),
        main_module: as_new.main_module,
        metadata: Metadata { dependency_count: packages, has_dependencies: packages > 0, ..as_new.metadata },
        revision: now.revision + 1,
        ..now.clone()
    };
    // They stay where they are until the switch, for TypeScript that imports from them.
    let kept = keeps_packages.then(|| deps.volumes.path(&now.volume_name));
    let contents = contents(&deps, &installs, (id, None), request, wanted, Vec::from_iter(kept)).await?;
    let made = write(&deps, contents, &now, &next, keeps_packages).await;
    let switched = match made {
        Ok(()) => deps.revisions.switch(&next).await,
        Err(error) => {
            forget(&deps, &next.volume_name).await;
            return Err(error);
        }
    };
    match switched {
        Ok(true) => Ok((now.volume_name, next)),
        Ok(false) => {
            forget(&deps, &next.volume_name).await;
            Err(SetUpError::Absent(id))
        }
        // It may have been written all the same: which of the two volumes goes is the Reaper's to find out.
        Err(error) => Err(host("switching to the new revision", &error, FailureKind::Retryable)),
    }
}

/// The new revision's volume, with what it takes on disk charged to its tenant.
async fn write(
    deps: &Deps,
    contents: Contents,
    now: &Environment,
    next: &Environment,
    keeps_packages: bool,
) -> Result<(), SetUpError> {
    let bytes = if keeps_packages {
        let (name, from) = (&next.volume_name, &now.volume_name);
        match deps.volumes.derive(name, from, &layout::INSTALLED, contents.files).await {
            Ok(bytes) => bytes,
            Err(error) => return Err(underived(deps, now, error).await),
        }
    } else {
        let bytes = contents.bytes();
        contents.write(deps, &next.volume_name).await?;
        bytes
    };
    let quotas = deps.tenants.quotas(&now.tenant);
    let claimed = deps.store.claim_storage(now.id, bytes, &quotas).await;
    claimed.map_err(|error| refused("recording the volume", error))
}

/// Why nothing could be made of an environment's tree: it was deleted meanwhile, or this host failed.
async fn underived(deps: &Deps, source: &Environment, error: VolumeError) -> SetUpError {
    // Where its record stands, the tree was lost.
    if matches!(error, VolumeError::Gone(_))
        && let Ok(found) = deps.store.environment(source.id).await
        && !found.is_some_and(|found| found.is_there_for(&source.tenant))
    {
        return SetUpError::Absent(source.id);
    }
    host("writing the volume", &error, FailureKind::Retryable)
}

async fn forget(deps: &Deps, volume: &str) {
    if let Err(error) = deps.volumes.remove(volume).await {
        warn!(deps.log, "revision.left_volume"; "volume" => volume, "error" => error_chain(&error));
    }
}
