//! A platform, a Crypto, instances, a pool and a bucket that do as they are told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::prelude::*;
use async_trait::async_trait;
use slog::Logger;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::actors::queue_ingress::{Deps, Instance, QueueIngress, Settings};
use crate::actors::seat::Seat;
use crate::adapters::clock::PausedClock;
use crate::domain::admission::AdmissionPolicy;
use crate::domain::bucket::Bucket;
use crate::domain::envelope::{EnvelopeVersion, Kid};
use crate::domain::execution::{ExecutionReport, LimitPolicy, Limits, Start, Timings};
use crate::domain::id::EnvironmentId;
use crate::domain::instance::{InstanceName, Standing};
use crate::domain::job::{
    Answer, ComfyFailure, ComfyJob, ComfyReport, ExecuteInput, FailureCode, ImageSource, InputImage, Job, JobId,
    JobTimings, OpenError, Output, OutputKind, Progress, PromptId, ReplyAddress, ReplyTo, Request, SealedPart, Wants,
};
use crate::domain::lease::LeasePolicy;
use crate::domain::restart::Generation;
use crate::domain::secret::Secret;
use crate::domain::tenant::TenantName;
use crate::messages::comfy_process::{InstanceStood, InterruptJob, JobProgressed, RunJob, RunRefused};
use crate::messages::crypto::{Open, Seal, SealError};
use crate::messages::handle::Handle;
use crate::messages::sandbox_pool::{CancelExecution, Execute, ExecuteError};
use crate::messages::supervisor::{Abandon, Beat, ChildDown};
use crate::ports::bucket::{ObjectStore, UploadError};
use crate::ports::fetch::{FetchError, Fetcher};
use crate::ports::job_source::{JobSource, SourceError, Taken, Update};

pub const NAMES: [InstanceName; 3] = ["comfy-0", "comfy-1", "comfy-2"];

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A platform that hands out what it is given, and remembers all that it is told.
#[derive(Default)]
pub struct Platform {
    /// What the next polls bring; without any, a poll is held.
    pub polls: Mutex<VecDeque<Result<Taken, SourceError>>>,
    /// What every poll brings at once, when set.
    pub always: Mutex<Option<Result<(), SourceError>>>,
    /// Handed out when the poll is told to end.
    pub late: Mutex<Vec<Job>>,
    /// How the next posts end; without any, well.
    pub posts: Mutex<VecDeque<SourceError>>,
    /// Posts wait for `release` when set.
    pub hold_posts: Mutex<bool>,
    pub release: Notify,
    /// Updates take so long.
    pub slow_updates: Mutex<Duration>,
    pub stops: Mutex<Vec<JobId>>,
    pub held: Mutex<Vec<JobId>>,
    pub limit: Mutex<usize>,
    lines: Mutex<Vec<String>>,
    woken: Notify,
    ended: Notify,
    stopping: Notify,
}

impl Platform {
    pub fn hand_out(&self, jobs: &[Job]) {
        self.answer(Ok(Taken { jobs: jobs.to_vec(), ..Taken::default() }));
    }

    pub fn answer(&self, poll: Result<Taken, SourceError>) {
        locked(&self.polls).push_back(poll);
        self.woken.notify_one();
    }

    pub fn stop(&self, job: &str) {
        locked(&self.stops).push(job.parse().unwrap());
        self.stopping.notify_one();
    }

    fn note(&self, line: String) {
        locked(&self.lines).push(line);
    }

    /// All that it was told, heartbeats apart.
    pub fn told(&self) -> Vec<String> {
        locked(&self.lines).clone()
    }

    pub fn takes(&self) -> usize {
        self.told().iter().filter(|line| line.starts_with("take")).count()
    }

    /// The lines about answers.
    pub fn answers(&self) -> Vec<String> {
        self.posts().into_iter().filter(|line| line.contains(" done")).collect()
    }

