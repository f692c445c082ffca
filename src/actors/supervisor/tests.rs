//! Real children under virtual time: they panic, hang, loop and storm, and the Supervisor answers each.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::adapters::clock::PausedClock;
use crate::domain::health::PartState;

/// What a test child does with its life.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nature {
    Good,
    PanicsAtStart,
    PanicsInHandler,
    NeverBeats,
    Complains,
    IgnoresDrain,
    Recycles,
}

struct TestChild {
    seat: Seat,
    nature: Nature,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Provoke;

impl Actor for TestChild {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        assert!(self.nature != Nature::PanicsAtStart, "this child panics as it starts");
        if self.nature == Nature::NeverBeats {
            return;
        }
        let complaints =
            if self.nature == Nature::Complains { vec!["no sandboxes here".to_owned()] } else { Vec::new() };
        self.seat.beat(complaints.clone());
        ctx.run_interval(self.seat.beat_every(), move |child, _| child.seat.beat(complaints.clone()));
    }
}

impl Handler<Provoke> for TestChild {
    type Result = ();

    fn handle(&mut self, _: Provoke, ctx: &mut Self::Context) {
        if self.nature == Nature::Recycles {
            self.seat.recycle();
            ctx.stop();
        }
        assert!(self.nature != Nature::PanicsInHandler, "this child panics in a handler");
    }
}

impl Handler<Drain> for TestChild {
    type Result = ();

    fn handle(&mut self, drain: Drain, ctx: &mut Self::Context) {
        if self.nature == Nature::IgnoresDrain && !drain.hurry {
            return;
        }
        self.seat.leave();
        ctx.stop();
    }
}

/// Counts what it is told and fed.
#[derive(Default)]
struct Watchdog {
    ready: AtomicUsize,
    fed: AtomicUsize,
}

impl ServiceNotifier for Watchdog {
    fn ready(&self) {
        self.ready.fetch_add(1, Ordering::Relaxed);
    }
    fn status(&self, _: &str) {}
    fn watchdog(&self) {
        self.fed.fetch_add(1, Ordering::Relaxed);
    }
    fn stopping(&self) {}
}

/// The children of one test: every life is noted, the newest can be provoked, natures can be changed.
#[derive(Clone)]
struct Nursery {
    lives: Rc<RefCell<Vec<ChildName>>>,
    newest: Rc<RefCell<HashMap<ChildName, Addr<TestChild>>>>,
    nature: Rc<Cell<Nature>>,
}

impl Nursery {
    fn new(nature: Nature) -> Self {
        Self { lives: Rc::default(), newest: Rc::default(), nature: Rc::new(Cell::new(nature)) }
    }

    fn spec(&self, name: ChildName, essential: bool) -> ChildSpec {
        let nursery = self.clone();
        let start = move |seat| {
            nursery.lives.borrow_mut().push(name);
            let address = TestChild { seat, nature: nursery.nature.get() }.start();
            nursery.newest.borrow_mut().insert(name, address.clone());
            RunningChild { drain: address.recipient(), dismiss: Box::new(|| {}) }
        };
        ChildSpec { name, essential, start: Box::new(start) }
    }

    fn lives(&self) -> usize {
        self.lives.borrow().len()
    }

    async fn provoke(&self, name: ChildName) {
        let address = self.newest.borrow()[name].clone();
        assert!(address.send(Provoke).await.is_err(), "the child was to panic");
    }
}

fn supervise(specs: Vec<ChildSpec>) -> (Addr<Supervisor>, oneshot::Receiver<Ended>) {
    supervise_watched(specs, Arc::default())
}

fn supervise_watched(specs: Vec<ChildSpec>, watchdog: Arc<Watchdog>) -> (Addr<Supervisor>, oneshot::Receiver<Ended>) {
    tokio::time::pause();
    let deps = Deps {
        policy: RestartPolicy { jitter: 0.0, ..RestartPolicy::default() },
        beat_every: Duration::from_secs(1),
        clock: Arc::new(PausedClock::start()),
        notifier: watchdog,
        warnings: Vec::new(),
        off: Vec::new(),
        log: Logger::root(slog::Discard, slog::o!()),
        seed: 1,
    };
    let (supervisor, ended) = Supervisor::new(deps, specs);
    (supervisor.start(), ended)
}

