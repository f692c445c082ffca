//! Sandboxes that stand ready, as their callers and the store see them.

use super::*;
use crate::domain::image::Digest;
use crate::messages::sandbox_pool::ImageServes;

pub(super) fn one_stands() -> StandingPolicy {
    StandingPolicy {
        memory_mb: 500,
        runtimes: [(Runtime::Deno, 1)].into(),
        per_environment: 1,
        compilers: 0,
        age: Duration::from_secs(600),
        call_memory_mb: limits().memory_mb,
        reuses: 3,
        reuse_idle: Duration::from_secs(60),
    }
}

#[actix::test]
async fn what_stands_is_claimed_recorded_first_and_replaced() {
    let world = World::default();
    let pool = start_with(&world, &Parent::default().start(), one_stands());
    let id = set_up(&pool, 1).await;
    settle(500).await;
    assert_eq!(pool.send(GetPool).await.unwrap().standing, 1);
    let mut starts = Vec::new();
    for n in 2..6 {
        starts.push(call(&pool, id, n).await.unwrap().start);
        settle(500).await;
    }
    assert_eq!(starts, [Start::WarmRuntime, Start::WarmRuntime, Start::WarmEnvironment, Start::WarmEnvironment]);
    assert_eq!(world.store.calls.lock().unwrap().len(), 4);
    pool.send(DeleteEnvironment { id, tenant: TenantName::operator() }).await.unwrap().unwrap();
    assert_eq!(pool.send(GetPool).await.unwrap().standing, 1, "the runtime's stays");
}

#[actix::test]
async fn a_spoiled_sandbox_costs_its_call_nothing_but_time() {
    let world = World::default();
    let pool = start_with(&world, &Parent::default().start(), one_stands());
    let id = set_up(&pool, 1).await;
    settle(500).await;
    *world.engine.spoiled.lock().unwrap() = 1;
    let report = call(&pool, id, 2).await.unwrap();
    assert_eq!((report.start, report.outcome), (Start::Cold, Outcome::Ok));
    assert_eq!(world.store.calls.lock().unwrap().len(), 1, "recorded once");
}

#[actix::test]
async fn a_booted_sandbox_that_dies_before_its_call_reaches_it_is_made_once_more() {
    let world = World::default();
    let pool = start(&world);
    let id = set_up(&pool, 1).await;
    *world.engine.spoiled.lock().unwrap() = 1;
    assert_eq!(call(&pool, id, 2).await.unwrap().outcome, Outcome::Ok);
    *world.engine.spoiled.lock().unwrap() = 2;
    let refused = call(&pool, id, 3).await;
    assert!(matches!(&refused, Err(ExecuteError::Host { doing: "starting the sandbox", .. })), "{refused:?}");
    assert_eq!(world.store.calls.lock().unwrap().len(), 2, "each recorded once");
    settle(500).await;
    let made = world.engine.created.lock().unwrap().len();
    assert_eq!((world.engine.live(), made), (0, 5), "one for the set-up, two for each call");
}

#[actix::test]
async fn a_lost_sandbox_is_replaced_and_a_module_that_cannot_be_imported_stops_nobody() {
    let world = World::default();
    let pool = start_with(&world, &Parent::default().start(), one_stands());
    settle(500).await;
    world.engine.lose.notify_one();
    settle(2500).await;
    assert_eq!(world.engine.created.lock().unwrap().len(), 2);
    assert_eq!(pool.send(GetPool).await.unwrap().standing, 1);
    let id = EnvironmentId(Uuid::from_u128(1));
    let unprepared = SetUpRequest {
        main_module: "unprepared.ts".into(),
        modules: [("unprepared.ts".to_owned(), "1".to_owned())].into(),
        ..request()
    };
    pool.send(set_up_of(1, unprepared)).await.unwrap().unwrap();
    for n in 2..6 {
        assert_eq!(call(&pool, id, n).await.unwrap().start, Start::WarmRuntime);
        settle(500).await;
    }
}

#[actix::test]
async fn what_stands_with_a_former_image_is_replaced_also_when_it_is_still_being_made() {
    let world = World::default();
    let pool = start_with(&world, &Parent::default().start(), one_stands());
    let serves = |fill| ImageServes { runtime: Runtime::Deno, image: Digest::of_bytes(&[fill; 32]) };
    pool.send(serves(1)).await.unwrap();
    let id = set_up(&pool, 1).await;
    for n in 2..5 {
        call(&pool, id, n).await.unwrap();
        settle(500).await;
    }
    let stands = async || pool.send(GetPool).await.unwrap().standing;
    let created = || world.engine.created.lock().unwrap().len();
    let (standing, before) = (stands().await, created());
    assert_eq!(standing, 2, "one for the runtime, one for the environment");
    pool.send(serves(1)).await.unwrap();
    settle(500).await;
    assert_eq!(created(), before, "told again, nothing changes");
    pool.send(serves(2)).await.unwrap();
    assert_eq!(stands().await, 0);
    settle(50).await;
    assert_eq!(pool.send(GetPool).await.unwrap().warming, 2, "new ones are being made");
    pool.send(serves(3)).await.unwrap();
    settle(500).await;
    assert_eq!((stands().await, created()), (2, before + 4));
    assert_eq!(call(&pool, id, 9).await.unwrap().start, Start::WarmEnvironment);
    settle(500).await;
    assert_eq!(world.engine.live(), 2);
}

