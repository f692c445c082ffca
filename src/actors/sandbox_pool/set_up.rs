//! Set-ups: recorded, transpiled in a sandbox, given their packages, written, sealed, made ready. Whatever fails is undone.

use std::collections::BTreeMap;
use std::path::PathBuf;

use actix::prelude::*;
use slog::{info, warn};
use tokio::sync::oneshot;

use super::packages::{Installs, Wanted, obtain};
use super::{Deps, Making, PendingSetUp, SandboxPool, kind_of};
use crate::domain::environment::{Environment, EnvironmentStatus, SetUpInvalid, SetUpRequest};
use crate::domain::failure::FailureKind;
use crate::domain::id::{EnvironmentId, SlotId};
use crate::domain::layout;
use crate::domain::pool::{Event, set_up_slot};
use crate::domain::quota::{Quotas, Work, bytes_on_disk};
use crate::domain::tenant::TenantName;
use crate::messages::sandbox_pool::{SetUp, SetUpError};
use crate::ports::packages::HeldSet;
use crate::ports::sandbox::{Purpose, SandboxError, SlotSpec, Transpiled};
use crate::ports::store::StoreError;
use crate::telemetry::error_chain;

impl Handler<SetUp> for SandboxPool {
    type Result = ResponseFuture<Result<Environment, SetUpError>>;

    fn handle(&mut self, message: SetUp, ctx: &mut Self::Context) -> Self::Result {
        let SetUp { id, tenant, request } = message;
        if let Err(invalid) = request.validate() {
            return Box::pin(std::future::ready(Err(invalid.into())));
        }
        if let Err(invalid) = self.know_secrets(&tenant, &request) {
            return Box::pin(std::future::ready(Err(invalid.into())));
        }
        let sets = match self.sets_of(&request.dependencies) {
            Ok(sets) => sets,
            Err(invalid) => return Box::pin(std::future::ready(Err(invalid.into()))),
        };
        if let Err(exceeded) = self.deps.tenants.admit(&tenant, Work::SetUp) {
            return Box::pin(std::future::ready(Err(exceeded.into())));
        }
        let (reply, answer) = oneshot::channel();
        let pending =
            PendingSetUp { tenant, work: Making::New { request: Box::new(request), wanted: Vec::new() }, reply };
        self.look_for(id, sets, pending, ctx);
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(lost())) })
    }
}

impl SandboxPool {
    /// Whether every secret that is named is there now. It may be changed and removed later. Secrets are the operator's: to other
    /// tenants there are none.
    fn know_secrets(&self, tenant: &TenantName, request: &SetUpRequest) -> Result<(), SetUpInvalid> {
        if request.secrets.is_empty() {
            return Ok(());
        }
        let credentials = self.deps.credentials.as_ref().ok_or(SetUpInvalid::SecretsOff)?;
        let is_theirs = *tenant == TenantName::operator();
        match request.secrets.iter().find(|name| !is_theirs || credentials.hosts(name).is_none()) {
            Some(unknown) => Err(SetUpInvalid::UnknownSecret(unknown.clone())),
            None => Ok(()),
        }
    }

    pub(super) fn begin_set_up(&mut self, id: EnvironmentId, compiler: Option<SlotId>, ctx: &mut Context<Self>) {
        let Some(PendingSetUp { tenant, work, reply }) = self.set_ups.remove(&id) else { return };
        let (request, wanted) = match work {
            Making::New { request, wanted } => (*request, wanted),
            Making::Clone { from, ttl_seconds } => {
                return self.begin_clone(id, (from, tenant), ttl_seconds, reply, ctx);
            }
            Making::Revision { update, wanted } => return self.begin_update(id, tenant, (update, wanted), reply, ctx),
        };
        let work = set_up(self.deps.clone(), self.installs.clone(), (id, compiler), tenant.clone(), request, wanted);
        self.spawn(ctx, work, move |pool, made, ctx| {
            match &made {
                Ok(environment) => info!(pool.deps.log, "environment.ready"; "environment" => %id,
                    "tenant" => tenant.as_str(), "runtime" => environment.runtime.as_str(), "modules" => environment.metadata.module_count),
                Err(SetUpError::Exceeded(exceeded)) => info!(pool.deps.log, "quota.refused";
                    "tenant" => tenant.as_str(), "quota" => exceeded.quota.as_str(),
                    "limit" => exceeded.limit, "used" => exceeded.used),
                Err(error) => warn!(pool.deps.log, "environment.failed"; "environment" => %id,
                    "tenant" => tenant.as_str(), "error" => %error),
            }
            drop(reply.send(made));
            pool.step(Event::SetUpEnded { environment: id }, ctx);
        });
    }
}

