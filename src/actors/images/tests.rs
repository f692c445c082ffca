//! The actor over a store and trials that are told what to do, under virtual time.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::*;
use crate::actors::doubles::parent::{Parent, Told, seat};
use crate::adapters::clock::PausedClock;
use crate::domain::pool::PoolPicture;
use crate::domain::restart::Exit;
use crate::ports::images::{FoundImage, RuntimeRoot};

const BUN: Runtime = Runtime::Bun;

fn digest(fill: u8) -> Digest {
    Digest::of_bytes(&[fill; 32])
}

/// A store with one image, and trials that fail or wait where they are told to.
#[derive(Default)]
struct World {
    serving: Mutex<Option<Digest>>,
    offered: Mutex<Option<Digest>>,
    tried: Mutex<Vec<PathBuf>>,
    failing: Mutex<Option<TrialError>>,
    held: Mutex<bool>,
    begun: Notify,
    cut: Arc<Mutex<u32>>,
    sweeps: Mutex<u32>,
}

struct Cut(Arc<Mutex<u32>>);

impl Drop for Cut {
    fn drop(&mut self) {
        *self.0.lock().unwrap() += 1;
    }
}

#[async_trait]
impl ImageStore for World {
    fn runtimes(&self) -> Vec<(Runtime, Option<Digest>)> {
        vec![(BUN, self.serving.lock().unwrap().clone())]
    }

    async fn find(&self, _: Runtime) -> Result<FoundImage, ImageError> {
        let away = || ImageError::Away { source_name: "r.example/bun:1".into(), source: "it is away".into() };
        let digest = self.offered.lock().unwrap().clone().ok_or_else(away)?;
        Ok(FoundImage { digest, stale: None })
    }

    async fn root(&self, _: Runtime, digest: &Digest) -> Result<RuntimeRoot, ImageError> {
        Ok(RuntimeRoot { rootfs: digest.short().into(), program: "/bin/bun".into(), version: "1".into() })
    }

    async fn serve(&self, _: Runtime, digest: &Digest) -> Result<(), ImageError> {
        *self.serving.lock().unwrap() = Some(digest.clone());
        Ok(())
    }
}

#[async_trait]
impl ImageTrials for World {
    async fn sweep(&self) {
        *self.sweeps.lock().unwrap() += 1;
    }

    async fn attempt(&self, _: Runtime, root: RuntimeRoot) -> Result<Duration, TrialError> {
        self.tried.lock().unwrap().push(root.rootfs);
        self.begun.notify_one();
        if *self.held.lock().unwrap() {
            let _cut = Cut(Arc::clone(&self.cut));
            std::future::pending::<()>().await;
        }
        self.failing.lock().unwrap().take().map_or(Ok(Duration::from_millis(300)), Err)
    }
}

/// A pool with calls that boot.
struct BusyPool(usize);

impl Actor for BusyPool {
    type Context = Context<Self>;
}

impl Handler<GetPool> for BusyPool {
    type Result = MessageResult<GetPool>;

    fn handle(&mut self, _: GetPool, _: &mut Self::Context) -> Self::Result {
        MessageResult(PoolPicture { booting: self.0, ..PoolPicture::default() })
    }
}

/// Images that a pool was told, each beside what served in the store by then.
type Heard = Arc<Mutex<Vec<(Digest, Option<Digest>)>>>;

/// A pool that notes what it is told.
struct Listener(Arc<World>, Heard);

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<ImageServes> for Listener {
    type Result = ();

    fn handle(&mut self, told: ImageServes, _: &mut Self::Context) {
        let serving = self.0.serving.lock().unwrap().clone();
        self.1.lock().unwrap().push((told.image, serving));
    }
}

fn start(world: &Arc<World>, parent: &Addr<Parent>, soak: u32) -> Addr<Images> {
    start_with(parent, deps(world, soak))
}

fn start_with(parent: &Addr<Parent>, deps: Deps) -> Addr<Images> {
    Images::new(deps, seat(parent, "images")).start()
}

fn deps(world: &Arc<World>, soak: u32) -> Deps {
    Deps {
        store: Arc::clone(world) as _,
        trials: Arc::clone(world) as _,
        pool: Handle::default(),
        serves: Handle::default(),
        clock: Arc::new(PausedClock::start()),
        soak,
        log: Logger::root(slog::Discard, slog::o!()),
    }
}

fn world(serving: Option<u8>, offered: Option<u8>) -> (Arc<World>, Addr<Parent>) {
    tokio::time::pause();
    let world = World {
        serving: Mutex::new(serving.map(digest)),
        offered: Mutex::new(offered.map(digest)),
        ..World::default()
    };
    (Arc::new(world), Parent::default().start())
}

async fn after(span: Duration) {
    tokio::time::sleep(span).await;
}