    /// The lines about answers and updates.
    pub fn posts(&self) -> Vec<String> {
        self.told().into_iter().filter(|line| !line.starts_with("take") && !line.starts_with("end")).collect()
    }
}

#[async_trait]
impl JobSource for Platform {
    fn name(&self) -> &'static str {
        "runpod"
    }

    fn answer_limit(&self, _: &JobId) -> usize {
        *locked(&self.limit)
    }

    async fn take(&self, slots: usize, busy: bool) -> Result<Taken, SourceError> {
        self.note(format!("take {slots}{}", if busy { " busy" } else { "" }));
        loop {
            let always = locked(&self.always).clone();
            if let Some(answer) = always {
                return answer.map(|()| Taken::default());
            }
            if let Some(answer) = locked(&self.polls).pop_front() {
                return answer;
            }
            tokio::select! {
                () = self.woken.notified() => {}
                () = self.ended.notified() => return Ok(Taken::default()),
            }
        }
    }

    async fn stop_taking(&self) -> Taken {
        self.note("end of poll".to_owned());
        self.ended.notify_waiters();
        Taken { jobs: std::mem::take(&mut *locked(&self.late)), ..Taken::default() }
    }

    async fn settle(&self, job: &JobId, answer: &Answer, _: bool) -> Result<(), SourceError> {
        if *locked(&self.hold_posts) {
            self.release.notified().await;
        }
        let failure = locked(&self.posts).pop_front();
        let output = answer.output.as_ref().and_then(Secret::text).unwrap_or("-").to_owned();
        let error = answer.error.as_deref().unwrap_or("-");
        let how = failure.as_ref().map_or_else(String::new, |failure| format!(" ({failure})"));
        self.note(format!("{job} done{how} {error} {output}"));
        failure.map_or(Ok(()), Err)
    }

    async fn update(&self, job: &JobId, update: &Update) -> Result<(), SourceError> {
        let slow = *locked(&self.slow_updates);
        tokio::time::sleep(slow).await;
        self.note(format!("{job} update {}", update.output.text().unwrap_or("-")));
        Ok(())
    }

    async fn heartbeat(&self, held: &[JobId]) -> Result<(), SourceError> {
        *locked(&self.held) = held.to_vec();
        Ok(())
    }

    fn heartbeat_every(&self) -> Option<Duration> {
        Some(Duration::from_secs(1))
    }

    async fn stops(&self) -> Result<Vec<JobId>, SourceError> {
        self.stopping.notified().await;
        Ok(std::mem::take(&mut *locked(&self.stops)))
    }

    async fn report_unhealthy(&self, check: &str, reason: &str) {
        self.note(format!("unhealthy {check}: {reason}"));
    }
}

/// Opens by the first word of the input; seals by leaving the text as it is.
struct Crypto {
    /// How many replies it was asked to seal.
    replies: Arc<AtomicUsize>,
}

impl Actor for Crypto {
    type Context = Context<Self>;
}

pub fn address() -> ReplyAddress {
    ReplyAddress { version: EnvelopeVersion::V2, kid: Kid([1; 8]), epk: [0; 32], request_id: "r-1".into() }
}

impl Handler<Open> for Crypto {
    type Result = Result<Request, OpenError>;

    fn handle(&mut self, message: Open, _: &mut Self::Context) -> Self::Result {
        let kind = message.input.text().unwrap().to_owned();
        let reply = if kind == "sealed" { ReplyTo::Sealed(address()) } else { ReplyTo::Plain };
        if kind == "refuse" {
            return Err(OpenError::Unopenable);
        }
        if kind == "execute" {
            return Ok(Request::Execute(Box::new(ExecuteInput {
                environment: EnvironmentId(Uuid::nil()),
                data: "1".into(),
                env: BTreeMap::new(),
                timeout_ms: None,
                memory_mb: None,
                reply,
            })));
        }
        let url = Secret::from("https://images.example/x.png".to_owned());
        let image = InputImage { name: "x.png".into(), source: ImageSource::Url(url) };
        Ok(Request::Comfy(Box::new(ComfyJob {
            id: message.job,
            prompt: Secret::from("{}".to_owned()),
            images: if kind == "image" { vec![image] } else { Vec::new() },
            models: Vec::new(),
            nodes: 3,
            wants: Wants { history: true, ..Wants::default() },
            reply,
            deadline: None,
        })))
    }
}

