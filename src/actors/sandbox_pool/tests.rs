//! The pool over doubles, under virtual time: what reaches the store, the host and the caller, and in which order.

use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::actors::doubles::World;
use crate::adapters::clock::PausedClock;
use crate::domain::environment::ModulesUpdate;
use crate::domain::environment::{Dependencies, Permissions, Runtime, SetUpInvalid, SetUpRequest};
use crate::domain::execution::{Call, ExecutionReport, Outcome};
use crate::domain::id::RequestId;
use crate::domain::pool::Refusal;
use crate::domain::restart::Generation;
use crate::messages::sandbox_pool::{
    CancelExecution, CloneEnvironment, DeleteEnvironment, Execute, ExecuteError, ExpireEnvironment, Expired,
    RetireVolume, SetTtl, SetUp, SetUpError, UpdateModules,
};
use crate::messages::supervisor::{Beat, ChildDown};

/// Stands where the Supervisor would, and remembers the last complaints.
#[derive(Default)]
struct Parent(Vec<String>);

impl Actor for Parent {
    type Context = Context<Self>;
}

impl Handler<Beat> for Parent {
    type Result = ();
    fn handle(&mut self, beat: Beat, _: &mut Self::Context) {
        self.0 = beat.complaints;
    }
}

#[derive(Message)]
#[rtype(result = "Vec<String>")]
struct LastComplaints;

impl Handler<LastComplaints> for Parent {
    type Result = Vec<String>;
    fn handle(&mut self, _: LastComplaints, _: &mut Self::Context) -> Vec<String> {
        self.0.clone()
    }
}

impl Handler<ChildDown> for Parent {
    type Result = ();
    fn handle(&mut self, _: ChildDown, _: &mut Self::Context) {}
}

pub(crate) fn seat() -> Seat {
    Seat::new(&Parent::default().start(), "test", Generation(1), Duration::from_secs(1))
}

fn limits() -> Limits {
    Limits { timeout: Duration::from_secs(5), memory_mb: 128 }
}

fn start(world: &World) -> Addr<SandboxPool> {
    start_under(world, &Parent::default().start())
}

fn start_under(world: &World, parent: &Addr<Parent>) -> Addr<SandboxPool> {
    tokio::time::pause();
    let policy =
        PoolPolicy { max_executions: 2, queue: 3, queue_wait: Duration::from_secs(10), set_ups: 2, boots_at_once: 2 };
    let deps = Deps {
        engine: world.engine.clone(),
        volumes: world.volumes.clone(),
        store: world.store.clone(),
        revisions: world.store.clone(),
        clock: Arc::new(PausedClock::start()),
        log: Logger::root(slog::Discard, slog::o!()),
        policy,
        transpile_limits: limits(),
        install_limits: Some(limits()),
        isolated: true,
        keep_output: false,
    };
    SandboxPool::new(deps, Seat::new(parent, "test", Generation(1), Duration::from_secs(1))).start()
}

fn request() -> SetUpRequest {
    SetUpRequest {
        main_module: "main.ts".into(),
        modules: [("main.ts".to_owned(), "export const handler = () => null".to_owned())].into(),
        runtime: Runtime::Deno,
        dependencies: Dependencies::default(),
        permissions: Permissions::default(),
        ttl_seconds: 0,
    }
}

async fn set_up(pool: &Addr<SandboxPool>, n: u128) -> EnvironmentId {
    let id = EnvironmentId(Uuid::from_u128(n));
    pool.send(SetUp { id, request: request() }).await.unwrap().unwrap();
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
            files: false,
        },
        following: None,
    }
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
    pool.send(DeleteEnvironment { id }).await.unwrap().unwrap();
    assert!(world.store.rows.lock().unwrap().is_empty() && world.volumes.names.lock().unwrap().is_empty());
    assert_eq!(pool.send(DeleteEnvironment { id }).await.unwrap(), Err(DeleteError::Absent(id)));
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
async fn an_environment_in_use_does_not_expire_and_a_deleted_one_ends_its_calls() {
    let world = World::default();
    let pool = start(&world);
    let id = set_up(&pool, 1).await;
    *world.engine.held.lock().unwrap() = true;
    let waiting = actix::spawn(pool.send(execute(id, 1)));
    world.engine.running.notified().await;
    assert_eq!(pool.send(ExpireEnvironment { id, ttl_seconds: 3600 }).await.unwrap(), Expired::InUse);
    pool.send(DeleteEnvironment { id }).await.unwrap().unwrap();
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
    assert!(pool.send(SetUp { id: EnvironmentId(Uuid::from_u128(2)), request: request() }).await.unwrap().is_err());
    settle(1100).await;
    assert_eq!(parent.send(LastComplaints).await.unwrap(), ["the store cannot answer: it is down"]);
    *world.store.down.lock().unwrap() = false;
    settle(2100).await;
    assert_eq!(parent.send(LastComplaints).await.unwrap(), Vec::<String>::new());
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
    let refused = pool.send(SetUp { id, request: with("absent") }).await.unwrap();
    let text = refused.map_err(|error| error.to_string()).unwrap_err();
    assert_eq!(text, "installing the dependencies failed: there is no such package");
    assert!(world.store.rows.lock().unwrap().is_empty() && world.volumes.names.lock().unwrap().is_empty());
    assert!(world.engine.live.lock().unwrap().is_empty());
    let made = pool.send(SetUp { id, request: with("present@1") }).await.unwrap().unwrap();
    assert!(made.metadata.has_dependencies && world.engine.live.lock().unwrap().is_empty());
}

fn update(id: EnvironmentId) -> UpdateModules {
    let modules = [("main.js".to_owned(), "export const handler = () => 2".to_owned())].into();
    UpdateModules { id, update: ModulesUpdate { main_module: Some("main.js".into()), modules, dependencies: None } }
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
    pool.send(DeleteEnvironment { id }).await.unwrap().unwrap();
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
    let (updated, deleted) = tokio::join!(pool.send(update(id)), pool.send(DeleteEnvironment { id }));
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
    let made = pool.send(CloneEnvironment { id: copy, from: id, ttl_seconds: Some(7) }).await.unwrap().unwrap();
    assert_eq!((made.ttl_seconds, made.revision, made.volume_name.clone()), (7, 1, copy.volume_name()));
    pool.send(DeleteEnvironment { id }).await.unwrap().unwrap();
    assert_eq!(volumes(&world), [copy.volume_name()]);
    assert_eq!(call(&pool, copy, 1).await.unwrap().outcome, Outcome::Ok);
    let late = CloneEnvironment { id: EnvironmentId(Uuid::from_u128(3)), from: id, ttl_seconds: None };
    assert_eq!(pool.send(late).await.unwrap(), Err(SetUpError::Absent(id)));
    settle(100).await;
    assert_eq!(pool.send(SetTtl { id: copy, seconds: 9 }).await.unwrap().unwrap().ttl_seconds, 9);
    let seen_before = ExpireEnvironment { id: copy, ttl_seconds: 7 };
    assert_eq!(pool.send(seen_before).await.unwrap(), Expired::InUse, "it was given more meanwhile");
    assert_eq!(pool.send(ExpireEnvironment { id: copy, ttl_seconds: 9 }).await.unwrap(), Expired::Deleted);
    assert_eq!(pool.send(SetTtl { id: copy, seconds: 9 }).await.unwrap(), Err(SetUpError::Absent(copy)));
}