#[actix::test]
async fn a_new_image_serves_after_its_starts_and_not_before() {
    let (world, parent) = world(Some(1), Some(2));
    let images = start(&world, &parent, 10);
    after(Duration::from_millis(1500)).await;
    assert_eq!(*world.serving.lock().unwrap(), Some(digest(1)));
    let tried = world.tried.lock().unwrap().len();
    assert!((3..8).contains(&tried), "a start rests as long as it took: {tried}");
    let complaints = parent.send(Told).await.unwrap().complaints;
    assert!(complaints[0].contains("of 10 starts; 010101010101 serves until then"), "{complaints:?}");
    after(Duration::from_secs(5)).await;
    assert_eq!(*world.serving.lock().unwrap(), Some(digest(2)));
    assert_eq!(world.tried.lock().unwrap().len(), 10);
    let picture = images.send(GetImages).await.unwrap().remove(0);
    assert_eq!((picture.serving, picture.on_trial, picture.problem), (Some(digest(2).to_string()), None, None));
    assert_eq!(parent.send(Told).await.unwrap().complaints, [""; 0]);
}

#[actix::test]
async fn an_image_that_fails_does_not_serve_and_a_disturbed_start_is_tried_again() {
    let (world, parent) = world(Some(1), Some(2));
    *world.failing.lock().unwrap() = Some(TrialError::Host("no room".into()));
    let images = start(&world, &parent, 3);
    after(Duration::from_millis(500)).await;
    assert!(images.send(GetImages).await.unwrap()[0].problem.as_ref().is_some_and(|told| told.contains("no room")));
    *world.failing.lock().unwrap() = Some(TrialError::Image("it died".into()));
    after(Duration::from_secs(5)).await;
    assert_eq!((world.tried.lock().unwrap().len(), world.serving.lock().unwrap().clone()), (2, Some(digest(1))));
    let complaints = parent.send(Told).await.unwrap().complaints;
    assert_eq!(complaints, ["bun: image 020202020202 failed at start 1 of 3 (it died); 010101010101 serves on"]);
    images.send(CheckImages).await.unwrap();
    after(Duration::from_secs(5)).await;
    assert_eq!(*world.serving.lock().unwrap(), Some(digest(2)), "asked again, it passed");
}

#[actix::test]
async fn an_image_that_is_away_is_looked_for_until_it_is_there() {
    let (world, parent) = world(None, None);
    let _images = start(&world, &parent, 3);
    after(Duration::from_millis(1500)).await;
    let complaints = parent.send(Told).await.unwrap().complaints;
    assert_eq!(complaints, ["bun: the image r.example/bun:1 cannot be fetched: it is away"]);
    *world.offered.lock().unwrap() = Some(digest(3));
    after(Duration::from_secs(31)).await;
    assert_eq!(*world.serving.lock().unwrap(), Some(digest(3)));
}

#[actix::test]
async fn calls_go_before_trials_and_trials_go_on_all_the_same() {
    let (world, parent) = world(Some(1), Some(2));
    let pool = Handle::default();
    pool.publish(&BusyPool(1).start());
    let _images = start_with(&parent, Deps { pool: pool.clone(), ..deps(&world, 3) });
    after(Duration::from_secs(20)).await;
    assert_eq!(world.tried.lock().unwrap().len(), 0);
    after(Duration::from_secs(20)).await;
    assert_eq!(world.tried.lock().unwrap().len(), 1, "it has waited long enough");
    pool.publish(&BusyPool(0).start());
    after(Duration::from_secs(40)).await;
    assert_eq!(*world.serving.lock().unwrap(), Some(digest(2)));
}

#[actix::test]
async fn the_pool_is_told_what_serves_once_it_does_and_again_with_each_beat() {
    let (world, parent) = world(Some(1), Some(2));
    let (serves, told) = (Handle::default(), Heard::default());
    serves.publish(&Listener(Arc::clone(&world), Arc::clone(&told)).start());
    let _images = start_with(&parent, Deps { serves: serves.clone(), ..deps(&world, 3) });
    after(Duration::from_secs(5)).await;
    let first = std::mem::take(&mut *told.lock().unwrap());
    assert_eq!(first.first(), Some(&(digest(1), Some(digest(1)))));
    assert_eq!(first.last(), Some(&(digest(2), Some(digest(2)))));
    assert!(
        first.iter().all(|(image, serving)| *image == digest(1) || *serving == Some(digest(2))),
        "not before it does"
    );
    // Another life of the pool knows nothing.
    serves.publish(&Listener(Arc::clone(&world), Arc::clone(&told)).start());
    after(Duration::from_millis(1500)).await;
    assert!(told.lock().unwrap().contains(&(digest(2), Some(digest(2)))));
}

#[actix::test]
async fn a_drain_cuts_a_trial_off_and_sweeps_what_it_left() {
    let (world, parent) = world(Some(1), Some(2));
    *world.held.lock().unwrap() = true;
    let images = start(&world, &parent, 3);
    world.begun.notified().await;
    images.send(Drain { hurry: false }).await.unwrap();
    after(Duration::from_millis(10)).await;
    assert_eq!(parent.send(Told).await.unwrap().exits, [Exit::Requested]);
    assert_eq!((*world.cut.lock().unwrap(), *world.sweeps.lock().unwrap()), (1, 2));
}