async fn set_up(
    deps: Deps,
    installs: Installs,
    (id, compiler): (EnvironmentId, Option<SlotId>),
    tenant: TenantName,
    request: SetUpRequest,
    wanted: Vec<Wanted>,
) -> Result<Environment, SetUpError> {
    let quotas = deps.tenants.quotas(&tenant);
    let environment = request.environment(id, tenant, deps.clock.wall());
    let recorded = deps.store.insert_environment(&environment, &quotas).await;
    recorded.map_err(|error| refused("recording the environment", error))?;
    match build(&deps, &installs, (id, compiler), request, wanted, &quotas).await {
        Ok(()) => Ok(Environment { status: EnvironmentStatus::Ready, ..environment }),
        Err(error) => {
            undo(&deps, id).await;
            Err(error)
        }
    }
}

async fn build(
    deps: &Deps,
    installs: &Installs,
    (id, compiler): (EnvironmentId, Option<SlotId>),
    request: SetUpRequest,
    wanted: Vec<Wanted>,
    quotas: &Quotas,
) -> Result<(), SetUpError> {
    let contents = contents(deps, installs, (id, compiler), request, wanted, Vec::new()).await?;
    if let Err(error) = deps.store.claim_storage(id, contents.bytes(), quotas).await {
        contents.let_go(deps).await;
        return Err(refused("recording the volume", error));
    }
    contents.write(deps, &id.volume_name()).await?;
    let readied = deps.store.set_status(id, EnvironmentStatus::Ready).await;
    readied.map(drop).map_err(|error| host("recording the environment", &error, FailureKind::Retryable))
}

/// What a volume is made of.
pub(super) struct Contents {
    pub files: BTreeMap<String, Vec<u8>>,
    /// The sets that it shares, held until it has their files.
    held: Vec<HeldSet>,
    /// The names of those that were installed for it.
    installed: Vec<String>,
}

impl Contents {
    /// Shared or not, an environment's dependencies count for its tenant.
    pub(super) fn bytes(&self) -> u64 {
        let shared: u64 = self.held.iter().map(|set| set.bytes).sum();
        bytes_on_disk(self.files.values().map(Vec::len)).saturating_add(shared)
    }

    /// Nothing comes of it: what was installed for it alone is not kept, so that a tenant beyond its quota fills no disk.
    async fn let_go(self, deps: &Deps) {
        drop(self.held);
        for set in self.installed {
            if let Err(error) = deps.packages.remove(&set).await {
                warn!(deps.log, "set_up.left_packages"; "set" => set, "error" => error_chain(&error));
            }
        }
    }

    pub(super) async fn write(self, deps: &Deps, volume: &str) -> Result<(), SetUpError> {
        let trees: Vec<PathBuf> = self.held.iter().map(|set| set.tree.clone()).collect();
        let made = match trees.is_empty() {
            true => deps.volumes.make(volume, self.files).await,
            false => deps.volumes.make_with(volume, self.files, trees).await,
        };
        made.map_err(|error| host("writing the volume", &error, FailureKind::Retryable))
    }
}

