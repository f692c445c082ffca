//! The pool over doubles, under virtual time: what reaches the store, the host and the caller, and in which order.

mod revisions;
mod standing;
mod tenants;

use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::actors::doubles::World;
use crate::actors::doubles::parent::{Parent, Told, seat};
use crate::adapters::clock::PausedClock;
use crate::domain::environment::{
    Dependencies, Isolation, ModulesUpdate, Permissions, Runtime, SetUpInvalid, SetUpRequest,
};
use crate::domain::execution::{Call, ExecutionReport, FilesForm, Outcome, Start};
use crate::domain::id::RequestId;
use crate::domain::package_set::{KeepSets, Sources};
use crate::domain::pool::{Refusal, StandingPolicy};
use crate::domain::quota::{EnvironmentLimits, Quota, Quotas, Rate, Work};
use crate::domain::tenant::TenantName;
use crate::messages::sandbox_pool::{
    CancelExecution, CloneEnvironment, DeleteEnvironment, Execute, ExecuteError, ExpireEnvironment, Expired,
    RetireVolume, SetTtl, SetUp, SetUpError, UpdateModules,
};

fn limits() -> Limits {
    Limits { timeout: Duration::from_secs(5), memory_mb: 128 }
}

fn start(world: &World) -> Addr<SandboxPool> {
    start_under(world, &Parent::default().start())
}

fn start_under(world: &World, parent: &Addr<Parent>) -> Addr<SandboxPool> {
    start_with(world, parent, StandingPolicy::default())
}

fn start_with(world: &World, parent: &Addr<Parent>, standing: StandingPolicy) -> Addr<SandboxPool> {
    tokio::time::pause();
    let policy = PoolPolicy {
        max_executions: 2,
        queue: 3,
        queue_wait: Duration::from_secs(10),
        set_ups: 2,
        boots_at_once: 2,
        standing,
    };
    let deps = Deps {
        engine: world.engine.clone(),
        volumes: world.volumes.clone(),
        packages: world.packages.clone(),
        store: world.store.clone(),
        tenants: world.tenants.clone(),
        cores: 0.5,
        revisions: world.store.clone(),
        clock: Arc::new(PausedClock::start()),
        log: Logger::root(slog::Discard, slog::o!()),
        policy,
        usual_limits: limits(),
        transpile_limits: limits(),
        installs: Some(InstallPolicy {
            sources: Sources { registry: Some("https://registry.example/".into()), ..Sources::default() },
            limits: limits(),
            keep: KeepSets { fresh: Duration::from_secs(3600), unused: Duration::from_secs(60), bytes: 1 << 20 },
        }),
        credentials: Some(world.credentials.clone()),
        isolated: true,
        keep_output: false,
    };
    SandboxPool::new(deps, seat(parent, "test")).start()
}

fn request() -> SetUpRequest {
    SetUpRequest {
        main_module: "main.ts".into(),
        modules: [("main.ts".to_owned(), "export const handler = () => null".to_owned())].into(),
        runtime: Runtime::Deno,
        dependencies: Dependencies::default(),
        permissions: Permissions::default(),
        secrets: Vec::new(),
        ttl_seconds: 0,
        limits: EnvironmentLimits::default(),
        isolation: Isolation::default(),
    }
}

async fn set_up(pool: &Addr<SandboxPool>, n: u128) -> EnvironmentId {
    let id = EnvironmentId(Uuid::from_u128(n));
    pool.send(SetUp { id, tenant: TenantName::operator(), request: request() }).await.unwrap().unwrap();
    id
}

fn execute(environment: EnvironmentId, n: u128) -> Execute {
    Execute {
        call: Call {
            execution: ExecutionId(Uuid::from_u128(n)),
            environment,
            request: RequestId::accept("r").unwrap(),
            data: "null".into(),
            env: [].into(),
            limits: limits(),
            files: FilesForm::None,
        },
        tenant: TenantName::operator(),
        work: Work::Call,
        following: None,
    }
}

fn set_up_of(n: u128, request: SetUpRequest) -> SetUp {
    SetUp { id: EnvironmentId(Uuid::from_u128(n)), tenant: TenantName::operator(), request }
}

async fn call(pool: &Addr<SandboxPool>, id: EnvironmentId, n: u128) -> Result<ExecutionReport, ExecuteError> {
    pool.send(execute(id, n)).await.unwrap()
}

