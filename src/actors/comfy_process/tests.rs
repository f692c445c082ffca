//! One instance over doubles, under virtual time: what the engine is asked, who is answered, and how a life ends.

use std::time::Duration;

use super::*;
use crate::actors::doubles::comfy::{ComfyDouble, Engine, GpusDouble, comfy_job};
use crate::adapters::clock::PausedClock;
use crate::domain::instance::Standing;
use crate::domain::job::FailureCode;
use crate::domain::restart::{Exit, Generation};
use crate::messages::comfy_process::JobProgressed;
use crate::messages::supervisor::{Beat, ChildDown};

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

async fn pass(span: Duration) {
    tokio::time::sleep(span).await;
}

/// Stands where the Supervisor and the ingresses would.
#[derive(Default)]
struct Watch {
    complaints: Vec<String>,
    down: Option<Exit>,
    standings: Vec<Standing>,
    steps: usize,
}

impl Actor for Watch {
    type Context = Context<Self>;
}

impl Handler<Beat> for Watch {
    type Result = ();
    fn handle(&mut self, beat: Beat, _: &mut Self::Context) {
        self.complaints = beat.complaints;
    }
}

impl Handler<ChildDown> for Watch {
    type Result = ();
    fn handle(&mut self, down: ChildDown, _: &mut Self::Context) {
        self.down = Some(down.exit);
    }
}

impl Handler<InstanceStood> for Watch {
    type Result = ();
    fn handle(&mut self, stood: InstanceStood, _: &mut Self::Context) {
        if self.standings.last() != Some(&stood.standing) {
            self.standings.push(stood.standing);
        }
    }
}

impl Handler<JobProgressed> for Watch {
    type Result = ();
    fn handle(&mut self, _: JobProgressed, _: &mut Self::Context) {
        self.steps += 1;
    }
}

#[derive(Message)]
#[rtype(result = "(Vec<String>, Option<Exit>, Vec<Standing>, usize)")]
struct Seen;

impl Handler<Seen> for Watch {
    type Result = MessageResult<Seen>;
    fn handle(&mut self, _: Seen, _: &mut Self::Context) -> Self::Result {
        MessageResult((self.complaints.clone(), self.down, self.standings.clone(), self.steps))
    }
}

/// A handler that panics.
#[derive(Message)]
#[rtype(result = "()")]
struct Panic;

impl Handler<Panic> for ComfyProcess {
    type Result = ();
    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("as the test asked");
    }
}

