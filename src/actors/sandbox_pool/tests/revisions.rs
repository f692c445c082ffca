//! Changed modules, clones, and another life.

use super::standing::one_stands;
use super::tenants::stranger;
use super::*;

fn update(id: EnvironmentId) -> UpdateModules {
    let modules = [("main.js".to_owned(), "export const handler = () => 2".to_owned())].into();
    UpdateModules {
        id,
        tenant: TenantName::operator(),
        update: ModulesUpdate { main_module: Some("main.js".into()), modules, dependencies: None },
    }
}

fn volumes(world: &World) -> Vec<String> {
    world.volumes.names.lock().unwrap().iter().cloned().collect()
}

#[actix::test]
async fn a_call_that_has_begun_keeps_its_tree_and_the_old_one_goes_with_it() {
    let world = World::default();
    let pool = start(&world);
    let id = set_up(&pool, 1).await;
    *world.engine.held.lock().unwrap() = true;
    let running = actix::spawn(pool.send(execute(id, 1)));
    world.engine.running.notified().await;
    let next = pool.send(update(id)).await.unwrap().unwrap();
    assert_eq!((next.revision, next.metadata.module_count), (2, 1));
    assert_ne!(next.volume_name, id.volume_name());
    assert_eq!(world.store.rows.lock().unwrap()[&id], next);
    settle(100).await;
    assert_eq!(volumes(&world), [id.volume_name(), next.volume_name.clone()], "the call still runs on the old one");
    let retire = |volume: &str| RetireVolume { environment: id, volume: volume.to_owned() };
    assert_eq!(pool.send(retire(&id.volume_name())).await.unwrap(), Expired::InUse);
    assert_eq!(pool.send(retire(&next.volume_name)).await.unwrap(), Expired::InUse);
    world.engine.release.notify_one();
    running.await.unwrap().unwrap().unwrap();
    *world.engine.held.lock().unwrap() = false;
    settle(100).await;
    assert_eq!(volumes(&world), vec![next.volume_name.clone()]);
    call(&pool, id, 2).await.unwrap();
    let mounted = world.engine.mounted.lock().unwrap().clone();
    assert_eq!(mounted, [id.volume_name(), next.volume_name.clone()]);
    settle(100).await;
    pool.send(DeleteEnvironment { id, tenant: TenantName::operator() }).await.unwrap().unwrap();
    assert_eq!(volumes(&world), Vec::<String>::new());
}

#[actix::test]
async fn a_call_that_waits_or_boots_anew_begins_with_the_new_tree() {
    let world = World::default();
    let pool = start(&world);
    let id = set_up(&pool, 1).await;
    *world.engine.failing_boots.lock().unwrap() = 1;
    // Its first boot, on the old tree, fails after 100 ms, by which time the environment has been changed.
    let call = actix::spawn(pool.send(execute(id, 1)));
    settle(10).await;
    let next = pool.send(update(id)).await.unwrap().unwrap();
    assert_eq!(call.await.unwrap().unwrap().unwrap().outcome, Outcome::Ok);
    assert_eq!(*world.engine.mounted.lock().unwrap(), [id.volume_name(), next.volume_name.clone()]);
    settle(100).await;
    assert_eq!(volumes(&world), [next.volume_name]);
}

#[actix::test]
async fn an_update_that_fails_or_comes_too_late_changes_nothing() {
    let world = World::default();
    let pool = start(&world);
    let id = set_up(&pool, 1).await;
    let mut empty = update(id);
    empty.update.modules.clear();
    assert!(matches!(pool.send(empty).await.unwrap(), Err(SetUpError::Invalid(SetUpInvalid::ModulesEmpty))));
    let absent = EnvironmentId(Uuid::from_u128(9));
    assert_eq!(pool.send(update(absent)).await.unwrap(), Err(SetUpError::Absent(absent)));
    let (first, second) = tokio::join!(pool.send(update(id)), pool.send(update(id)));
    assert_eq!((first.unwrap().unwrap().revision, second.unwrap()), (2, Err(SetUpError::Busy(id))));
    let (updated, deleted) =
        tokio::join!(pool.send(update(id)), pool.send(DeleteEnvironment { id, tenant: TenantName::operator() }));
    assert_eq!(deleted.unwrap(), Ok(()));
    assert!(matches!(updated.unwrap(), Ok(_) | Err(SetUpError::Absent(_))));
    settle(100).await;
    assert!(volumes(&world).is_empty() && world.store.rows.lock().unwrap().is_empty(), "{:?}", volumes(&world));
}