async fn settle(span_ms: u64) {
    tokio::time::sleep(Duration::from_millis(span_ms)).await;
}

#[actix::test]
async fn an_environment_is_ready_only_with_its_volume_and_goes_with_it() {
    let world = World::default();
    let pool = start(&world);
    let id = set_up(&pool, 1).await;
    assert_eq!(world.store.rows.lock().unwrap()[&id].status.as_str(), "ready");
    assert!(world.volumes.names.lock().unwrap().contains(&id.volume_name()));
    pool.send(DeleteEnvironment { id, tenant: TenantName::operator() }).await.unwrap().unwrap();
    assert!(world.store.rows.lock().unwrap().is_empty() && world.volumes.names.lock().unwrap().is_empty());
    assert_eq!(
        pool.send(DeleteEnvironment { id, tenant: TenantName::operator() }).await.unwrap(),
        Err(DeleteError::Absent(id))
    );
}

#[actix::test]
async fn a_call_is_recorded_before_its_caller_hears_and_leaves_nothing() {
    let world = World::default();
    let pool = start(&world);
    let id = set_up(&pool, 1).await;
    let report = call(&pool, id, 7).await.unwrap();
    assert_eq!(report.outcome, Outcome::Ok);
    let recorded = world.store.calls.lock().unwrap().clone();
    assert_eq!((recorded.len(), recorded[0].outcome.as_deref()), (1, Some("ok")));
    assert_eq!(recorded[0].stdout, None, "what a handler returned is kept only where that is asked for");
    settle(100).await;
    assert_eq!(world.engine.live(), 0);
}

#[actix::test]
async fn an_unknown_environment_is_absent() {
    let pool = start(&World::default());
    let id = EnvironmentId(Uuid::from_u128(9));
    assert_eq!(call(&pool, id, 1).await.unwrap_err(), ExecuteError::Absent(id));
}

#[actix::test]
async fn a_boot_that_fails_once_is_not_seen_and_twice_is_an_error() {
    let world = World::default();
    let pool = start(&world);
    let id = set_up(&pool, 1).await;
    *world.engine.failing_boots.lock().unwrap() = 1;
    assert_eq!(call(&pool, id, 1).await.unwrap().outcome, Outcome::Ok);
    *world.engine.failing_boots.lock().unwrap() = 2;
    assert!(matches!(call(&pool, id, 2).await, Err(ExecuteError::Host { doing: "starting the sandbox", .. })));
    settle(100).await;
    assert_eq!(world.engine.live(), 0);
}

#[actix::test]
async fn a_caller_that_hangs_up_frees_its_sandbox_at_once() {
    let world = World::default();
    let pool = start(&world);
    let id = set_up(&pool, 1).await;
    *world.engine.held.lock().unwrap() = true;
    let waiting = actix::spawn(pool.send(execute(id, 1)));
    world.engine.running.notified().await;
    pool.send(CancelExecution { execution: ExecutionId(Uuid::from_u128(1)) }).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().unwrap().outcome, Outcome::Cancelled);
    settle(100).await;
    assert_eq!(world.engine.live(), 0);
    assert_eq!(world.store.calls.lock().unwrap()[0].outcome.as_deref(), Some("cancelled"));
}

#[actix::test]
async fn a_call_that_is_cancelled_while_its_sandbox_boots_has_its_end_in_the_store() {
    let world = World::default();
    let pool = start(&world);
    let id = set_up(&pool, 1).await;
    let waiting = actix::spawn(pool.send(execute(id, 1)));
    settle(50).await;
    assert_eq!((world.store.calls.lock().unwrap().len(), world.engine.live()), (1, 1), "recorded, and not ready");
    pool.send(CancelExecution { execution: ExecutionId(Uuid::from_u128(1)) }).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().unwrap().outcome, Outcome::Cancelled);
    assert_eq!(world.store.calls.lock().unwrap()[0].outcome.as_deref(), Some("cancelled"));
}

