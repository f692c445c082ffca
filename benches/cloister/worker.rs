//! P8 and P9: what a job costs beside ComfyUI's own time, and when the next one is asked for.

use std::time::Duration;

use serde_json::{Value, json};

use super::rival::{self, Comfy};
use super::support::gpu::{Gpu, sealed::Keys, workflow};
use super::support::platform::{Call, Platform, State, job::Status};
use super::table::{Row, median, millis, ninetieth};

/// Rounds in which the three take turns.
const ROUNDS: usize = 5;

/// What one job of a worker took.
struct Spans {
    /// Handed out → the last byte of its result arrived.
    job: Duration,
    /// The last byte of its result → the next job is asked for; nothing when that was before.
    next: Duration,
}

/// What one kind of job made of the three.
#[derive(Default)]
struct Runs {
    ours: Vec<Spans>,
    sdk: Vec<Spans>,
    raw: Vec<Duration>,
    tried: usize,
}

/// A job's workflow; each is another one, so that nobody's cache answers.
type Make = fn(u32) -> Value;

fn picture(number: u32) -> Value {
    let mut workflow = workflow::save_one();
    workflow["1"]["inputs"]["color"] = json!(number);
    workflow
}

fn two_megabytes(_: u32) -> Value {
    workflow::file_of(2 << 20)
}

/// Both kinds of job, P8 for each and P9 for the small ones.
pub async fn rows() -> Vec<Row> {
    let mut bench = Bench::start().await;
    let small = bench.measure(picture, 10).await;
    let large = bench.measure(two_megabytes, 3).await;
    let mut sealed_megabytes = overhead(&large, "a file of 2 MiB");
    // To seal, to write and to send that much is in it.
    sealed_megabytes.goal = "less than the SDK";
    sealed_megabytes.met = sealed_megabytes.floor.is_some_and(|sdk| sealed_megabytes.ours < sdk);
    vec![overhead(&small, "a picture of 64 × 64"), sealed_megabytes, next_job(&small)]
}

/// Our worker, the SDK's, and a ComfyUI for the SDK and for the raw API.
struct Bench {
    gpu: Gpu,
    platform: Platform,
    comfy: Comfy,
    _sdk: rival::Process,
    count: u32,
}

impl Bench {
    async fn start() -> Self {
        let gpu = Gpu::double().on_platform().start().await;
        let platform = Platform::start();
        let comfy = Comfy::start().await;
        let sdk = rival::sdk(&platform, comfy.port);
        Self { gpu, platform, comfy, _sdk: sdk, count: 0 }
    }

    async fn measure(&mut self, make: Make, jobs: usize) -> Runs {
        let mut runs = Runs::default();
        for round in 0..=ROUNDS {
            let ours = self.ours(make, jobs, &mut runs.tried).await;
            let raw = self.raw(make, jobs).await;
            let sdk = self.sdk(make, jobs).await;
            // The first round warms all three.
            if round > 0 {
                runs.ours.extend(ours);
                runs.raw.extend(raw);
                runs.sdk.extend(sdk);
            } else {
                runs.tried = 0;
            }
        }
        runs
    }

    fn workflow(&mut self, make: Make) -> Value {
        self.count += 1;
        make(self.count)
    }

    async fn ours(&mut self, make: Make, jobs: usize, tried: &mut usize) -> Vec<Spans> {
        let mut spans = Vec::new();
        for _ in 0..jobs {
            let workflow = self.workflow(make);
            let sealed = self.gpu.keys.workflow(&workflow).input;
            spans.extend(one(self.gpu.platform(), sealed).await);
        }
        *tried += jobs;
        spans
    }

    async fn sdk(&mut self, make: Make, jobs: usize) -> Vec<Spans> {
        let mut spans = Vec::new();
        for _ in 0..jobs {
            let input = json!({ "workflow": self.workflow(make) });
            spans.extend(one(&self.platform, input).await);
        }
        spans
    }

    async fn raw(&mut self, make: Make, jobs: usize) -> Vec<Duration> {
        let mut spans = Vec::new();
        for _ in 0..jobs {
            let workflow = self.workflow(make);
            spans.push(self.comfy.run(&workflow).await);
        }
        spans
    }
}

/// One job to its end, and to the next call for one; nothing when it failed.
async fn one(platform: &Platform, input: Value) -> Option<Spans> {
    // A worker that waits: what it does before it asks belongs to the job before.
    let waits = |state: &State| state.calls(Call::Take).last().filter(|take| take.answered.is_none()).map(drop);
    platform.until("a worker that asks", waits).await;
    let id = platform.submit(input);
    let posted = |state: &State| {
        let job = &state.jobs[&id];
        let handed = job.deliveries.first()?.0;
        let next = state.calls(Call::Take).last().filter(|take| take.arrived > handed)?.arrived;
        let done = state.log.iter().rev().find(|call| call.call == Call::Done && call.job() == Some(&id))?.whole?;
        job.status.is_final().then(|| (job.status, done - handed, next.saturating_duration_since(done)))
    };
    let (status, job, next) = platform.until("the job's end, and the next call", posted).await;
    (status == Status::Completed).then_some(Spans { job, next })
}

fn overhead(runs: &Runs, what: &str) -> Row {
    let raw = median(&runs.raw);
    let less = |spans: &[Spans]| spans.iter().map(|spans| spans.job.saturating_sub(raw)).collect::<Vec<_>>();
    let (ours, sdk) = (less(&runs.ours), less(&runs.sdk));
    Row {
        name: "P8",
        what: format!("a sealed GPU job beside ComfyUI's own time, {what}"),
        measure: format!(
            "job handed out → result posted, less the median of the raw API on the same double ({:.1} ms); one at a time; \
             the SDK's jobs are not sealed; its p90: {:.1} ms",
            millis(raw),
            millis(ninetieth(&sdk))
        ),
        goal: "≤ 3 ms",
        tried: runs.tried,
        failed: runs.tried - runs.ours.len(),
        ..Row::beside_sdk(&ours, &sdk, Duration::from_millis(3))
    }
}

fn next_job(runs: &Runs) -> Row {
    let next = |spans: &[Spans]| spans.iter().map(|spans| spans.next).collect::<Vec<_>>();
    let (ours, sdk) = (next(&runs.ours), next(&runs.sdk));
    Row {
        name: "P9",
        what: "result posted → next job asked for".to_owned(),
        measure: "the result's last byte → the head of the next call for a job, 0 when that came first; one at a time"
            .to_owned(),
        goal: "≤ 5 ms",
        tried: runs.tried,
        failed: runs.tried - runs.ours.len(),
        ..Row::beside_sdk(&ours, &sdk, Duration::from_millis(5))
    }
}

/// Runs so many small jobs through a worker, many in the queue at a time; how many failed.
pub async fn run_many(platform: &Platform, keys: &Keys, jobs: usize) -> usize {
    let mut failed = 0;
    for first in (0..jobs).step_by(QUEUED) {
        let count = QUEUED.min(jobs - first);
        let inputs = (0..count).map(|at| keys.workflow(&picture(u32::try_from(first + at).unwrap())).input);
        let ids = platform.submit_all(inputs.collect());
        for id in &ids {
            let end = |state: &State| Some(state.jobs[id].status).filter(|status| status.is_final());
            failed += usize::from(platform.until("a job's end", end).await != Status::Completed);
        }
    }
    failed
}

/// How many jobs wait at the platform at once.
const QUEUED: usize = 250;
