//! A ComfyUI and a GPU that exist only as knobs: what they take, what they hear, and how they fail.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use super::locked;
use crate::domain::instance::InstanceSpec;
use crate::domain::job::{
    ComfyFailure, ComfyJob, ComfyReport, FailureCode, JobId, JobTimings, Progress, PromptId, ReplyTo, Wants,
};
use crate::domain::secret::Secret;
use crate::ports::comfy::{ComfyEnd, ComfyEngine, ComfyError, ComfyUi, RunEvent};
use crate::ports::gpu::{Gpu, GpuPicture, Gpus};

/// How the next calls go. Read anew by every call.
#[derive(Debug, Clone)]
pub struct Knobs {
    pub start_fails: bool,
    pub start_hangs: bool,
    pub ready_after: Duration,
    pub ready_fails: bool,
    pub ready_hangs: bool,
    pub run_takes: Duration,
    /// A step of progress for every so long.
    pub step_every: Duration,
    pub run_panics: bool,
    /// Whether a run heeds an interrupt.
    pub hears_interrupt: bool,
    /// Whether SIGABRT ends the process.
    pub hears_abort: bool,
    /// Whether HTTP answers.
    pub answers: bool,
    pub clean_takes: Duration,
    pub clean_fails: bool,
    /// How many of the next stops fail.
    pub failing_stops: usize,
    pub memory: u64,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            start_fails: false,
            start_hangs: false,
            ready_after: Duration::from_secs(7),
            ready_fails: false,
            ready_hangs: false,
            run_takes: Duration::from_secs(20),
            step_every: Duration::from_secs(1),
            run_panics: false,
            hears_interrupt: true,
            hears_abort: true,
            answers: true,
            clean_takes: Duration::from_millis(500),
            clean_fails: false,
            failing_stops: 0,
            memory: 1 << 30,
        }
    }
}

/// The engine: its knobs, what was asked of it, and the newest process.
#[derive(Default)]
pub struct ComfyDouble {
    pub knobs: Mutex<Knobs>,
    pub log: Mutex<Vec<String>>,
    newest: Mutex<Option<watch::Sender<Option<ComfyEnd>>>>,
}

impl ComfyDouble {
    pub fn knobs(&self) -> Knobs {
        locked(&self.knobs).clone()
    }

    pub fn turn(&self, change: impl FnOnce(&mut Knobs)) {
        change(&mut locked(&self.knobs));
    }

    /// What was asked since the last time, in order. Probes are left out.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *locked(&self.log))
    }

    /// Ends the newest process.
    pub fn kill(&self, end: &str) {
        if let Some(process) = &*locked(&self.newest) {
            end_of(process, end);
        }
    }

    fn note(&self, what: impl Into<String>) {
        locked(&self.log).push(what.into());
    }
}

fn end_of(process: &watch::Sender<Option<ComfyEnd>>, end: &str) {
    process.send_if_modified(|ended| {
        let first = ended.is_none();
        ended.get_or_insert_with(|| ComfyEnd { end: end.to_owned(), out_of_memory: false });
        first
    });
}

struct Process {
    double: Arc<ComfyDouble>,
    ended: watch::Sender<Option<ComfyEnd>>,
    interrupted: watch::Sender<Option<PromptId>>,
}

/// The engine as its port.
pub struct Engine(pub Arc<ComfyDouble>);

#[async_trait]
impl ComfyEngine for Engine {
    async fn start(&self, _: &InstanceSpec) -> Result<Arc<dyn ComfyUi>, ComfyError> {
        self.0.note("start");
        let knobs = self.0.knobs();
        if knobs.start_hangs {
            std::future::pending::<()>().await;
        }
        if knobs.start_fails {
            return Err(ComfyError::Off("no main.py".into()));
        }
        let (ended, interrupted) = (watch::Sender::new(None), watch::Sender::new(None));
        *locked(&self.0.newest) = Some(ended.clone());
        Ok(Arc::new(Process { double: Arc::clone(&self.0), ended, interrupted }))
    }

    async fn sweep(&self, _: &InstanceSpec) -> Result<(), ComfyError> {
        self.0.note("sweep");
        Ok(())
    }
}

