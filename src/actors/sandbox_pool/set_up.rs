//! Set-ups: recorded, transpiled in a sandbox, written, sealed, made ready. Whatever fails is undone.

use std::collections::BTreeMap;

use actix::prelude::*;
use slog::{info, warn};
use tokio::sync::oneshot;

use super::{Deps, Making, PendingSetUp, SandboxPool, kind_of};
use crate::domain::environment::{Environment, EnvironmentStatus, Runtime, SetUpInvalid, SetUpRequest};
use crate::domain::failure::FailureKind;
use crate::domain::id::EnvironmentId;
use crate::domain::layout;
use crate::domain::package::packages;
use crate::domain::pool::{Event, set_up_slot};
use crate::messages::sandbox_pool::{SetUp, SetUpError};
use crate::ports::sandbox::{Installed, Purpose, SlotSpec, Transpiled};
use crate::telemetry::error_chain;

impl Handler<SetUp> for SandboxPool {
    type Result = ResponseFuture<Result<Environment, SetUpError>>;

    fn handle(&mut self, message: SetUp, ctx: &mut Self::Context) -> Self::Result {
        let SetUp { id, request } = message;
        if let Err(invalid) = request.validate() {
            return Box::pin(std::future::ready(Err(invalid.into())));
        }
        let installs = request.dependencies.count() > 0;
        if installs && self.deps.install_limits.is_none() {
            return Box::pin(std::future::ready(Err(SetUpInvalid::DependenciesNotEnabled.into())));
        }
        let (reply, answer) = oneshot::channel();
        let transpiles = installs || layout::needs_transpiling(request.runtime, request.modules.keys());
        self.set_ups.insert(id, PendingSetUp { work: Making::New(request), reply });
        self.step(Event::SetUpCame { environment: id, transpiles }, ctx);
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(lost())) })
    }
}

impl SandboxPool {
    pub(super) fn begin_set_up(&mut self, id: EnvironmentId, ctx: &mut Context<Self>) {
        let Some(PendingSetUp { work, reply }) = self.set_ups.remove(&id) else { return };
        let request = match work {
            Making::New(request) => request,
            Making::Clone { from, ttl_seconds } => return self.begin_clone(id, from, ttl_seconds, reply, ctx),
            Making::Revision(update) => return self.begin_update(id, update, reply, ctx),
        };
        let work = set_up(self.deps.clone(), id, request);
        self.spawn(ctx, work, move |pool, made, ctx| {
            match &made {
                Ok(environment) => info!(pool.deps.log, "environment.ready"; "environment" => %id,
                    "runtime" => environment.runtime.as_str(), "modules" => environment.metadata.module_count),
                Err(error) => warn!(pool.deps.log, "environment.failed"; "environment" => %id, "error" => %error),
            }
            drop(reply.send(made));
            pool.step(Event::SetUpEnded { environment: id }, ctx);
        });
    }
}

async fn set_up(deps: Deps, id: EnvironmentId, request: SetUpRequest) -> Result<Environment, SetUpError> {
    let environment = request.environment(id, deps.clock.wall());
    let recorded = deps.store.insert_environment(&environment).await;
    recorded.map_err(|error| host("recording the environment", &error, FailureKind::Retryable))?;
    match build(&deps, id, request).await {
        Ok(()) => Ok(Environment { status: EnvironmentStatus::Ready, ..environment }),
        Err(error) => {
            undo(&deps, id).await;
            Err(error)
        }
    }
}

async fn build(deps: &Deps, id: EnvironmentId, request: SetUpRequest) -> Result<(), SetUpError> {
    let files = files(deps, id, request).await?;
    let made = deps.volumes.make(&id.volume_name(), files).await;
    made.map_err(|error| host("writing the volume", &error, FailureKind::Retryable))?;
    let readied = deps.store.set_status(id, EnvironmentStatus::Ready).await;
    readied.map(drop).map_err(|error| host("recording the environment", &error, FailureKind::Retryable))
}

/// The volume's files: modules, what was made of them, packages.
pub(super) async fn files(
    deps: &Deps,
    id: EnvironmentId,
    request: SetUpRequest,
) -> Result<BTreeMap<String, Vec<u8>>, SetUpError> {
    let javascript = if layout::needs_transpiling(request.runtime, request.modules.keys()) {
        transpile(deps, id, &request).await?
    } else {
        BTreeMap::new()
    };
    let installed = install(deps, id, &request).await?;
    let mut files = layout::files(request.modules, javascript);
    files.extend(layout::installed(installed));
    Ok(files)
}

async fn transpile(
    deps: &Deps,
    id: EnvironmentId,
    request: &SetUpRequest,
) -> Result<BTreeMap<String, String>, SetUpError> {
    let slot = set_up_slot(id);
    let limits = deps.transpile_limits;
    let typescript = request.modules.iter().filter(|(name, _)| layout::is_typescript(name));
    let modules = typescript.map(|(name, source)| (name.clone(), source.clone())).collect();
    let spec = SlotSpec { slot, runtime: request.runtime, purpose: Purpose::Transpile, memory_mb: limits.memory_mb };
    let answer = async {
        deps.engine.create(spec).await?;
        deps.engine.transpile(slot, modules, limits).await
    }
    .await;
    if let Err(error) = deps.engine.destroy(slot).await {
        warn!(deps.log, "slot.wedged"; "slot" => %slot, "error" => error_chain(&error));
    }
    match answer {
        Ok(Transpiled::Modules(modules)) => Ok(modules),
        Ok(Transpiled::Faults(faults)) => Err(SetUpError::Source(faults)),
        Err(error) => Err(host("turning TypeScript into JavaScript", &error, kind_of(&error))),
    }
}

/// The files of the packages that are asked for.
async fn install(
    deps: &Deps,
    id: EnvironmentId,
    request: &SetUpRequest,
) -> Result<BTreeMap<String, Vec<u8>>, SetUpError> {
    let packages = packages(&request.dependencies.npm).map_err(SetUpInvalid::from)?;
    let Some(limits) = deps.install_limits.filter(|_| !packages.is_empty()) else { return Ok(BTreeMap::new()) };
    let slot = set_up_slot(id);
    let spec = SlotSpec { slot, runtime: Runtime::Bun, purpose: Purpose::Install, memory_mb: limits.memory_mb };
    let answer = async {
        deps.engine.create(spec).await?;
        deps.engine.install(slot, packages, limits).await
    }
    .await;
    if let Err(error) = deps.engine.destroy(slot).await {
        warn!(deps.log, "slot.wedged"; "slot" => %slot, "error" => error_chain(&error));
    }
    const DOING: &str = "installing the dependencies";
    match answer {
        Ok(Installed::Files(files)) => Ok(files),
        Ok(Installed::Failed(cause)) => Err(SetUpError::Host { doing: DOING, cause, kind: FailureKind::Permanent }),
        Err(error) => Err(host(DOING, &error, kind_of(&error))),
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

pub(super) fn host(doing: &'static str, error: &dyn std::error::Error, kind: FailureKind) -> SetUpError {
    SetUpError::Host { doing, cause: error_chain(error).to_string(), kind }
}

pub(super) fn lost() -> SetUpError {
    let cause = "the pool was restarted under it".to_owned();
    SetUpError::Host { doing: "the set-up", cause, kind: FailureKind::Retryable }
}
