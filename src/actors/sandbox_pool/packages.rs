//! An environment's dependencies: found among those that are kept, else installed once for all set-ups that wait for the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use actix::prelude::*;
use futures_util::future::{BoxFuture, FutureExt, Shared, WeakShared};
use slog::{info, warn};

use super::set_up::host;
use super::{Deps, Making, PendingSetUp, SandboxPool, kind_of};
use crate::domain::environment::{Dependencies, SetUpInvalid};
use crate::domain::execution::Limits;
use crate::domain::failure::FailureKind;
use crate::domain::id::EnvironmentId;
use crate::domain::layout;
use crate::domain::package_set::{KeepSets, PackageSet, Sources};
use crate::domain::pool::{Event, Needs, set_up_slot};
use crate::messages::sandbox_pool::SetUpError;
use crate::ports::packages::HeldSet;
use crate::ports::sandbox::{Installed, Purpose, SlotSpec};
use crate::ports::volumes::VolumeError;
use crate::telemetry::error_chain;

const DOING: &str = "installing the dependencies";

/// How dependencies are installed and kept.
#[derive(Debug, Clone)]
pub struct InstallPolicy {
    pub sources: Sources,
    /// For an install task.
    pub limits: Limits,
    pub keep: KeepSets,
}

type Install = BoxFuture<'static, Result<HeldSet, SetUpError>>;

/// The installs under way, by their sets' identities. Whoever wants the same waits for the same, and shares its failure, too:
/// a registry that hangs is not waited for once more by each.
#[derive(Clone, Default)]
pub(super) struct Installs(Arc<Mutex<HashMap<String, WeakShared<Install>>>>);

impl Installs {
    fn join(&self, identity: String, begin: impl FnOnce() -> Install) -> Shared<Install> {
        let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.retain(|_, install| install.upgrade().is_some());
        if let Some(install) = under_way.get(&identity).and_then(WeakShared::upgrade) {
            return install;
        }
        let install = begin().shared();
        under_way.extend(install.downgrade().map(|weak| (identity, weak)));
        install
    }
}

impl SandboxPool {
    /// What has to be installed for these dependencies.
    ///
    /// # Errors
    /// When one of them is none, or may come from nowhere.
    pub(super) fn sets_of(&self, dependencies: &Dependencies) -> Result<Vec<PackageSet>, SetUpInvalid> {
        let sources = self.deps.installs.as_ref().map(|policy| policy.sources.clone()).unwrap_or_default();
        PackageSet::of(dependencies, &sources)
    }

    /// Looks which of the sets are kept already, and takes the set-up on: one whose dependencies are all kept boots nothing for
    /// them.
    pub(super) fn look_for(
        &mut self,
        id: EnvironmentId,
        sets: Vec<PackageSet>,
        pending: PendingSetUp,
        ctx: &mut Context<Self>,
    ) {
        if sets.is_empty() {
            return self.set_up_came(id, pending, ctx);
        }
        self.spawn(ctx, look(self.deps.clone(), sets), move |pool, found, ctx| {
            let mut pending = pending;
            if let Making::New { wanted, .. } | Making::Revision { wanted, .. } = &mut pending.work {
                *wanted = found;
            }
            pool.set_up_came(id, pending, ctx);
        });
    }

    fn set_up_came(&mut self, id: EnvironmentId, pending: PendingSetUp, ctx: &mut Context<Self>) {
        let (wanted, typescript): (&[Wanted], bool) = match &pending.work {
            Making::New { request, wanted } => {
                (wanted, layout::needs_transpiling(request.runtime, request.modules.keys()))
            }
            // Which runtime it is for is not known yet: at worst a boot that is not needed is waited for.
            Making::Revision { update, wanted } => {
                (wanted, update.modules.keys().any(|name| layout::is_typescript(name)))
            }
            Making::Clone { .. } => (&[], false),
        };
        let installs = wanted.iter().any(|wanted| matches!(wanted, Wanted::Install(_)));
        let needs = match typescript {
            true if wanted.is_empty() && matches!(pending.work, Making::New { .. }) => Needs::Compiler,
            true => Needs::Boot,
            false if installs => Needs::Boot,
            false => Needs::Nothing,
        };
        let tenant = pending.tenant.clone();
        self.set_ups.insert(id, pending);
        self.step(Event::SetUpCame { environment: id, tenant, needs }, ctx);
    }
}