#[actix::test]
async fn one_that_waits_is_laid_to_rest_and_stretches_once() {
    let world = World::default();
    let pool = start_with(&world, &Parent::default().start(), one_stands());
    let counts = || (*world.engine.rested.lock().unwrap(), *world.engine.woken.lock().unwrap());
    settle(400).await;
    assert_eq!((pool.send(GetPool).await.unwrap().standing, counts()), (1, (0, 0)), "it can be claimed, and is awake");
    settle(400).await;
    assert_eq!(counts(), (1, 0));
    settle(12_000).await;
    assert_eq!(counts(), (2, 1));
    settle(100_000).await;
    assert_eq!(counts(), (2, 1));
    let id = set_up(&pool, 1).await;
    assert_eq!(call(&pool, id, 2).await.unwrap().start, Start::WarmRuntime);
}

#[actix::test]
async fn one_that_cannot_be_laid_to_rest_is_replaced() {
    let world = World::default();
    let pool = start_with(&world, &Parent::default().start(), one_stands());
    *world.engine.restless.lock().unwrap() = 1;
    settle(400).await;
    let first = world.engine.created.lock().unwrap().clone();
    settle(5_000).await;
    assert_eq!(world.engine.live(), 1);
    assert_eq!(world.engine.created.lock().unwrap().len(), first.len() + 1);
    assert_eq!(pool.send(GetPool).await.unwrap().standing, 1);
}

#[actix::test]
async fn a_drain_takes_what_stands_along() {
    let world = World::default();
    let pool = start_with(&world, &Parent::default().start(), one_stands());
    settle(500).await;
    assert_eq!(world.engine.live(), 1);
    pool.send(Drain { hurry: false }).await.unwrap();
    settle(500).await;
    assert_eq!(world.engine.live(), 0);
    assert!(!pool.connected());
}

#[actix::test]
async fn calls_share_a_sandbox_that_is_laid_to_rest_between_them() {
    let world = World::default();
    let pool = start_with(&world, &Parent::default().start(), one_stands());
    let shared = SetUpRequest { isolation: Isolation::Environment, ..request() };
    pool.send(set_up_of(1, shared)).await.unwrap().unwrap();
    let id = EnvironmentId(Uuid::from_u128(1));
    settle(500).await;
    let rested = *world.engine.rested.lock().unwrap();
    let mut starts = Vec::new();
    for n in 2..6 {
        starts.push(call(&pool, id, n).await.unwrap().start);
        settle(2000).await;
    }
    assert_eq!(starts, [Start::WarmRuntime, Start::Reused, Start::Reused, Start::WarmRuntime]);
    // Twice between the three calls, once more after the fourth; and the runtime's stock was made up twice.
    assert_eq!(*world.engine.rested.lock().unwrap() - rested, 3 + 2);
    *world.engine.spoiled.lock().unwrap() = 1;
    assert_eq!(call(&pool, id, 9).await.unwrap().start, Start::Cold, "what was of no use is tried no more");
}

#[actix::test]
async fn what_stands_for_an_environment_knows_it_until_it_changes() {
    let world = World::default();
    let pool = start_with(&world, &Parent::default().start(), one_stands());
    let lasting = SetUpRequest { ttl_seconds: 3600, ..request() };
    pool.send(set_up_of(1, lasting)).await.unwrap().unwrap();
    let id = EnvironmentId(Uuid::from_u128(1));
    let stand_again = async |first: u128| {
        for n in first..first + 3 {
            call(&pool, id, n).await.unwrap();
            settle(500).await;
        }
    };
    stand_again(10).await;
    let row = world.store.rows.lock().unwrap().remove(&id).unwrap();
    assert_eq!(call(&pool, id, 2).await.unwrap().start, Start::WarmEnvironment, "the store was not read");
    world.store.rows.lock().unwrap().insert(id, row);
    stand_again(20).await;
    let changed = SetTtl { id, tenant: TenantName::operator(), seconds: 7200 };
    assert_eq!(pool.send(changed).await.unwrap().unwrap().ttl_seconds, 7200);
    let row = world.store.rows.lock().unwrap().remove(&id).unwrap();
    assert!(matches!(call(&pool, id, 3).await, Err(ExecuteError::Absent(_))), "the store was read");
    world.store.rows.lock().unwrap().insert(id, row);
    stand_again(30).await;
    pool.send(DeleteEnvironment { id, tenant: TenantName::operator() }).await.unwrap().unwrap();
    assert!(matches!(call(&pool, id, 4).await, Err(ExecuteError::Absent(_))));
}
