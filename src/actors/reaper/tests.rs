//! The Reaper over doubles, under virtual time.

use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::actors::doubles::World;
use crate::actors::doubles::parent::seat_alone;
use crate::adapters::clock::PausedClock;
use crate::domain::environment::{
    Dependencies, Environment, EnvironmentStatus, Isolation, Permissions, Runtime, SetUpRequest,
};
use crate::domain::id::{EnvironmentId, SlotId};
use crate::domain::package_set::KeepSets;
use crate::domain::quota::EnvironmentLimits;
use crate::domain::tenant::TenantName;
use crate::messages::sandbox_pool::{Expired, PoolHoldings};

/// A pool that holds what it is told to hold and deletes what expires.
struct PoolDouble {
    world: World,
    holdings: PoolHoldings,
}

impl Actor for PoolDouble {
    type Context = Context<Self>;
}

impl Handler<GetHoldings> for PoolDouble {
    type Result = PoolHoldings;

    fn handle(&mut self, _: GetHoldings, _: &mut Self::Context) -> PoolHoldings {
        self.holdings.clone()
    }
}

impl Handler<ExpireEnvironment> for PoolDouble {
    type Result = Expired;

    fn handle(&mut self, message: ExpireEnvironment, _: &mut Self::Context) -> Expired {
        self.world.store.rows.lock().unwrap().remove(&message.id);
        self.world.volumes.names.lock().unwrap().remove(&message.id.volume_name());
        Expired::Deleted
    }
}

impl Handler<RetireVolume> for PoolDouble {
    type Result = Expired;

    fn handle(&mut self, message: RetireVolume, _: &mut Self::Context) -> Expired {
        if self.world.store.rows.lock().unwrap()[&message.environment].volume_name == message.volume {
            return Expired::InUse;
        }
        self.world.volumes.names.lock().unwrap().remove(&message.volume);
        Expired::Deleted
    }
}

struct NoZombies;

impl Zombies for NoZombies {
    fn collect(&self) -> usize {
        0
    }
}

fn environment(n: u128, status: EnvironmentStatus) -> Environment {
    let request = SetUpRequest {
        main_module: "main.js".into(),
        modules: [("main.js".to_owned(), String::new())].into(),
        runtime: Runtime::Bun,
        dependencies: Dependencies::default(),
        permissions: Permissions::default(),
        secrets: Vec::new(),
        ttl_seconds: 100,
        limits: EnvironmentLimits::default(),
        isolation: Isolation::default(),
    };
    let made =
        request.environment(EnvironmentId(Uuid::from_u128(n)), TenantName::operator(), PausedClock::WALL_AT_START);
    Environment { status, ..made }
}

fn start(world: &World, holdings: PoolHoldings) -> Addr<Reaper> {
    tokio::time::pause();
    let pool = PoolDouble { world: world.clone(), holdings }.start();
    let (held, expire, retire) = (Handle::default(), Handle::default(), Handle::default());
    held.publish(&pool);
    expire.publish(&pool);
    retire.publish(&pool);
    let deps = Deps {
        engine: world.engine.clone(),
        volumes: world.volumes.clone(),
        packages: world.packages.clone(),
        keep_sets: KeepSets { fresh: Duration::from_secs(3600), unused: Duration::from_secs(60), bytes: 1 << 20 },
        store: world.store.clone(),
        clock: Arc::new(PausedClock::start()),
        zombies: Arc::new(NoZombies),
        holdings: held,
        expire,
        retire,
        interval: Duration::from_secs(300),
        idle_ttl_seconds: 0,
        keep_executions: Duration::from_secs(3600),
        log: Logger::root(slog::Discard, slog::o!()),
    };
    Reaper::new(deps, seat_alone()).start()
}

#[actix::test]
async fn orphans_of_every_kind_go_and_what_is_held_stays() {
    let world = World::default();
    let held = environment(1, EnvironmentStatus::SettingUp);
    let broken = environment(2, EnvironmentStatus::Deleting);
    world.store.rows.lock().unwrap().extend([(held.id, held.clone()), (broken.id, broken.clone())]);
    let orphan = EnvironmentId(Uuid::from_u128(3)).volume_name();
    world.volumes.names.lock().unwrap().extend([broken.volume_name.clone(), orphan]);
    let (live, dead) = (SlotId(Uuid::from_u128(10)), SlotId(Uuid::from_u128(11)));
    world.engine.live.lock().unwrap().extend([live, dead]);
    let reaper = start(&world, PoolHoldings { slots: vec![live], environments: vec![held.id] });
    let picture = reaper.send(Reconcile).await.unwrap();
    assert_eq!((picture.broken_records, picture.orphan_volumes, picture.orphan_slots), (1, 1, 1));
    assert_eq!(picture.last_failures, Vec::<String>::new());
    assert_eq!(world.store.rows.lock().unwrap().keys().copied().collect::<Vec<_>>(), [held.id]);
    assert!(world.volumes.names.lock().unwrap().is_empty());
    assert_eq!(world.engine.live.lock().unwrap().iter().copied().collect::<Vec<_>>(), [live]);
}

#[actix::test]
async fn volumes_of_older_revisions_go_by_way_of_the_pool() {
    let world = World::default();
    let first = environment(1, EnvironmentStatus::Ready);
    let second =
        Environment { volume_name: first.id.revised_volume_name(Uuid::from_u128(2)), revision: 2, ..first.clone() };
    world.store.rows.lock().unwrap().insert(first.id, second.clone());
    world.volumes.names.lock().unwrap().extend([first.volume_name.clone(), second.volume_name.clone()]);
    let reaper = start(&world, PoolHoldings::default());
    assert_eq!(reaper.send(Reconcile).await.unwrap().orphan_volumes, 1);
    assert_eq!(world.volumes.names.lock().unwrap().iter().cloned().collect::<Vec<_>>(), [second.volume_name]);
}

#[actix::test]
async fn an_environment_lives_its_time_and_is_collected_at_the_next_round() {
    let world = World::default();
    let short = environment(1, EnvironmentStatus::Ready);
    world.store.rows.lock().unwrap().insert(short.id, short.clone());
    world.volumes.names.lock().unwrap().insert(short.volume_name.clone());
    let reaper = start(&world, PoolHoldings::default());
    assert_eq!(reaper.send(Reconcile).await.unwrap().expired_environments, 0);
    tokio::time::sleep(Duration::from_secs(301)).await;
    assert_eq!(reaper.send(GetReaper).await.unwrap().expired_environments, 1);
    assert!(world.store.rows.lock().unwrap().is_empty());
}

#[actix::test]
async fn a_store_that_is_down_is_counted_and_tried_again() {
    let world = World::default();
    *world.store.down.lock().unwrap() = true;
    let reaper = start(&world, PoolHoldings::default());
    assert!(!reaper.send(Reconcile).await.unwrap().last_failures.is_empty());
    *world.store.down.lock().unwrap() = false;
    assert!(reaper.send(Reconcile).await.unwrap().last_failures.is_empty());
}

#[actix::test]
async fn packages_that_nobody_uses_are_collected_after_their_grace() {
    let world = World::default();
    world.packages.kept.lock().unwrap().insert("set".into(), PausedClock::WALL_AT_START);
    let reaper = start(&world, PoolHoldings::default());
    assert_eq!(reaper.send(Reconcile).await.unwrap().package_sets, 0);
    tokio::time::sleep(Duration::from_secs(301)).await;
    assert_eq!(reaper.send(GetReaper).await.unwrap().package_sets, 1);
    assert!(world.packages.kept.lock().unwrap().is_empty());
}