#[async_trait]
impl ComfyUi for Process {
    async fn ready(&self) -> Result<(), ComfyError> {
        let knobs = self.double.knobs();
        if knobs.ready_hangs {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(knobs.ready_after).await;
        if knobs.ready_fails {
            return Err(ComfyError::DiedEarly { end: "exit code 1".into(), last: "no CUDA".into() });
        }
        Ok(())
    }

    async fn run(&self, _: &ComfyJob, prompt: PromptId, events: mpsc::Sender<RunEvent>) -> ComfyReport {
        self.double.note("run");
        let knobs = self.double.knobs();
        assert!(!knobs.run_panics, "this run panics");
        let (mut ended, mut interrupted) = (self.ended.subscribe(), self.interrupted.subscribe());
        drop(events.try_send(RunEvent::Accepted));
        let steps = async {
            loop {
                tokio::time::sleep(knobs.step_every).await;
                drop(events.try_send(RunEvent::Progress(Progress::default())));
            }
        };
        let heard = async {
            let this = interrupted.wait_for(|asked| *asked == Some(prompt)).await.is_ok();
            if !(this && knobs.hears_interrupt) {
                std::future::pending::<()>().await;
            }
        };
        let failure = tokio::select! {
            () = steps => None,
            () = tokio::time::sleep(knobs.run_takes) => None,
            () = heard => Some(FailureCode::Interrupted),
            _ = ended.wait_for(Option::is_some) => Some(FailureCode::Crashed),
        };
        let failure = failure.map(|code| ComfyFailure {
            code,
            summary: "the double's own".into(),
            detail: serde_json::Value::Null,
        });
        ComfyReport { prompt_id: prompt, outputs: Vec::new(), history: None, failure, timings: JobTimings::default() }
    }

    async fn interrupt(&self, prompt: PromptId) -> Result<(), ComfyError> {
        self.double.note("interrupt");
        self.interrupted.send_replace(Some(prompt));
        Ok(())
    }

    async fn probe(&self) -> Result<(), ComfyError> {
        if !self.double.knobs().answers {
            tokio::time::sleep(Duration::from_secs(5)).await;
            return Err(ComfyError::Silent(Duration::from_secs(5)));
        }
        Ok(())
    }

    async fn clean(&self, _: PromptId) -> Result<(), ComfyError> {
        self.double.note("clean");
        let knobs = self.double.knobs();
        tokio::time::sleep(knobs.clean_takes).await;
        if knobs.clean_fails { Err(ComfyError::Silent(Duration::from_secs(5))) } else { Ok(()) }
    }

    fn memory(&self) -> Option<u64> {
        Some(self.double.knobs().memory)
    }

    fn abort(&self) {
        self.double.note("abort");
        if self.double.knobs().hears_abort {
            end_of(&self.ended, "signal 6 (SIGABRT)");
        }
    }

    async fn stop(&self, grace: Duration) -> Result<(), ComfyError> {
        self.double.note(format!("stop {}", grace.as_secs()));
        let mut fails = false;
        self.double.turn(|knobs| {
            fails = knobs.failing_stops > 0;
            knobs.failing_stops = knobs.failing_stops.saturating_sub(1);
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        if fails {
            return Err(ComfyError::Host { doing: "ending ComfyUI", source: "a process survives KILL".into() });
        }
        end_of(&self.ended, "signal 15 (SIGTERM)");
        Ok(())
    }

    async fn ended(&self) -> ComfyEnd {
        let mut ended = self.ended.subscribe();
        let end = ended.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        end.unwrap_or(ComfyEnd { end: "?".into(), out_of_memory: false })
    }
}

/// The driver's picture, as it is set.
pub struct GpusDouble(pub Mutex<GpuPicture>);

impl Default for GpusDouble {
    fn default() -> Self {
        Self(Mutex::new(GpuPicture::NoDriver))
    }
}

impl GpusDouble {
    /// One GPU.
    pub fn show(&self, unfit: Option<&str>, faults: u64) {
        let gpu = Gpu {
            index: 0,
            uuid: "GPU-0".into(),
            name: "double".into(),
            memory_total: None,
            memory_used: None,
            temperature: None,
            xid: None,
            faults,
            unfit: unfit.map(str::to_owned),
        };
        *locked(&self.0) = GpuPicture::Gpus(vec![gpu]);
    }
}

#[async_trait]
impl Gpus for GpusDouble {
    async fn look(&self) -> GpuPicture {
        locked(&self.0).clone()
    }
}

/// A job with nothing in it.
pub fn comfy_job(id: &str) -> Box<ComfyJob> {
    let Ok(id) = id.parse::<JobId>() else { panic!("{id} is no job's id") };
    Box::new(ComfyJob {
        id,
        prompt: Secret::from("{}".to_owned()),
        images: Vec::new(),
        models: vec!["model.safetensors".into()],
        nodes: 1,
        wants: Wants::default(),
        reply: ReplyTo::Plain,
        deadline: None,
    })
}