impl Handler<Seal> for Crypto {
    type Result = Result<SealedPart, SealError>;

    fn handle(&mut self, message: Seal, _: &mut Self::Context) -> Self::Result {
        if message.plaintext.text().is_some_and(|text| text.contains(r#""type":"reply""#)) {
            self.replies.fetch_add(1, Ordering::Relaxed);
        }
        Ok(SealedPart { kid: message.to.kid, nonce: [0; 24], ciphertext: message.plaintext.into_bytes() })
    }
}

/// How an instance runs jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A second, with three steps of progress in it.
    Steps,
    /// Until it is interrupted.
    Hold,
    Busy,
    /// Its ComfyUI is gone before it has the job; so many times.
    NeverTakes {
        times: u32,
    },
    Panic,
}

/// An instance, as a test sees it.
#[derive(Clone)]
pub struct Gpu {
    pub name: InstanceName,
    pub ran: Arc<Mutex<Vec<String>>>,
    pub mode: Arc<Mutex<Mode>>,
    interrupted: Arc<Notify>,
    stood: Handle<InstanceStood>,
}

impl Actor for Gpu {
    type Context = Context<Self>;
}

impl Gpu {
    pub fn stands(&self, standing: Standing) {
        self.stood.tell(InstanceStood { instance: self.name, standing });
    }

    pub fn is_ready(&self) {
        self.stands(Standing::Ready { models: Vec::new() });
    }

    pub fn behaves(&self, mode: Mode) {
        *locked(&self.mode) = mode;
    }

    pub fn ran(&self) -> Vec<String> {
        locked(&self.ran).clone()
    }
}

impl Handler<RunJob> for Gpu {
    type Result = ResponseFuture<Result<ComfyReport, RunRefused>>;

    fn handle(&mut self, message: RunJob, _: &mut Self::Context) -> Self::Result {
        let gpu = self.clone();
        let mode = *locked(&self.mode);
        assert_ne!(mode, Mode::Panic, "as it was told");
        if mode == Mode::Busy {
            *locked(&self.mode) = Mode::Steps;
            return Box::pin(async { Err(RunRefused::Busy) });
        }
        if let Mode::NeverTakes { times } = mode {
            *locked(&self.mode) = if times > 1 { Mode::NeverTakes { times: times - 1 } } else { Mode::Steps };
            let gpu = self.clone();
            return Box::pin(async move {
                gpu.is_ready();
                Ok(never_taken())
            });
        }
        Box::pin(async move {
            let job = message.job.id.clone();
            locked(&gpu.ran).push(job.to_string());
            gpu.stands(Standing::Busy);
            let mut interrupted = false;
            if mode == Mode::Hold {
                gpu.interrupted.notified().await;
                interrupted = true;
            }
            for step in 1..=3_u32 {
                let progress = Progress { value: f64::from(step), max: 3.0, nodes: 3, ..Progress::default() };
                let _ = message.progress.try_send(JobProgressed { job: job.clone(), progress });
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            gpu.is_ready();
            Ok(report(interrupted))
        })
    }
}

impl Handler<InterruptJob> for Gpu {
    type Result = ();