thread_local! {
    /// Whether this test's clock stands still: it can be stopped once only, and a test may build several houses.
    static PAUSED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

struct House {
    comfy: Arc<ComfyDouble>,
    gpus: Arc<GpusDouble>,
    deps: Deps,
    watch: Addr<Watch>,
}

type Answer = Result<Result<ComfyReport, RunRefused>, MailboxError>;

impl House {
    fn new(change: impl FnOnce(&mut InstancePolicy)) -> Self {
        if !PAUSED.replace(true) {
            tokio::time::pause();
        }
        let (comfy, gpus, watch) =
            (Arc::<ComfyDouble>::default(), Arc::<GpusDouble>::default(), Watch::default().start());
        let mut policy = InstancePolicy { interrupt_grace: secs(5), ..InstancePolicy::default() };
        change(&mut policy);
        let ingress = Handle::default();
        ingress.publish(&watch);
        let deps = Deps {
            spec: InstanceSpec { name: "comfy-0", device: None, port: 8188 },
            engine: Arc::new(Engine(Arc::clone(&comfy))),
            gpus: gpus.clone(),
            clock: Arc::new(PausedClock::start()),
            policy,
            starts: Arc::new(Semaphore::new(1)),
            record: Arc::default(),
            ingresses: vec![ingress],
            log: Logger::root(slog::Discard, slog::o!()),
        };
        Self { comfy, gpus, deps, watch }
    }

    fn live(&self) -> Addr<ComfyProcess> {
        let seat = Seat::new(&self.watch, self.deps.spec.name, Generation(1), secs(1));
        ComfyProcess::new(self.deps.clone(), seat).start()
    }

    /// A life that stands ready.
    async fn ready(&self) -> Addr<ComfyProcess> {
        let instance = self.live();
        pass(secs(8)).await;
        assert_eq!(self.comfy.asked(), ["start"]);
        assert!(matches!(self.standing().await, Standing::Ready { .. }));
        instance
    }

    fn run(&self, instance: &Addr<ComfyProcess>, id: &str) -> impl Future<Output = Answer> + use<> {
        let progress = self.watch.clone().recipient();
        let sent = instance.send(RunJob { job: comfy_job(id), progress });
        let task = actix::spawn(sent);
        async move { task.await.unwrap() }
    }

    async fn standing(&self) -> Standing {
        self.watch.send(Seen).await.unwrap().2.last().unwrap().clone()
    }

    async fn complaints(&self) -> Vec<String> {
        self.watch.send(Seen).await.unwrap().0
    }

    async fn exit(&self) -> Option<Exit> {
        self.watch.send(Seen).await.unwrap().1
    }
}

fn code(answer: Answer) -> Option<FailureCode> {
    answer.unwrap().unwrap().failure.map(|failure| failure.code)
}

#[actix::test]
async fn a_job_is_run_its_progress_told_and_answered_before_it_is_swept() {
    let house = House::new(|_| {});
    house.comfy.turn(|knobs| knobs.clean_takes = secs(3));
    let instance = house.ready().await;
    let answer = house.run(&instance, "one");
    pass(secs(1)).await;
    assert_eq!(house.standing().await, Standing::Busy);
    assert!(matches!(house.run(&instance, "two").await, Ok(Err(RunRefused::Busy))));
    assert_eq!(code(answer.await), None);
    assert!(matches!(house.run(&instance, "two").await, Ok(Err(RunRefused::Busy))), "the sweep comes first");
    assert_eq!(house.comfy.asked(), ["run", "clean"]);
    let steps = house.watch.send(Seen).await.unwrap().3;
    assert!((18..=20).contains(&steps), "{steps} steps");
    pass(secs(4)).await;
    assert_eq!(house.standing().await, Standing::Ready { models: vec!["model.safetensors".into()] });
    assert_eq!(code(house.run(&instance, "two").await), None);
}

#[actix::test]
async fn a_start_of_five_minutes_is_waited_for_and_told() {
    let house = House::new(|_| {});
    house.comfy.turn(|knobs| knobs.ready_after = secs(300));
    let instance = house.live();
    pass(secs(60)).await;
    assert_eq!(house.complaints().await, ["starting (59 s)"]);
    assert!(matches!(house.run(&instance, "one").await, Ok(Err(RunRefused::NotReady))));
    assert_eq!(instance.send(GetInstance).await.unwrap().state, "starting");
    pass(secs(242)).await;
    assert!(matches!(house.standing().await, Standing::Ready { .. }));
    assert_eq!(house.complaints().await, Vec::<String>::new());
}

#[actix::test]
async fn a_start_that_hangs_anywhere_fails_and_is_swept() {
    for (in_spawn, ended_by) in [(true, "sweep"), (false, "stop 0")] {
        let house = House::new(|policy| policy.start_deadline = secs(100));
        house.comfy.turn(|knobs| (knobs.start_hangs, knobs.ready_hangs) = (in_spawn, true));
        let _instance = house.live();
        pass(secs(159)).await;
        assert_eq!(house.exit().await, None);
        pass(secs(2)).await;
        assert_eq!(house.comfy.asked(), ["start", ended_by]);
        assert_eq!(house.exit().await, Some(Exit::Crashed));
        assert!(matches!(house.standing().await, Standing::FailedStart { in_a_row: 1, .. }));
    }
}

#[actix::test]
async fn failed_starts_are_counted_over_lives_until_one_succeeds() {
    let house = House::new(|_| {});
    house.comfy.turn(|knobs| knobs.ready_fails = true);
    for failed in 1..=3 {
        let _instance = house.live();
        pass(secs(8)).await;
        let Standing::FailedStart { in_a_row, reason } = house.standing().await else { panic!("it failed") };
        assert_eq!((in_a_row, reason.as_str()), (failed, "ComfyUI ended before it was ready (exit code 1): no CUDA"));
        assert_eq!(house.comfy.asked(), ["start", "stop 0"]);
    }
    house.comfy.turn(|knobs| (knobs.ready_fails, knobs.start_fails) = (false, true));
    let _instance = house.live();
    pass(secs(1)).await;
    assert!(matches!(house.standing().await, Standing::FailedStart { in_a_row: 4, .. }));
    house.comfy.asked();
    house.comfy.turn(|knobs| knobs.start_fails = false);
    house.ready().await;
    assert_eq!(*house.deps.record.lock().unwrap(), StartRecord::default());
}

#[actix::test]
async fn instances_load_one_after_the_other_where_one_at_a_time_is_asked() {
    let house = House::new(|_| {});
    let (first, second) = (house.live(), house.live());
    pass(secs(6)).await;
    assert_eq!(house.comfy.asked(), ["start"]);
    assert_eq!(second.send(GetInstance).await.unwrap().complaints, ["it waits for its turn to start"]);
    pass(secs(3)).await;
    assert_eq!(house.comfy.asked(), ["start"]);
    assert_eq!(first.send(GetInstance).await.unwrap().state, "ready");
    pass(secs(7)).await;
    assert_eq!(second.send(GetInstance).await.unwrap().state, "ready");
}

#[actix::test]
async fn a_cancelled_job_is_interrupted_and_another_ones_cancel_changes_nothing() {
    let house = House::new(|_| {});
    let instance = house.ready().await;
    let answer = house.run(&instance, "one");
    pass(secs(2)).await;
    instance.send(InterruptJob { job: "other".parse().unwrap() }).await.unwrap();
    pass(secs(1)).await;
    assert_eq!(house.comfy.asked(), ["run"]);
    instance.send(InterruptJob { job: "one".parse().unwrap() }).await.unwrap();
    assert_eq!(code(answer.await), Some(FailureCode::Interrupted));
    pass(secs(1)).await;
    assert_eq!(house.comfy.asked(), ["interrupt", "clean"]);
    assert!(matches!(house.standing().await, Standing::Ready { .. }));
}

#[actix::test]
async fn a_cancel_in_the_very_moment_of_the_end_gives_one_answer() {
    let house = House::new(|_| {});
    let instance = house.ready().await;
    for millis in [19_999, 20_000, 20_001] {
        let answer = house.run(&instance, "one");
        pass(Duration::from_millis(millis)).await;
        instance.send(InterruptJob { job: "one".parse().unwrap() }).await.unwrap();
        let code = code(answer.await);
        assert!(code.is_none() || code == Some(FailureCode::Interrupted), "{code:?}");
        pass(secs(1)).await;
        assert!(matches!(house.standing().await, Standing::Ready { .. }));
    }
}

#[actix::test]
async fn a_job_that_hears_no_interrupt_costs_its_process_and_is_settled_as_what_it_was() {
    for hears_abort in [true, false] {
        for (no_progress, expected) in [(secs(30), FailureCode::Hang), (secs(999), FailureCode::Timeout)] {
            let house = House::new(|policy| (policy.no_progress, policy.job_deadline) = (no_progress, secs(60)));
            house.comfy.turn(|knobs| {
                (knobs.run_takes, knobs.step_every) = (secs(9999), secs(9999));
                (knobs.hears_interrupt, knobs.hears_abort) = (false, hears_abort);
            });
            let instance = house.ready().await;
            assert_eq!(code(house.run(&instance, "one").await), Some(expected));
            pass(secs(1)).await;
            assert_eq!(house.comfy.asked(), ["run", "interrupt", "abort", "stop 0"]);
            assert_eq!(house.exit().await, Some(Exit::Recycled));
        }
    }
}

#[actix::test]
async fn slow_work_with_progress_is_left_alone() {
    let house = House::new(|policy| policy.no_progress = secs(30));
    house.comfy.turn(|knobs| (knobs.run_takes, knobs.step_every) = (secs(1000), secs(25)));
    let instance = house.ready().await;
    assert_eq!(code(house.run(&instance, "one").await), None);
    assert_eq!(house.comfy.asked(), ["run", "clean"]);
}

#[actix::test]
async fn a_frozen_process_is_ended_whether_it_works_or_waits() {
    let house = House::new(|_| {});
    let idle = house.ready().await;
    house.comfy.turn(|knobs| knobs.answers = false);
    pass(secs(50)).await;
    assert_eq!((house.comfy.asked(), house.exit().await), (vec!["stop 10".to_owned()], Some(Exit::Crashed)));
    assert!(!idle.connected());

    let house = House::new(|_| {});
    let busy = house.ready().await;
    house.comfy.turn(|knobs| {
        (knobs.run_takes, knobs.step_every) = (secs(9999), secs(9999));
        (knobs.hears_abort, knobs.answers) = (false, false);
    });
    assert_eq!(code(house.run(&busy, "one").await), Some(FailureCode::Hang));
    assert_eq!(house.comfy.asked(), ["run", "abort", "stop 0"], "who hears nothing is not asked");
}

#[actix::test]
async fn a_crash_at_every_step_answers_once_and_ends_the_life() {
    let house = House::new(|_| {});
    let _idle = house.ready().await;
    house.comfy.kill("signal 11 (SIGSEGV)");
    pass(secs(1)).await;
    assert_eq!((house.comfy.asked(), house.exit().await), (vec!["stop 10".to_owned()], Some(Exit::Crashed)));
    let failure = house.deps.record.lock().unwrap().last_failure.clone();
    assert_eq!(failure.as_deref(), Some("ComfyUI ended (signal 11 (SIGSEGV))"));

    for millis in [0, 1, 500, 19_999, 20_000, 20_001, 20_400] {
        let house = House::new(|_| {});
        let instance = house.ready().await;
        let answer = house.run(&instance, "one");
        pass(Duration::from_millis(millis)).await;
        house.comfy.kill("exit code 3");
        let code = code(answer.await);
        assert!(code.is_none() || code == Some(FailureCode::Crashed), "{code:?}");
        pass(secs(1)).await;
        // Under a job, and while it is swept away.
        assert_eq!(house.exit().await, Some(Exit::Recycled), "after {millis} ms");
        assert!(house.comfy.asked().last().unwrap().starts_with("stop"));
    }
}

#[actix::test]
async fn a_wedged_process_gets_no_work_and_no_second_one_beside_it() {
    let house = House::new(|_| {});
    let instance = house.ready().await;
    house.comfy.turn(|knobs| (knobs.failing_stops, knobs.run_takes) = (3, secs(9999)));
    let answer = house.run(&instance, "one");
    pass(secs(1)).await;
    house.comfy.kill("signal 9 (SIGKILL)");
    assert_eq!(code(answer.await), Some(FailureCode::Crashed));
    pass(secs(5)).await;
    assert_eq!(
        house.standing().await,
        Standing::Down { reason: "wedged: ending ComfyUI failed: a process survives KILL".into() }
    );
    assert_eq!(house.complaints().await, ["wedged: ending ComfyUI failed: a process survives KILL"]);
    assert!(matches!(house.run(&instance, "two").await, Ok(Err(RunRefused::NotReady))));
    assert_eq!(instance.send(GetInstance).await.unwrap().state, "wedged");
    pass(secs(100)).await;
    assert_eq!(house.comfy.asked(), ["run", "stop 0", "stop 0", "stop 0", "stop 0"]);
    assert_eq!(house.exit().await, Some(Exit::Recycled));
}

#[actix::test]
async fn a_worn_process_is_replaced_after_its_job() {
    for (jobs, above, memory, replaced) in
        [(Some(1), None, 0, true), (None, Some(1 << 30), 2 << 30, true), (None, Some(3 << 30), 2 << 30, false)]
    {
        let house = House::new(|policy| (policy.recycle_after_jobs, policy.recycle_above) = (jobs, above));
        house.comfy.turn(|knobs| knobs.memory = memory);
        let instance = house.ready().await;
        assert_eq!(code(house.run(&instance, "one").await), None);
        pass(secs(2)).await;
        assert_eq!(house.exit().await, replaced.then_some(Exit::Recycled));
        let expected: &[&str] = if replaced { &["run", "clean", "stop 10"] } else { &["run", "clean"] };
        assert_eq!(house.comfy.asked(), expected);
    }
}

#[actix::test]
async fn what_cannot_be_swept_away_goes_with_its_process() {
    for hangs in [true, false] {
        let house = House::new(|_| {});
        house.comfy.turn(|knobs| {
            knobs.clean_fails = true;
            knobs.clean_takes = if hangs { secs(9999) } else { secs(1) };
        });
        let instance = house.ready().await;
        assert_eq!(code(house.run(&instance, "one").await), None);
        pass(secs(31)).await;
        assert_eq!(house.comfy.asked(), ["run", "clean", "stop 10"]);
        assert_eq!(house.exit().await, Some(Exit::Recycled));
    }
}

#[actix::test]
async fn a_drain_stops_an_instance_that_starts_or_waits_at_once() {
    for (after, asked) in [(2, vec!["start", "stop 10"]), (9, vec!["start", "stop 10"])] {
        let house = House::new(|_| {});
        let instance = house.live();
        pass(secs(after)).await;
        instance.send(Drain { hurry: false }).await.unwrap();
        pass(secs(1)).await;
        assert_eq!(house.exit().await, Some(Exit::Requested));
        assert_eq!(house.comfy.asked(), asked);
        pass(secs(60)).await;
        assert_eq!(house.comfy.asked(), Vec::<String>::new());
    }
    let house = House::new(|_| {});
    house.comfy.turn(|knobs| knobs.start_hangs = true);
    let instance = house.live();
    pass(secs(1)).await;
    instance.send(Drain { hurry: false }).await.unwrap();
    pass(secs(1)).await;
    assert_eq!(
        (house.comfy.asked(), house.exit().await),
        (vec!["start".into(), "sweep".into()], Some(Exit::Requested))
    );
}

#[actix::test]
async fn a_drain_lets_a_job_finish_and_a_hurried_one_interrupts_it() {
    let house = House::new(|_| {});
    let instance = house.ready().await;
    let answer = house.run(&instance, "one");
    pass(secs(1)).await;
    instance.send(Drain { hurry: false }).await.unwrap();
    assert_eq!(code(answer.await), None);
    pass(secs(1)).await;
    assert_eq!(
        (house.comfy.asked(), house.exit().await),
        (vec!["run".into(), "stop 10".into()], Some(Exit::Requested))
    );

    for hears in [true, false] {
        let house = House::new(|_| {});
        house.comfy.turn(|knobs| (knobs.hears_interrupt, knobs.run_takes) = (hears, secs(9999)));
        let instance = house.ready().await;
        let answer = house.run(&instance, "one");
        pass(secs(1)).await;
        instance.send(Drain { hurry: true }).await.unwrap();
        assert_eq!(code(answer.await), Some(FailureCode::Interrupted));
        pass(secs(1)).await;
        let stop = if hears { "stop 10" } else { "stop 2" };
        assert_eq!(house.comfy.asked(), ["run", "interrupt", stop]);
        assert_eq!(house.exit().await, Some(Exit::Requested));
    }
}

#[actix::test]
async fn a_panic_answers_the_job_in_hand_and_tells_of_the_fall() {
    let house = House::new(|_| {});
    let instance = house.ready().await;
    let answer = house.run(&instance, "one");
    pass(secs(1)).await;
    assert!(instance.send(Panic).await.is_err());
    assert_eq!(code(answer.await), Some(FailureCode::Crashed));
    pass(secs(1)).await;
    assert_eq!(house.exit().await, Some(Exit::Crashed));
    house.comfy.asked();
    house.comfy.turn(|knobs| knobs.run_panics = true);
    let again = house.ready().await;
    assert_eq!(code(house.run(&again, "two").await), Some(FailureCode::Crashed));
}

#[actix::test]
async fn an_unfit_gpu_keeps_its_instance_down_until_it_is_fit_again() {
    let house = House::new(|_| {});
    house.gpus.show(Some("it fell off the bus"), 0);
    let instance = house.live();
    pass(secs(60)).await;
    assert_eq!(house.comfy.asked(), Vec::<String>::new());
    assert_eq!(house.complaints().await, ["GPU 0 is not fit for work: it fell off the bus"]);
    assert_eq!(instance.send(GetInstance).await.unwrap().state, "held");
    house.gpus.show(None, 0);
    pass(secs(15)).await;
    assert!(matches!(house.standing().await, Standing::Ready { .. }));
    house.gpus.show(Some("it is lost"), 0);
    pass(secs(6)).await;
    assert_eq!(
        (house.comfy.asked(), house.exit().await),
        (vec!["start".into(), "stop 10".into()], Some(Exit::Recycled))
    );
}

#[actix::test]
async fn an_error_that_a_restart_cures_waits_for_the_job_and_then_replaces_the_process() {
    let house = House::new(|_| {});
    house.gpus.show(None, 3);
    let instance = house.ready().await;
    let answer = house.run(&instance, "one");
    pass(secs(1)).await;
    house.gpus.show(None, 4);
    assert_eq!(code(answer.await), None);
    pass(secs(2)).await;
    assert_eq!(house.comfy.asked(), ["run", "clean", "stop 10"]);
    assert_eq!(house.exit().await, Some(Exit::Recycled));
}

#[actix::test]
async fn a_driver_that_is_slow_once_holds_nothing_and_one_that_hangs_does() {
    let house = House::new(|_| {});
    let _instance = house.ready().await;
    let unwell = crate::ports::gpu::GpuPicture::Unwell("no answer within 5 s".into());
    *house.gpus.0.lock().unwrap() = unwell;
    pass(secs(9)).await;
    assert!(matches!(house.standing().await, Standing::Ready { .. }));
    pass(secs(10)).await;
    assert_eq!(house.exit().await, Some(Exit::Recycled));
}

#[actix::test]
async fn an_ingress_that_comes_later_hears_of_the_standing_with_the_next_beat() {
    let mut house = House::new(|_| {});
    let late = Handle::default();
    house.deps.ingresses.push(late.clone());
    let _instance = house.ready().await;
    let ingress = Watch::default().start();
    late.publish(&ingress);
    pass(secs(2)).await;
    assert_eq!(ingress.send(Seen).await.unwrap().2, [Standing::Ready { models: Vec::new() }]);
}