/// A set that an environment needs.
pub(super) enum Wanted {
    Kept(HeldSet),
    Install(PackageSet),
}

/// Looks for each set. One that cannot be looked for is looked for again when its turn comes.
async fn look(deps: Deps, sets: Vec<PackageSet>) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for set in sets {
        wanted.push(find(&deps, &set).await.ok().flatten().map_or(Wanted::Install(set), Wanted::Kept));
    }
    wanted
}

/// The set, whole; it is held until the environment has its files.
pub(super) async fn obtain(
    deps: &Deps,
    installs: &Installs,
    id: EnvironmentId,
    set: PackageSet,
) -> Result<HeldSet, SetUpError> {
    if let Some(held) = find(deps, &set).await? {
        return Ok(held);
    }
    let policy = deps.installs.clone().ok_or(SetUpInvalid::DependenciesNotEnabled)?;
    let deps = deps.clone();
    installs.join(set.identity().join("\n"), move || install(deps, policy, id, set).boxed()).await
}

async fn find(deps: &Deps, set: &PackageSet) -> Result<Option<HeldSet>, SetUpError> {
    let Some(policy) = &deps.installs else { return Ok(None) };
    let found = deps.packages.find(set, policy.keep, deps.clock.wall()).await;
    found.map_err(|error| host("looking for the dependencies", &error, FailureKind::Retryable))
}

async fn install(deps: Deps, policy: InstallPolicy, id: EnvironmentId, set: PackageSet) -> Result<HeldSet, SetUpError> {
    let InstallPolicy { limits, keep, .. } = policy;
    deps.packages.look_for_room(keep, deps.clock.wall()).await.map_err(unkept)?;
    let slot = set_up_slot(id);
    let spec =
        SlotSpec { slot, runtime: set.kind().installer(), purpose: Purpose::Install, memory_mb: limits.memory_mb };
    // Its ranges become versions from now on.
    let resolved_at = deps.clock.wall();
    let answer = async {
        deps.engine.create(spec).await?;
        deps.engine.install(slot, set.clone(), limits).await
    }
    .await;
    if let Err(error) = deps.engine.destroy(slot).await {
        warn!(deps.log, "slot.wedged"; "slot" => %slot, "error" => error_chain(&error));
    }
    let files = match answer {
        Ok(Installed::Files(files)) => files,
        Ok(Installed::Failed(cause)) => {
            return Err(SetUpError::Host { doing: DOING, cause, kind: FailureKind::Permanent });
        }
        Err(error) => return Err(host(DOING, &error, kind_of(&error))),
    };
    let held = deps.packages.keep(&set, files, keep, resolved_at).await.map_err(unkept)?;
    info!(deps.log, "packages.installed"; "environment" => %id, "kind" => set.kind().as_str(), "named" => set.len());
    Ok(held)
}

/// Room is made by somebody, or by time; not by another try.
fn unkept(error: VolumeError) -> SetUpError {
    let kind =
        if matches!(error, VolumeError::NoRoom { .. }) { FailureKind::Permanent } else { FailureKind::Retryable };
    host("keeping the dependencies", &error, kind)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::PathBuf;

    use super::*;

    #[tokio::test]
    async fn who_wants_the_same_at_once_waits_for_the_same_and_later_ones_begin_anew() {
        let installs = Installs::default();
        let begun = Cell::new(0);
        let join = |identity: &str| {
            installs.join(identity.to_owned(), || {
                begun.set(begun.get() + 1);
                let held = HeldSet::new(PathBuf::from(begun.get().to_string()), 0, Arc::default());
                async move {
                    tokio::task::yield_now().await;
                    Ok(held)
                }
                .boxed()
            })
        };
        let (first, second, third) = tokio::join!(join("a"), join("a"), join("b"));
        assert_eq!(begun.get(), 2);
        let [first, second, third] = [first, second, third].map(Result::unwrap);
        assert!(first.tree == second.tree && first.tree != third.tree);
        drop(join("a").await);
        assert_eq!(begun.get(), 3);
    }
}