/// Modules, what was made of them, dependencies. `compiler`: one that stands, for modules without dependencies. `beside`: further
/// trees that the modules' TypeScript may import from.
pub(super) async fn contents(
    deps: &Deps,
    installs: &Installs,
    (id, compiler): (EnvironmentId, Option<SlotId>),
    request: SetUpRequest,
    wanted: Vec<Wanted>,
    beside: Vec<PathBuf>,
) -> Result<Contents, SetUpError> {
    let (mut held, mut installed) = (Vec::new(), Vec::new());
    for wanted in wanted {
        held.push(match wanted {
            Wanted::Kept(set) => set,
            Wanted::Install(set) => {
                let set = obtain(deps, installs, id, set).await?;
                installed.extend(set.tree.file_name().map(|name| name.to_string_lossy().into_owned()));
                set
            }
        });
    }
    let trees: Vec<PathBuf> = held.iter().map(|set| set.tree.clone()).chain(beside).collect();
    let javascript = if layout::needs_transpiling(request.runtime, request.modules.keys()) {
        transpile(deps, (id, compiler), &request, trees).await?
    } else {
        BTreeMap::new()
    };
    Ok(Contents { files: layout::files(request.modules, javascript), held, installed })
}

async fn transpile(
    deps: &Deps,
    (id, compiler): (EnvironmentId, Option<SlotId>),
    request: &SetUpRequest,
    dependencies: Vec<PathBuf>,
) -> Result<BTreeMap<String, String>, SetUpError> {
    let slot = set_up_slot(id);
    let limits = deps.transpile_limits;
    let typescript = request.modules.iter().filter(|(name, _)| layout::is_typescript(name));
    let modules: BTreeMap<_, _> = typescript.map(|(name, source)| (name.clone(), source.clone())).collect();
    if let Some(compiler) = compiler.filter(|_| dependencies.is_empty()) {
        match deps.engine.transpile(compiler, modules.clone(), limits).await {
            // Nothing of the modules has reached it.
            Err(error @ SandboxError::Spoiled(_)) => {
                warn!(deps.log, "slot.spoiled"; "slot" => %compiler, "error" => error_chain(&error));
            }
            answer => return javascript(answer),
        }
    }
    let purpose = Purpose::Transpile { dependencies };
    let spec = SlotSpec { slot, runtime: request.runtime, purpose, memory_mb: limits.memory_mb };
    let answer = async {
        deps.engine.create(spec).await?;
        deps.engine.transpile(slot, modules, limits).await
    }
    .await;
    if let Err(error) = deps.engine.destroy(slot).await {
        warn!(deps.log, "slot.wedged"; "slot" => %slot, "error" => error_chain(&error));
    }
    javascript(answer)
}

fn javascript(answer: Result<Transpiled, SandboxError>) -> Result<BTreeMap<String, String>, SetUpError> {
    match answer {
        Ok(Transpiled::Modules(modules)) => Ok(modules),
        Ok(Transpiled::Faults(faults)) => Err(SetUpError::Source(faults)),
        Err(error) => Err(host("turning TypeScript into JavaScript", &error, kind_of(&error))),
    }
}

/// Takes back what a failed set-up left. What cannot be taken back now is the Reaper's: its record is not ready.
pub(super) async fn undo(deps: &Deps, id: EnvironmentId) {
    let removed = deps.volumes.remove(&id.volume_name()).await;
    if let Err(error) = &removed {
        warn!(deps.log, "set_up.left_volume"; "environment" => %id, "error" => error_chain(error));
        return;
    }
    if let Err(error) = deps.store.delete_environment(id).await {
        warn!(deps.log, "set_up.left_record"; "environment" => %id, "error" => error_chain(&error));
    }
}

pub(super) fn refused(doing: &'static str, error: StoreError) -> SetUpError {
    match error {
        StoreError::Exceeded(exceeded) => exceeded.into(),
        error => host(doing, &error, FailureKind::Retryable),
    }
}

pub(super) fn host(doing: &'static str, error: &dyn std::error::Error, kind: FailureKind) -> SetUpError {
    SetUpError::Host { doing, cause: error_chain(error).to_string(), kind }
}

pub(super) fn lost() -> SetUpError {
    let cause = "the pool was restarted under it".to_owned();
    SetUpError::Host { doing: "the set-up", cause, kind: FailureKind::Retryable }
}
