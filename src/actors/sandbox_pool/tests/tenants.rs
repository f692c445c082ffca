//! What tenants may see and use.

use super::*;

pub(super) fn stranger() -> TenantName {
    "stranger".parse().unwrap()
}

#[actix::test]
async fn another_tenants_environment_is_absent_to_calls_and_deletions() {
    let world = World::default();
    let pool = start(&world);
    let id = set_up(&pool, 1).await;
    let theirs = pool.send(Execute { tenant: stranger(), ..execute(id, 1) }).await.unwrap();
    assert_eq!(theirs.unwrap_err(), ExecuteError::Absent(id));
    let theirs = pool.send(DeleteEnvironment { id, tenant: stranger() }).await.unwrap();
    assert_eq!(theirs, Err(DeleteError::Absent(id)));
    assert!(world.store.calls.lock().unwrap().is_empty());
    assert_eq!(world.engine.created.lock().unwrap().len(), 1, "the set-up's own");
    assert_eq!(call(&pool, id, 2).await.unwrap().outcome, Outcome::Ok);
}

#[actix::test]
async fn a_tenants_quotas_refuse_what_is_beyond_them_and_nothing_is_left_of_it() {
    let world = World::default();
    let pool = start(&world);
    let quotas = Quotas { environments: Some(1), concurrency: Some(1), ..Quotas::default() };
    *world.tenants.quotas.lock().unwrap() = quotas;
    let id = set_up(&pool, 1).await;
    let refused = pool.send(set_up_of(2, request())).await.unwrap().unwrap_err();
    assert!(matches!(refused, SetUpError::Exceeded(exceeded) if exceeded.quota == Quota::Environments));

    *world.engine.held.lock().unwrap() = true;
    let waiting = actix::spawn(pool.send(execute(id, 1)));
    world.engine.running.notified().await;
    let refused = call(&pool, id, 2).await.unwrap_err();
    assert!(matches!(refused, ExecuteError::Exceeded(exceeded) if exceeded.quota == Quota::Concurrency));
    world.engine.release.notify_one();
    assert_eq!(waiting.await.unwrap().unwrap().unwrap().outcome, Outcome::Ok);
    *world.engine.held.lock().unwrap() = false;
    assert_eq!(call(&pool, id, 3).await.unwrap().outcome, Outcome::Ok, "its place is free again");

    *world.tenants.quotas.lock().unwrap() = Quotas { storage_bytes: Some(100), ..Quotas::default() };
    let refused = pool.send(set_up_of(3, request())).await.unwrap().unwrap_err();
    assert!(matches!(refused, SetUpError::Exceeded(exceeded) if exceeded.quota == Quota::Storage));
    assert_eq!((world.store.rows.lock().unwrap().len(), world.volumes.names.lock().unwrap().len()), (1, 1));
    assert_eq!(world.store.bytes.lock().unwrap()[&id], 8192, "the module and its JavaScript, in whole blocks");
}

#[actix::test]
async fn an_environments_own_limits_hold_for_whoever_calls_it() {
    let world = World::default();
    let pool = start(&world);
    let id = EnvironmentId(Uuid::from_u128(1));
    let limits = EnvironmentLimits { concurrency: Some(1), rate: Rate::new(1.0, Some(2)).ok() };
    pool.send(set_up_of(1, SetUpRequest { limits, ..request() })).await.unwrap().unwrap();
    *world.engine.held.lock().unwrap() = true;
    let first = actix::spawn(pool.send(execute(id, 1)));
    world.engine.running.notified().await;
    let second = actix::spawn(pool.send(execute(id, 2)));
    settle(500).await;
    let picture = pool.send(GetPool).await.unwrap();
    assert_eq!((picture.running, picture.queued), (1, 1));
    let third = call(&pool, id, 3).await.unwrap_err();
    assert!(matches!(third, ExecuteError::Exceeded(exceeded) if exceeded.quota == Quota::EnvironmentRate));
    *world.engine.held.lock().unwrap() = false;
    world.engine.release.notify_one();
    for waiting in [first, second] {
        assert_eq!(waiting.await.unwrap().unwrap().unwrap().outcome, Outcome::Ok);
    }
}

#[actix::test]
async fn a_call_is_charged_what_it_used_and_a_cancelled_one_the_most_it_can_have() {
    let world = World::default();
    let pool = start(&world);
    let id = set_up(&pool, 1).await;
    call(&pool, id, 1).await.unwrap();
    *world.engine.held.lock().unwrap() = true;
    *world.engine.lost_when_destroyed.lock().unwrap() = true;
    let waiting = actix::spawn(pool.send(execute(id, 2)));
    world.engine.running.notified().await;
    world.engine.running.notified().await;
    settle(4_000).await;
    pool.send(CancelExecution { execution: ExecutionId(Uuid::from_u128(2)) }).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().unwrap().outcome, Outcome::Cancelled);
    settle(100).await;
    let charged = world.tenants.charged.lock().unwrap().clone();
    assert_eq!(charged[0], (TenantName::operator(), Duration::from_millis(3)));
    assert!(charged[1].1 >= Duration::from_secs(2) && charged[1].1 < Duration::from_millis(2_100), "{charged:?}");
    assert!(*world.tenants.writes.lock().unwrap() >= 3, "with each beat");
}