    fn handle(&mut self, message: InterruptJob, _: &mut Self::Context) {
        locked(&self.ran).push(format!("interrupt {}", message.job));
        self.interrupted.notify_one();
    }
}

fn never_taken() -> ComfyReport {
    let summary = "ComfyUI ended before it was given the job: signal 9".to_owned();
    let failure = ComfyFailure { code: FailureCode::Unavailable, summary, detail: ().into() };
    ComfyReport { failure: Some(failure), outputs: Vec::new(), ..report(false) }
}

pub fn report(interrupted: bool) -> ComfyReport {
    let image = Output {
        node: "9".into(),
        filename: "x.png".into(),
        kind: OutputKind::Image,
        mime: "image/png",
        data: Secret::new(vec![7; 300]),
    };
    let failure =
        ComfyFailure { code: FailureCode::Interrupted, summary: "it was interrupted".into(), detail: ().into() };
    ComfyReport {
        prompt_id: PromptId(Uuid::from_u128(1)),
        outputs: if interrupted { Vec::new() } else { vec![image] },
        history: None,
        failure: interrupted.then_some(failure),
        timings: JobTimings::default(),
    }
}

/// The pool, and whoever ends the daemon.
struct Others {
    told: Arc<Mutex<Vec<String>>>,
}

impl Actor for Others {
    type Context = Context<Self>;
}

impl Handler<Execute> for Others {
    type Result = Result<ExecutionReport, ExecuteError>;

    fn handle(&mut self, message: Execute, _: &mut Self::Context) -> Self::Result {
        let limits = message.call.limits;
        Ok(ExecutionReport::cancelled(message.call.execution, limits, true, Timings::default(), Start::Cold))
    }
}

impl Handler<CancelExecution> for Others {
    type Result = ();
    fn handle(&mut self, _: CancelExecution, _: &mut Self::Context) {}
}

impl Handler<Abandon> for Others {
    type Result = ();

    fn handle(&mut self, message: Abandon, _: &mut Self::Context) {
        locked(&self.told).push(format!("abandon: {}", message.reason));
    }
}

/// Stands where the Supervisor would.
struct Parent {
    told: Arc<Mutex<Vec<String>>>,
}

impl Actor for Parent {
    type Context = Context<Self>;
}

impl Handler<Beat> for Parent {
    type Result = ();

    fn handle(&mut self, beat: Beat, _: &mut Self::Context) {
        *locked(&self.told) = beat.complaints;
    }
}

impl Handler<ChildDown> for Parent {
    type Result = ();

    fn handle(&mut self, down: ChildDown, _: &mut Self::Context) {
        *locked(&self.told) = vec![format!("down: {:?}", down.exit)];
    }
}

/// Fetches nothing, and uploads everything.
#[derive(Default)]
struct Outside {
    uploads: Arc<Mutex<Vec<(String, usize)>>>,
}

#[async_trait]
impl Fetcher for Outside {
    async fn fetch(&self, _: &str) -> Result<Secret, FetchError> {
        Err(FetchError::Host("images.example".into()))
    }
}

#[async_trait]
impl ObjectStore for Outside {
    async fn put(&self, _: &Bucket, key: &str, _: &str, body: Secret, _: Duration) -> Result<String, UploadError> {
        locked(&self.uploads).push((key.to_owned(), body.len()));
        Ok("https://s3.example/object".into())
    }
}

/// One ingress and its world.
pub struct World {
    pub platform: Arc<Platform>,
    pub gpus: Vec<Gpu>,
    pub ingress: Addr<QueueIngress>,
    pub parent: Arc<Mutex<Vec<String>>>,
    pub others: Arc<Mutex<Vec<String>>>,
    pub uploads: Arc<Mutex<Vec<(String, usize)>>>,
    replies: Arc<AtomicUsize>,
}

/// What is different from an ordinary world.
pub struct Plan {
    pub instances: usize,
    pub bucket: bool,
    pub dry_run: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self { instances: 1, bucket: false, dry_run: false }
    }
}