async fn health(supervisor: &Addr<Supervisor>) -> HealthPicture {
    supervisor.send(GetHealth).await.unwrap()
}

async fn pass(span: Duration) {
    tokio::time::sleep(span).await;
}

#[actix::test]
async fn a_panic_in_a_handler_brings_a_new_life_after_the_wait() {
    let nursery = Nursery::new(Nature::PanicsInHandler);
    let (supervisor, _ended) = supervise(vec![nursery.spec("a", true)]);
    pass(Duration::from_millis(10)).await;
    assert!(health(&supervisor).await.ready);
    nursery.provoke("a").await;
    pass(Duration::from_millis(10)).await;
    let down = health(&supervisor).await;
    assert!(!down.ready && down.parts[0].state == PartState::Restarting);
    pass(Duration::from_millis(600)).await;
    assert_eq!(nursery.lives(), 2);
    assert!(health(&supervisor).await.ready);
}

#[actix::test]
async fn a_panic_at_start_loops_is_named_and_ends_the_daemon_when_essential() {
    let nursery = Nursery::new(Nature::PanicsAtStart);
    let (supervisor, ended) = supervise(vec![nursery.spec("a", true)]);
    pass(Duration::from_secs(30)).await;
    let looping = health(&supervisor).await;
    assert_eq!(looping.parts[0].state, PartState::CrashLoop);
    assert!(!looping.ready);
    assert_eq!(ended.await, Ok(Ended::GaveUp("a")));
    assert_eq!(nursery.lives(), 9, "five waits, three at the longest, then no more");
}

#[actix::test]
async fn a_child_that_is_not_essential_is_given_up_and_named_while_the_rest_lives() {
    let bad = Nursery::new(Nature::PanicsAtStart);
    let good = Nursery::new(Nature::Good);
    let (supervisor, _ended) = supervise(vec![good.spec("good", true), bad.spec("bad", false)]);
    pass(Duration::from_secs(600)).await;
    let picture = health(&supervisor).await;
    assert!(picture.ready && picture.live);
    assert_eq!(picture.parts[1].reasons, ["given up: it crashed"]);
    assert_eq!((good.lives(), bad.lives()), (1, 9));
}

#[actix::test]
async fn a_hung_child_is_replaced() {
    let nursery = Nursery::new(Nature::NeverBeats);
    let (supervisor, _ended) = supervise(vec![nursery.spec("a", true)]);
    pass(Duration::from_secs(14)).await;
    assert_eq!(nursery.lives(), 1);
    nursery.nature.set(Nature::Good);
    pass(Duration::from_secs(5)).await;
    assert_eq!(nursery.lives(), 2);
    assert!(health(&supervisor).await.ready);
}

#[actix::test]
async fn a_hung_child_is_replaced_however_often_others_beat() {
    let (hung, good) = (Nursery::new(Nature::NeverBeats), Nursery::new(Nature::Good));
    let (_supervisor, _ended) = supervise(vec![good.spec("good", true), hung.spec("hung", false)]);
    pass(Duration::from_secs(20)).await;
    assert_eq!((good.lives(), hung.lives()), (1, 2));
}

#[actix::test]
async fn the_watchdog_is_fed_each_second_while_all_beat() {
    let (nursery, watchdog) = (Nursery::new(Nature::Good), Arc::new(Watchdog::default()));
    let (_supervisor, _ended) =
        supervise_watched(vec![nursery.spec("a", true), nursery.spec("b", true)], Arc::clone(&watchdog));
    pass(Duration::from_secs(60)).await;
    let fed = watchdog.fed.load(Ordering::Relaxed);
    assert!((58..=61).contains(&fed), "fed {fed} times");
}

