//! SIGTERM at every step: nothing that was handed out is lost, and nobody waits for a poll to end.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::gpu::{Gpu, left, workflow};
use crate::support::platform::{Call, Options, Reply, State, job::Status};

const PING: Duration = Duration::from_millis(200);

/// A worker before a platform that holds polls for a minute.
async fn gpu() -> Gpu {
    let options = Options { hold: Duration::from_secs(60), ping_interval: PING, ..Options::default() };
    let gpu = Gpu::double().on(options).start().await;
    gpu.platform().arrived(Call::Take, 1).await;
    gpu.platform().arrived(Call::Stop, 1).await;
    gpu
}

async fn ends_well(gpu: &mut Gpu, within: u64) {
    assert_eq!(gpu.daemon.ended(Duration::from_secs(within)).await.code(), Some(0), "{}", gpu.daemon.log_text());
    assert_eq!(left::beyond(&gpu.daemon.home, 0), Ok(()));
}

#[tokio::test]
async fn an_idle_worker_ends_at_once() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut gpu = gpu().await;
        let began = Instant::now();
        gpu.daemon.signal(signal);
        ends_well(&mut gpu, 10).await;
        assert!(
            began.elapsed() < Duration::from_secs(6),
            "{:?} with a poll that is held for a minute",
            began.elapsed()
        );
    }
}

#[tokio::test]
async fn a_running_job_is_finished_and_posted_and_nothing_is_taken_meanwhile() {
    let mut gpu = gpu().await;
    let id = gpu.platform().submit(gpu.keys.workflow(&workflow::steps(40, 0.05)).input);
    gpu.platform().arrived(Call::Progress, 1).await;
    gpu.daemon.signal(Signal::SIGTERM);
    gpu.logged("ingress.draining").await;
    let late = gpu.platform().look(|state| state.calls(Call::Take).count());
    let job = gpu.platform().settled(&id).await;
    assert_eq!((job.status, job.finals.len()), (Status::Completed, 1), "{:?}", job.error);
    ends_well(&mut gpu, 10).await;
    gpu.platform().look(|state| {
        assert_eq!(state.calls(Call::Take).count(), late, "no poll after the signal");
        state.assert_heartbeats(PING, Duration::from_millis(700));
        state.assert_progress_before_done();
    });
}

#[tokio::test]
async fn a_result_that_is_refused_during_the_drain_is_still_delivered() {
    let mut gpu = gpu().await;
    let id = gpu.platform().submit(gpu.keys.workflow(&workflow::steps(10, 0.05)).input);
    gpu.platform().arrived(Call::Progress, 1).await;
    for fault in [Reply::status(503), Reply::ResetBeforeBody, Reply::ResetAfterBody { kept: false }] {
        gpu.platform().next(Call::Done, fault);
    }
    gpu.daemon.signal(Signal::SIGTERM);
    let job = gpu.platform().settled(&id).await;
    assert_eq!((job.status, job.finals.len()), (Status::Completed, 1));
    ends_well(&mut gpu, 10).await;
}

/// When a job is handed out, measured from the signal.
#[derive(Debug, Clone, Copy)]
enum HandedOut {
    JustBefore,
    JustAfter,
    WhenTheDrainBegan,
}

#[tokio::test]
async fn a_job_that_is_handed_out_in_the_instant_of_the_signal_is_run_and_posted() {
    for when in [HandedOut::JustBefore, HandedOut::JustAfter, HandedOut::WhenTheDrainBegan].repeat(3) {
        let mut gpu = gpu().await;
        let input = gpu.keys.workflow(&workflow::save_one()).input;
        let id = match when {
            HandedOut::JustBefore => {
                let id = gpu.platform().submit(input);
                gpu.daemon.signal(Signal::SIGTERM);
                id
            }
            HandedOut::JustAfter => {
                gpu.daemon.signal(Signal::SIGTERM);
                gpu.platform().submit(input)
            }
            HandedOut::WhenTheDrainBegan => {
                gpu.daemon.signal(Signal::SIGTERM);
                gpu.logged("ingress.draining").await;
                gpu.platform().submit(input)
            }
        };
        ends_well(&mut gpu, 15).await;
        let job = gpu.platform().look(|state| state.jobs[&id].clone());
        let (handed, posted) = (job.deliveries.len(), job.finals.len());
        assert_eq!(handed, posted, "{when:?}: {:?}\n{}", job.status, gpu.daemon.log_text());
        assert!(matches!(when, HandedOut::WhenTheDrainBegan) || posted == 1, "{when:?}");
    }
}

#[tokio::test]
async fn a_second_signal_interrupts_the_job_and_posts_that() {
    let mut gpu = gpu().await;
    let request = gpu.keys.workflow(&workflow::steps(1200, 0.05));
    let id = gpu.platform().submit(request.input.clone());
    gpu.platform().arrived(Call::Progress, 1).await;
    gpu.daemon.signal(Signal::SIGTERM);
    gpu.logged("ingress.draining").await;
    gpu.daemon.signal(Signal::SIGTERM);
    ends_well(&mut gpu, 15).await;
    let job = gpu.platform().look(|state| state.jobs[&id].clone());
    let error = job.error.as_ref().and_then(Value::as_str).unwrap_or_default();
    assert!(error.starts_with("execution_failed: interrupted"), "{error}");
    assert_eq!((job.status, job.finals.len()), (Status::Failed, 1));
    assert_eq!(request.reply(&job.output.unwrap(), &id)["error"]["code"], "interrupted");
    gpu.platform().look(State::assert_progress_before_done);
}