#[actix::test]
async fn a_call_that_is_cancelled_in_its_second_boot_is_told_that_and_not_of_the_first() {
    let world = World::default();
    let pool = start(&world);
    let id = set_up(&pool, 1).await;
    *world.engine.failing_boots.lock().unwrap() = 1;
    let waiting = actix::spawn(pool.send(execute(id, 1)));
    settle(150).await;
    assert_eq!(world.engine.created.lock().unwrap().len(), 3, "one for the set-up, two for the call");
    pool.send(CancelExecution { execution: ExecutionId(Uuid::from_u128(1)) }).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().unwrap().outcome, Outcome::Cancelled);
}

#[actix::test]
async fn an_environment_in_use_does_not_expire_and_a_deleted_one_ends_its_calls() {
    let world = World::default();
    let pool = start(&world);
    let id = set_up(&pool, 1).await;
    *world.engine.held.lock().unwrap() = true;
    let waiting = actix::spawn(pool.send(execute(id, 1)));
    world.engine.running.notified().await;
    assert_eq!(pool.send(ExpireEnvironment { id, ttl_seconds: 3600 }).await.unwrap(), Expired::InUse);
    pool.send(DeleteEnvironment { id, tenant: TenantName::operator() }).await.unwrap().unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().unwrap().outcome, Outcome::Cancelled);
    assert_eq!(world.engine.live(), 0, "removed only when its sandbox was gone");
}

#[actix::test]
async fn a_wedged_slot_keeps_its_place_until_it_is_gone() {
    let world = World::default();
    let pool = start(&world);
    let id = set_up(&pool, 1).await;
    *world.engine.failing_destructions.lock().unwrap() = 1;
    call(&pool, id, 1).await.unwrap();
    settle(100).await;
    assert_eq!(pool.send(GetPool).await.unwrap().wedged, 1);
    settle(600).await;
    assert_eq!(pool.send(GetPool).await.unwrap().wedged, 0);
    assert_eq!(world.engine.live(), 0);
}

#[actix::test]
async fn a_store_that_is_down_is_an_error_and_a_complaint_and_recovers_without_a_call() {
    let world = World::default();
    let parent = Parent::default().start();
    let pool = start_under(&world, &parent);
    let id = set_up(&pool, 1).await;
    *world.store.down.lock().unwrap() = true;
    assert!(matches!(call(&pool, id, 1).await, Err(ExecuteError::Host { .. })));
    assert!(pool.send(set_up_of(2, request())).await.unwrap().is_err());
    settle(1100).await;
    assert_eq!(parent.send(Told).await.unwrap().complaints, ["the store cannot answer: it is down"]);
    *world.store.down.lock().unwrap() = false;
    settle(2100).await;
    assert_eq!(parent.send(Told).await.unwrap().complaints, Vec::<String>::new());
    assert_eq!(call(&pool, id, 2).await.unwrap().outcome, Outcome::Ok);
}

#[actix::test]
async fn a_drain_lets_a_running_call_finish_and_takes_no_new_one() {
    let world = World::default();
    let pool = start(&world);
    let id = set_up(&pool, 1).await;
    *world.engine.held.lock().unwrap() = true;
    let waiting = actix::spawn(pool.send(execute(id, 1)));
    world.engine.running.notified().await;
    pool.send(Drain { hurry: false }).await.unwrap();
    assert_eq!(call(&pool, id, 2).await.unwrap_err(), ExecuteError::Refused(Refusal::Draining));
    world.engine.release.notify_one();
    assert_eq!(waiting.await.unwrap().unwrap().unwrap().outcome, Outcome::Ok);
    settle(100).await;
    assert!(!pool.connected(), "a drained pool has stopped");
}

#[actix::test]
async fn what_an_earlier_life_left_is_gone_before_the_first_boot() {
    let world = World::default();
    world.engine.live.lock().unwrap().insert(SlotId(Uuid::from_u128(99)));
    let pool = start(&world);
    settle(100).await;
    assert_eq!(world.engine.live(), 0);
    drop(pool);
}