#[actix::test]
async fn the_service_manager_hears_of_the_start_once_even_where_no_work_is_taken() {
    let (nursery, watchdog) = (Nursery::new(Nature::Complains), Arc::new(Watchdog::default()));
    let (supervisor, _ended) = supervise_watched(vec![nursery.spec("a", true)], Arc::clone(&watchdog));
    pass(Duration::from_secs(5)).await;
    assert!(!health(&supervisor).await.ready);
    assert_eq!(watchdog.ready.load(Ordering::Relaxed), 1);
}

#[actix::test]
async fn a_storm_of_falls_is_restarted_a_few_at_a_time() {
    let nursery = Nursery::new(Nature::PanicsInHandler);
    let names = ["a", "b", "c", "d", "e", "f"];
    let (supervisor, _ended) = supervise(names.iter().map(|name| nursery.spec(name, true)).collect());
    pass(Duration::from_secs(2)).await;
    assert!(health(&supervisor).await.ready);
    for name in names {
        nursery.provoke(name).await;
    }
    nursery.nature.set(Nature::NeverBeats);
    pass(Duration::from_secs(5)).await;
    assert_eq!(nursery.lives(), names.len() + 2, "no more than two between start and first beat");
    nursery.nature.set(Nature::Good);
    pass(Duration::from_secs(120)).await;
    assert!(health(&supervisor).await.ready);
}

#[actix::test]
async fn a_stop_during_a_restarts_wait_starts_nothing_more() {
    let nursery = Nursery::new(Nature::PanicsInHandler);
    let (supervisor, ended) = supervise(vec![nursery.spec("a", true)]);
    pass(Duration::from_millis(10)).await;
    nursery.provoke("a").await;
    supervisor.send(Shutdown { hurry: false }).await.unwrap();
    assert_eq!(ended.await, Ok(Ended::Drained { in_time: true }));
    pass(Duration::from_secs(120)).await;
    assert_eq!(nursery.lives(), 1);
}

#[actix::test]
async fn a_drain_that_takes_too_long_is_hurried() {
    let nursery = Nursery::new(Nature::IgnoresDrain);
    let (supervisor, ended) = supervise(vec![nursery.spec("a", true)]);
    pass(Duration::from_millis(10)).await;
    supervisor.send(Shutdown { hurry: false }).await.unwrap();
    pass(Duration::from_secs(29)).await;
    assert!(health(&supervisor).await.draining);
    assert_eq!(ended.await, Ok(Ended::Drained { in_time: true }));
}

#[actix::test]
async fn a_child_that_recycles_itself_is_back_at_once_however_often() {
    let nursery = Nursery::new(Nature::Recycles);
    let (supervisor, _ended) = supervise(vec![nursery.spec("a", true)]);
    for life in 1..=12 {
        pass(Duration::from_secs(11)).await;
        assert_eq!(nursery.lives(), life);
        let address = nursery.newest.borrow()["a"].clone();
        address.send(Provoke).await.unwrap();
        pass(Duration::from_millis(10)).await;
        assert!(health(&supervisor).await.ready);
    }
}

#[actix::test]
async fn an_abandoned_daemon_drains_and_ends_as_one_that_failed() {
    let nursery = Nursery::new(Nature::Good);
    let (supervisor, ended) = supervise(vec![nursery.spec("a", true)]);
    pass(Duration::from_millis(10)).await;
    supervisor.send(Abandon { reason: "ComfyUI never starts".into() }).await.unwrap();
    assert!(health(&supervisor).await.draining);
    assert_eq!(ended.await, Ok(Ended::Abandoned));
}

#[actix::test]
async fn a_daemon_that_is_told_to_stop_first_ends_as_it_was_told() {
    let nursery = Nursery::new(Nature::IgnoresDrain);
    let (supervisor, ended) = supervise(vec![nursery.spec("a", true)]);
    pass(Duration::from_millis(10)).await;
    supervisor.send(Shutdown { hurry: false }).await.unwrap();
    supervisor.send(Abandon { reason: "too late".into() }).await.unwrap();
    supervisor.send(Shutdown { hurry: true }).await.unwrap();
    assert_eq!(ended.await, Ok(Ended::Drained { in_time: true }));
}
