//! The real ComfyUI falling under its jobs in every way: each job is settled once, honestly, and the next is normal.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::comfy_worker::{Worker, failing};
use crate::support::eventually;
use crate::support::gpu::{left, workflow};

/// Waits until there is another process than `before`, ready, and asserts that it serves.
async fn recovered(worker: &Worker, before: i32) {
    eventually("another process", Duration::from_secs(60), async || match worker.comfy() {
        Some(pid) if pid != before => Ok(()),
        other => Err(format!("{other:?} after {before}")),
    })
    .await;
    worker.ready().await;
    worker.assert_serves().await;
    left::beyond(&worker.gpu.daemon.home, 1).unwrap();
}

/// Asserts that each job that was taken was settled, and once.
fn each_settled_once(worker: &Worker) {
    let ids = |message: &str| {
        let mut ids: Vec<_> = worker.gpu.log_of(message).iter().map(|entry| entry["requestId"].to_string()).collect();
        ids.sort();
        ids
    };
    let (taken, settled) = (ids("job.taken"), ids("job.settled"));
    assert!(!taken.is_empty());
    assert_eq!(taken, settled);
}

#[tokio::test]
async fn a_job_whose_comfyui_dies_is_settled_once_and_the_next_one_is_normal() {
    let worker = Worker::start(|setup| setup.set("comfy.stop_grace", "1 s")).await;
    for (kind, words) in [("os_exit", "exit code 3"), ("segv", "SIGSEGV"), ("abort", "SIGABRT")] {
        let before = worker.comfy().unwrap();
        let ended = worker.caller.run(&failing(kind)).await.failed("crashed");
        assert!(ended.error.as_deref().unwrap().contains(words), "{kind}: {ended:?}");
        recovered(&worker, before).await;
    }
    // While a job waits behind the one that falls: it is served by the next process.
    let running = worker.caller.send(&workflow::block(60.0, "sleep")).await;
    worker.caller.reached(&running, "2").await;
    let waiting = worker.caller.send(&workflow::save_one()).await;
    let before = worker.signal_comfy(Signal::SIGKILL);
    let killed = worker.caller.ended(&running).await.failed("crashed");
    assert!(killed.error.as_deref().unwrap().contains("SIGKILL"), "{killed:?}");
    worker.caller.ended(&waiting).await.done();
    recovered(&worker, before).await;
    each_settled_once(&worker);
}

#[tokio::test]
async fn a_job_that_hangs_is_told_from_a_slow_one_and_its_comfyui_replaced() {
    let worker = Worker::start(|setup| {
        let setup = setup.set("comfy.no_progress", "4 s").set("comfy.interrupt_grace", "1 s");
        setup.set("comfy.stop_grace", "1 s").set("comfy.recycle_after_jobs", "0")
    })
    .await;
    // Slow, and it says so: longer than the limit in all, and no hang.
    worker.caller.run(&workflow::steps(30, 0.2)).await.done();
    worker.swept().await;

    // The interpreter free and held; a worker thread that is dead while HTTP says that all is well.
    for (name, prompt) in [
        ("blocked", workflow::block(600.0, "sleep")),
        ("frozen", workflow::block(600.0, "gil")),
        ("zombie", failing("sysexit")),
    ] {
        let before = worker.comfy().unwrap();
        let ended = worker.caller.run(&prompt).await.failed("hang");
        assert!(ended.outputs().is_empty(), "{name}");
        recovered(&worker, before).await;
    }
    // Stopped from outside, in the middle of a job.
    let running = worker.caller.send(&workflow::steps(10_000, 0.05)).await;
    worker.caller.reached(&running, "2").await;
    let before = worker.signal_comfy(Signal::SIGSTOP);
    worker.caller.ended(&running).await.failed("hang");
    recovered(&worker, before).await;
    each_settled_once(&worker);
}

#[tokio::test]
async fn a_job_over_its_time_ends_and_a_process_is_replaced_after_its_jobs() {
    let worker = Worker::start(|setup| {
        let setup = setup.set("comfy.job_deadline", "3 s").set("comfy.interrupt_grace", "8 s");
        setup.set("comfy.stop_grace", "1 s").set("comfy.recycle_after_jobs", "2")
    })
    .await;
    let first = worker.comfy().unwrap();
    // It obeys the interrupt: the process lives on.
    worker.caller.run(&workflow::steps(10_000, 0.05)).await.failed("timeout");
    assert_eq!(worker.comfy(), Some(first));
    // The second job is the last of this process.
    worker.caller.run(&workflow::save_one()).await.done();
    recovered(&worker, first).await;
    let second = worker.comfy().unwrap();
    // It does not obey: the process goes with it.
    worker.caller.run(&workflow::block(600.0, "sleep")).await.failed("timeout");
    recovered(&worker, second).await;
    each_settled_once(&worker);
    // To be replaced in good order is no fall. (A life that has just begun says so until its first beat.)
    eventually("a ready worker", Duration::from_secs(10), async || {
        let picture = worker.gpu.picture().await;
        let well = picture["ready"] == json!(true) && picture["live"] == json!(true);
        if well { Ok(()) } else { Err(picture.to_string()) }
    })
    .await;
    let picture = worker.gpu.picture().await;
    let part = |picture: &Value| picture["parts"].as_array().unwrap().iter().find(|p| p["name"] == "comfy-0").cloned();
    assert!(part(&picture).is_some(), "{picture}");
}