pub fn settings(plan: &Plan) -> Settings {
    let limits = Limits { timeout: Duration::from_secs(5), memory_mb: 128 };
    Settings {
        leases: LeasePolicy {
            instance_wait: Duration::from_secs(60),
            without_instances: plan.instances == 0 || plan.dry_run,
            max_failed_starts: Some(3),
            ..LeasePolicy::default()
        },
        admission: AdmissionPolicy::default(),
        limits: LimitPolicy { default: limits, cap: limits },
        dry_run: plan.dry_run,
        no_history: false,
        refresh_worker: false,
        link_lasts: Duration::from_secs(60),
        seed: 1,
    }
}

impl World {
    /// An ingress with its instances, all of them ready.
    pub async fn ready(instances: usize) -> Self {
        let world = Self::build(Plan { instances, ..Plan::default() });
        for gpu in &world.gpus {
            gpu.is_ready();
        }
        world.pass(1).await;
        world
    }

    pub fn build(plan: Plan) -> Self {
        let platform = Arc::new(Platform { limit: Mutex::new(1 << 20), ..Platform::default() });
        let (parent, others) = (Arc::default(), Arc::default());
        let stood = Handle::default();
        let replies = Arc::<AtomicUsize>::default();
        let crypto = Crypto { replies: Arc::clone(&replies) }.start();
        let (open, seal) = (Handle::default(), Handle::default());
        open.publish(&crypto);
        seal.publish(&crypto);
        let gpu = |name: &InstanceName| Gpu {
            name,
            ran: Arc::default(),
            mode: Arc::new(Mutex::new(Mode::Steps)),
            interrupted: Arc::default(),
            stood: stood.clone(),
        };
        let gpus: Vec<Gpu> = NAMES.iter().take(plan.instances).map(gpu).collect();
        let instance = |gpu: &Gpu| {
            let (run, interrupt) = (Handle::default(), Handle::default());
            let address = gpu.clone().start();
            run.publish(&address);
            interrupt.publish(&address);
            Instance { name: gpu.name, run, interrupt }
        };
        let other = Others { told: Arc::clone(&others) }.start();
        let (execute, cancel, abandon) = (Handle::default(), Handle::default(), Handle::default());
        execute.publish(&other);
        cancel.publish(&other);
        abandon.publish(&other);
        let outside = Arc::new(Outside::default());
        let bucket = Bucket {
            endpoint: "https://s3.example".into(),
            name: "b".into(),
            region: "r".into(),
            access_id: String::new(),
            access_secret: String::new(),
            prefix: String::new(),
            brought: false,
        };
        let deps = Deps {
            source: platform.clone(),
            queue: None,
            open,
            seal,
            instances: gpus.iter().map(instance).collect(),
            execute,
            cancel,
            render: |report, _| format!(r#"{{"outcome":"{}"}}"#, report.outcome.as_str()),
            fetcher: outside.clone(),
            objects: outside.clone(),
            bucket: plan.bucket.then_some(bucket),
            abandon,
            clock: Arc::new(PausedClock::start()),
            log: Logger::root(slog::Discard, slog::o!()),
            settings: settings(&plan),
        };
        let supervisor = Parent { told: Arc::clone(&parent) }.start();
        let seat = Seat::new(&supervisor, "ingress", Generation(1), Duration::from_secs(1));
        let ingress = QueueIngress::new(deps, seat).start();
        stood.publish(&ingress);
        Self { platform, gpus, ingress, parent, others, uploads: Arc::clone(&outside.uploads), replies }
    }

    /// Lets so many milliseconds pass.
    pub async fn pass(&self, millis: u64) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    /// How many replies were sealed.
    pub fn replies_sealed(&self) -> usize {
        self.replies.load(Ordering::Relaxed)
    }

    pub fn complaints(&self) -> Vec<String> {
        locked(&self.parent).clone()
    }
}

pub fn job(id: &str, input: &str) -> Job {
    let tenant = TenantName::operator();
    Job { id: id.parse().unwrap(), tenant, input: Secret::from(input.to_owned()), bucket: None }
}