#[actix::test]
async fn packages_that_cannot_be_installed_leave_neither_record_nor_volume_nor_sandbox() {
    let world = World::default();
    let pool = start(&world);
    let with = |name: &str| {
        let dependencies = Dependencies { npm: vec![name.to_owned()], deno: Vec::new() };
        SetUpRequest { dependencies, ..request() }
    };
    let id = EnvironmentId(Uuid::from_u128(1));
    let refused = pool.send(SetUp { id, tenant: TenantName::operator(), request: with("absent") }).await.unwrap();
    let text = refused.map_err(|error| error.to_string()).unwrap_err();
    assert_eq!(text, "installing the dependencies failed: there is no such package");
    assert!(world.store.rows.lock().unwrap().is_empty() && world.volumes.names.lock().unwrap().is_empty());
    assert!(world.engine.live.lock().unwrap().is_empty());
    let made =
        pool.send(SetUp { id, tenant: TenantName::operator(), request: with("present@1") }).await.unwrap().unwrap();
    assert!(made.metadata.has_dependencies && world.engine.live.lock().unwrap().is_empty());
}

#[actix::test]
async fn packages_that_would_find_no_room_are_not_even_installed() {
    let world = World::default();
    let pool = start(&world);
    *world.packages.used.lock().unwrap() = 1 << 20;
    let dependencies = Dependencies { npm: vec!["pad@1".into()], deno: Vec::new() };
    let refused = pool.send(set_up_of(1, SetUpRequest { dependencies, ..request() })).await.unwrap().unwrap_err();
    assert!(matches!(&refused, SetUpError::Host { kind: FailureKind::Permanent, .. }), "{refused:?}");
    let expected = "keeping the dependencies failed: the packages that environments use take 1 MiB of the 1 MiB for all of \
                    them (sandbox.packages_mib): delete environments, or raise that";
    assert_eq!(refused.to_string(), expected);
    assert!(world.engine.created.lock().unwrap().is_empty() && world.store.rows.lock().unwrap().is_empty());
}

#[actix::test]
async fn packages_are_installed_once_for_all_environments_that_name_the_same_until_they_are_too_old() {
    let world = World::default();
    let pool = start(&world);
    let javascript: std::collections::BTreeMap<_, _> = [("main.js".to_owned(), String::new())].into();
    let with = || SetUpRequest {
        main_module: "main.js".into(),
        modules: javascript.clone(),
        dependencies: Dependencies { npm: vec!["pad@1".into()], deno: Vec::new() },
        ..request()
    };
    let set_up = async |n| {
        let id = EnvironmentId(Uuid::from_u128(n));
        pool.send(SetUp { id, tenant: TenantName::operator(), request: with() }).await.unwrap().unwrap();
        world.engine.created.lock().unwrap().len()
    };
    assert_eq!([set_up(1).await, set_up(2).await], [1, 1]);
    settle(3_600_000).await;
    assert_eq!(set_up(3).await, 2);
    let both = tokio::join!(set_up(4), set_up(5));
    assert_eq!(both, (2, 2));
}

#[actix::test]
async fn a_set_up_that_names_an_unknown_secret_is_refused_with_its_name() {
    let world = World::default();
    let pool = start(&world);
    world.credentials.keep("KNOWN", &["a.example"], "value");
    let naming = |n, names: &[&str]| SetUp {
        id: EnvironmentId(Uuid::from_u128(n)),
        tenant: TenantName::operator(),
        request: SetUpRequest { secrets: names.iter().map(|name| name.parse().unwrap()).collect(), ..request() },
    };
    let made = pool.send(naming(1, &["KNOWN"])).await.unwrap().unwrap();
    assert_eq!(made.metadata.secrets, ["KNOWN".parse().unwrap()]);
    let refused = pool.send(naming(2, &["KNOWN", "UNKNOWN"])).await.unwrap().unwrap_err();
    let expected =
        "secrets names UNKNOWN, which is not stored: put it there first, with `cloister secrets set UNKNOWN`";
    assert_eq!(refused.to_string(), expected);
    let theirs = pool.send(SetUp { tenant: tenants::stranger(), ..naming(3, &["KNOWN"]) }).await.unwrap().unwrap_err();
    assert_eq!(
        theirs,
        SetUpError::Invalid(SetUpInvalid::UnknownSecret("KNOWN".parse().unwrap())),
        "the operator's alone"
    );
    assert_eq!(world.store.rows.lock().unwrap().len(), 1);
}

#[actix::test]
async fn what_is_begun_has_begun_before_anybody_awaits_it() {
    let seen = std::cell::Cell::new(0);
    let future = begun(async {
        seen.set(1);
        settle(10).await;
        seen.set(2);
        "done"
    });
    assert_eq!(seen.get(), 1);
    assert_eq!((future.await, seen.get()), ("done", 2));
}