#[actix::test]
async fn a_clone_is_an_environment_of_its_own_and_a_longer_life_is_respected() {
    let world = World::default();
    let pool = start(&world);
    let id = set_up(&pool, 1).await;
    pool.send(update(id)).await.unwrap().unwrap();
    let copy = EnvironmentId(Uuid::from_u128(2));
    let made = pool
        .send(CloneEnvironment { id: copy, tenant: TenantName::operator(), from: id, ttl_seconds: Some(7) })
        .await
        .unwrap()
        .unwrap();
    assert_eq!((made.ttl_seconds, made.revision, made.volume_name.clone()), (7, 1, copy.volume_name()));
    pool.send(DeleteEnvironment { id, tenant: TenantName::operator() }).await.unwrap().unwrap();
    assert_eq!(volumes(&world), [copy.volume_name()]);
    assert_eq!(call(&pool, copy, 1).await.unwrap().outcome, Outcome::Ok);
    let of = TenantName::operator;
    let late = CloneEnvironment { id: EnvironmentId(Uuid::from_u128(3)), tenant: of(), from: id, ttl_seconds: None };
    assert_eq!(pool.send(late).await.unwrap(), Err(SetUpError::Absent(id)));
    settle(100).await;
    assert_eq!(pool.send(SetTtl { id: copy, tenant: of(), seconds: 9 }).await.unwrap().unwrap().ttl_seconds, 9);
    let seen_before = ExpireEnvironment { id: copy, ttl_seconds: 7 };
    assert_eq!(pool.send(seen_before).await.unwrap(), Expired::InUse, "it was given more meanwhile");
    assert_eq!(pool.send(ExpireEnvironment { id: copy, ttl_seconds: 9 }).await.unwrap(), Expired::Deleted);
    assert_eq!(pool.send(SetTtl { id: copy, tenant: of(), seconds: 9 }).await.unwrap(), Err(SetUpError::Absent(copy)));
}

#[actix::test]
async fn a_clone_of_what_is_deleted_meanwhile_is_none_and_of_a_tree_that_was_lost_is_a_failure() {
    let world = World::default();
    let pool = start(&world);
    let clone = |n, from| CloneEnvironment {
        id: EnvironmentId(Uuid::from_u128(n)),
        tenant: TenantName::operator(),
        from,
        ttl_seconds: None,
    };
    let id = set_up(&pool, 1).await;
    let cloning = actix::spawn(pool.send(clone(2, id)));
    settle(10).await;
    assert_eq!(world.store.rows.lock().unwrap().len(), 2, "it has begun");
    pool.send(DeleteEnvironment { id, tenant: TenantName::operator() }).await.unwrap().unwrap();
    assert_eq!(cloning.await.unwrap().unwrap(), Err(SetUpError::Absent(id)));
    assert!(volumes(&world).is_empty() && world.store.rows.lock().unwrap().is_empty());

    let lost = set_up(&pool, 3).await;
    world.volumes.names.lock().unwrap().clear();
    let failed = pool.send(clone(4, lost)).await.unwrap().unwrap_err();
    assert_eq!(failed.to_string(), format!("writing the volume failed: volume {} is gone", lost.volume_name()));
    assert_eq!(world.store.rows.lock().unwrap().keys().copied().collect::<Vec<_>>(), [lost]);
}

#[actix::test]
async fn another_tenants_environment_cannot_be_changed_cloned_or_prolonged() {
    let world = World::default();
    let pool = start(&world);
    let id = set_up(&pool, 1).await;
    let theirs = UpdateModules { tenant: stranger(), ..update(id) };
    assert_eq!(pool.send(theirs).await.unwrap(), Err(SetUpError::Absent(id)));
    let copy = EnvironmentId(Uuid::from_u128(2));
    let theirs = CloneEnvironment { id: copy, tenant: stranger(), from: id, ttl_seconds: None };
    assert_eq!(pool.send(theirs).await.unwrap(), Err(SetUpError::Absent(id)));
    assert_eq!(pool.send(SetTtl { id, tenant: stranger(), seconds: 1 }).await.unwrap(), Err(SetUpError::Absent(id)));
    assert_eq!((volumes(&world), world.store.rows.lock().unwrap()[&id].revision), (vec![id.volume_name()], 1));
}

#[actix::test]
async fn what_stands_with_the_old_modules_goes_with_them() {
    let world = World::default();
    let pool = start_with(&world, &Parent::default().start(), one_stands());
    let id = set_up(&pool, 1).await;
    settle(500).await;
    for n in 2..5 {
        call(&pool, id, n).await.unwrap();
        settle(500).await;
    }
    let next = pool.send(update(id)).await.unwrap().unwrap();
    let report = call(&pool, id, 5).await.unwrap();
    assert_ne!(report.start, Start::WarmEnvironment);
    assert_eq!(world.engine.mounted.lock().unwrap().last(), Some(&next.volume_name));
    settle(1000).await;
    assert_eq!(volumes(&world), vec![next.volume_name.clone()], "nothing stands on the old tree");
    assert_eq!(call(&pool, id, 6).await.unwrap().start, Start::WarmEnvironment);
    assert_eq!(world.engine.mounted.lock().unwrap().last(), Some(&next.volume_name));
}
