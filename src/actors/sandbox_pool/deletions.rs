//! Deletions, asked for or by expiry: no new call begins, running ones end, then the volume and the record go.

use std::sync::Arc;

use actix::prelude::*;
use slog::{info, warn};
use tokio::sync::oneshot;

use super::{Deps, SandboxPool};
use crate::domain::environment::EnvironmentStatus;
use crate::domain::failure::FailureKind;
use crate::domain::id::EnvironmentId;
use crate::domain::pool::Event;
use crate::messages::sandbox_pool::{DeleteEnvironment, DeleteError, ExpireEnvironment, Expired};
use crate::telemetry::error_chain;

type Reply = oneshot::Sender<Result<(), DeleteError>>;

impl Handler<DeleteEnvironment> for SandboxPool {
    type Result = ResponseFuture<Result<(), DeleteError>>;

    fn handle(&mut self, message: DeleteEnvironment, ctx: &mut Self::Context) -> Self::Result {
        let DeleteEnvironment { id, tenant } = message;
        let (reply, answer) = oneshot::channel();
        let store = Arc::clone(&self.deps.store);
        let mark = async move {
            match store.environment(id).await? {
                Some(environment) if environment.is_there_for(&tenant) => {
                    store.set_status(id, EnvironmentStatus::Deleting).await
                }
                _ => Ok(false),
            }
        };
        self.spawn(ctx, mark, move |pool, marked, ctx| {
            pool.note_store(&marked);
            match marked {
                Ok(true) => pool.delete(id, reply, ctx),
                Ok(false) => drop(reply.send(Err(DeleteError::Absent(id)))),
                Err(error) => drop(reply.send(Err(host("marking the environment", &error)))),
            }
        });
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(lost())) })
    }
}

impl Handler<ExpireEnvironment> for SandboxPool {
    type Result = ResponseFuture<Expired>;

    fn handle(&mut self, message: ExpireEnvironment, ctx: &mut Self::Context) -> Self::Result {
        let ExpireEnvironment { id, ttl_seconds } = message;
        let (begun, beginning) = oneshot::channel();
        let store = Arc::clone(&self.deps.store);
        self.spawn(ctx, async move { store.environment(id).await }, move |pool, found, ctx| {
            if !matches!(found, Ok(Some(_))) {
                pool.trees.forget(id);
            }
            // One that is gone, or being deleted, is deleted as well.
            let given_more = matches!(found, Ok(Some(now)) if now.ttl_seconds != ttl_seconds);
            if given_more || pool.machine.is_in_use(id) {
                return drop(begun.send(None));
            }
            let (reply, answer) = oneshot::channel();
            pool.delete(id, reply, ctx);
            drop(begun.send(Some(answer)));
        });
        Box::pin(async move {
            let Ok(Some(answer)) = beginning.await else { return Expired::InUse };
            match answer.await.unwrap_or_else(|_| Err(lost())) {
                Ok(()) => Expired::Deleted,
                Err(error) => Expired::Failed(error.to_string()),
            }
        })
    }
}

impl SandboxPool {
    fn delete(&mut self, id: EnvironmentId, reply: Reply, ctx: &mut Context<Self>) {
        self.deletions.entry(id).or_default().push(reply);
        self.step(Event::DeleteCame { environment: id }, ctx);
    }

    pub(super) fn remove_environment(&mut self, id: EnvironmentId, ctx: &mut Context<Self>) {
        let older = self.retired.iter().filter(|(_, next)| next.id == id).map(|(volume, _)| volume.clone());
        let work = remove(self.deps.clone(), id, older.collect());
        self.spawn(ctx, work, move |pool, removed, ctx| {
            match &removed {
                Ok(()) => info!(pool.deps.log, "environment.deleted"; "environment" => %id),
                // Its record says "deleting", so the Reaper will finish it.
                Err(error) => warn!(pool.deps.log, "environment.undeleted"; "environment" => %id, "error" => %error),
            }
            pool.trees.forget(id);
            for reply in pool.deletions.remove(&id).unwrap_or_default() {
                drop(reply.send(removed.clone()));
            }
            pool.step(Event::DeleteEnded { environment: id }, ctx);
        });
    }
}

/// `older`: volumes of revisions before the newest, as far as they are known here.
async fn remove(deps: Deps, id: EnvironmentId, older: Vec<String>) -> Result<(), DeleteError> {
    let marked = deps.store.set_status(id, EnvironmentStatus::Deleting).await;
    marked.map_err(|error| host("marking the environment", &error))?;
    let found = deps.store.environment(id).await.map_err(|error| host("reading the environment", &error))?;
    let newest = found.map_or_else(|| id.volume_name(), |environment| environment.volume_name);
    for volume in older.into_iter().chain([newest]) {
        let removed = deps.volumes.remove(&volume).await;
        removed.map_err(|error| host("removing the volume", &error))?;
    }
    let forgotten = deps.store.delete_environment(id).await;
    forgotten.map(drop).map_err(|error| host("removing the record", &error))
}

fn host(doing: &'static str, error: &dyn std::error::Error) -> DeleteError {
    DeleteError::Host { doing, cause: error_chain(error).to_string(), kind: FailureKind::Retryable }
}

fn lost() -> DeleteError {
    let cause = "the pool was restarted under it".to_owned();
    DeleteError::Host { doing: "the deletion", cause, kind: FailureKind::Retryable }
}
