//! One look over everything: gather the facts in the order that `domain::garbage` asks for, then collect.

use std::collections::BTreeSet;

use super::Deps;
use crate::domain::garbage::{Garbage, Inventory, KnownEnvironment, ReaperPicture, sort_out};
use crate::domain::id::EnvironmentId;
use crate::domain::time::WallTime;
use crate::messages::sandbox_pool::{ExpireEnvironment, Expired, GetHoldings, RetireVolume};
use crate::telemetry::error_chain;

/// Looks, collects, and says what came of it. `rounds` and `reaped_zombies` of the answer are left at 0.
pub(super) async fn round(deps: Deps) -> ReaperPicture {
    let mut counts = ReaperPicture::default();
    match gather(&deps).await {
        Ok(inventory) => {
            for garbage in sort_out(&inventory, deps.idle_ttl_seconds, deps.clock.wall()) {
                collect(&deps, &inventory, garbage, &mut counts).await;
            }
        }
        Err(failure) => counts.last_failures.push(failure),
    }
    if let Err(failure) = collect_packages(&deps, &mut counts).await {
        counts.last_failures.push(failure);
    }
    let keep = i64::try_from(deps.keep_executions.as_millis()).unwrap_or(i64::MAX);
    let before = WallTime(deps.clock.wall().0.saturating_sub(keep));
    match deps.store.forget_executions(before).await {
        Ok(forgotten) => counts.forgotten_executions = forgotten,
        Err(error) => counts.last_failures.push(format!("old calls: {}", error_chain(&error))),
    }
    counts
}

async fn gather(deps: &Deps) -> Result<Inventory, String> {
    let leftovers = deps.engine.leftovers().await.map_err(|error| format!("slots: {}", error_chain(&error)))?;
    let volumes_before = volumes(deps).await?;
    let stored = deps.store.environments().await.map_err(|error| format!("store: {}", error_chain(&error)))?;
    let volumes_after = volumes(deps).await?;
    let held = deps.holdings.ask(GetHoldings).await.map_err(|error| format!("pool: {error}"))?;
    let known = stored.into_iter().map(|environment| KnownEnvironment {
        id: environment.id,
        volume_name: environment.volume_name,
        status: environment.status,
        created_at: environment.created_at,
        last_executed_at: environment.last_executed_at,
        ttl_seconds: environment.ttl_seconds,
    });
    Ok(Inventory {
        host_slots: leftovers.into_iter().map(|leftover| leftover.slot).collect(),
        volumes_before,
        environments: known.collect(),
        volumes_after,
        held_slots: held.slots.into_iter().collect(),
        held_environments: held.environments.into_iter().collect(),
    })
}

async fn volumes(deps: &Deps) -> Result<BTreeSet<String>, String> {
    let listed = deps.volumes.list().await.map_err(|error| format!("volumes: {}", error_chain(&error)))?;
    Ok(listed.into_iter().collect())
}

async fn collect(deps: &Deps, inventory: &Inventory, garbage: Garbage, counts: &mut ReaperPicture) {
    let known = |id: EnvironmentId| inventory.environments.iter().find(|known| known.id == id);
    let outcome = match garbage {
        Garbage::Expired(id) => {
            expire(deps, id, known(id)).await.map(|gone| counts.expired_environments += u64::from(gone))
        }
        Garbage::BrokenRecord(id) => {
            remove_record(deps, id, known(id)).await.map(|gone| counts.broken_records += u64::from(gone))
        }
        Garbage::Superseded(environment, volume) => {
            retire(deps, environment, volume).await.map(|gone| counts.orphan_volumes += u64::from(gone))
        }
        Garbage::Volume(name) => match deps.volumes.remove(&name).await {
            Ok(()) => {
                counts.orphan_volumes += 1;
                Ok(())
            }
            Err(error) => Err(format!("volume {name}: {}", error_chain(&error))),
        },
        Garbage::Slot(slot) => match deps.engine.destroy(slot).await {
            Ok(()) => {
                counts.orphan_slots += 1;
                Ok(())
            }
            Err(error) => Err(format!("slot {slot}: {}", error_chain(&error))),
        },
    };
    if let Err(failure) = outcome {
        counts.last_failures.push(failure);
    }
}

/// After the environments, which may have been the last that used one. What is held meanwhile stays.
async fn collect_packages(deps: &Deps, counts: &mut ReaperPicture) -> Result<(), String> {
    let failed = |error| format!("packages: {}", error_chain(&error));
    for set in deps.packages.list().await.map_err(failed)? {
        if deps.keep_sets.is_over(&set, deps.clock.wall()) {
            counts.package_sets += u64::from(deps.packages.remove(&set.name).await.map_err(failed)?);
        }
    }
    Ok(())
}

async fn expire(deps: &Deps, id: EnvironmentId, seen: Option<&KnownEnvironment>) -> Result<bool, String> {
    let ttl_seconds = seen.map_or(0, |seen| seen.ttl_seconds);
    match deps.expire.ask(ExpireEnvironment { id, ttl_seconds }).await {
        Ok(Expired::Deleted) => Ok(true),
        Ok(Expired::InUse) => Ok(false),
        Ok(Expired::Failed(cause)) => Err(format!("environment {id}: {cause}")),
        Err(error) => Err(format!("environment {id}: {error}")),
    }
}

async fn retire(deps: &Deps, environment: EnvironmentId, volume: String) -> Result<bool, String> {
    match deps.retire.ask(RetireVolume { environment, volume: volume.clone() }).await {
        Ok(Expired::Deleted) => Ok(true),
        Ok(Expired::InUse) => Ok(false),
        Ok(Expired::Failed(cause)) => Err(format!("volume {volume}: {cause}")),
        Err(error) => Err(format!("volume {volume}: {error}")),
    }
}

/// False for one that was given another volume since it was looked at, whose old one is missing for a good reason; and for
/// one that has become ready since.
async fn remove_record(deps: &Deps, id: EnvironmentId, seen: Option<&KnownEnvironment>) -> Result<bool, String> {
    let found = deps.store.environment(id).await.map_err(|error| format!("record of {id}: {}", error_chain(&error)))?;
    let (Some(seen), Some(found)) = (seen, found) else { return Ok(false) };
    if seen.volume_name != found.volume_name || seen.status != found.status {
        return Ok(false);
    }
    let removed = deps.volumes.remove(&found.volume_name).await;
    removed.map_err(|error| format!("volume of {id}: {}", error_chain(&error)))?;
    let forgotten = deps.store.delete_environment(id).await;
    let forgotten = forgotten.map_err(|error| format!("record of {id}: {}", error_chain(&error)))?;
    // What stands for it goes as well.
    expire(deps, id, None).await?;
    Ok(forgotten)
}
