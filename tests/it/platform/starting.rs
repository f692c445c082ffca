//! A ComfyUI that does not come up, or takes its time.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::gpu::{Gpu, left, workflow};
use crate::support::platform::{Call, Options, State, job::Status};

const PING: Duration = Duration::from_millis(100);

fn options() -> Options {
    Options { ping_interval: PING, ..Options::default() }
}

#[tokio::test]
async fn failed_starts_are_reported_as_unhealthy_and_end_the_worker_with_1() {
    for switch in ["exit:1", "exit:0"] {
        let setup = Gpu::double().on(options()).switch("STARTS", switch).set("runpod.max_failed_starts", "3");
        let mut gpu = setup.without_waiting().start().await;
        let waiting = gpu.platform().submit(gpu.keys.workflow(&workflow::save_one()).input);
        assert_eq!(gpu.daemon.ended(Duration::from_secs(60)).await.code(), Some(1), "{}", gpu.daemon.log_text());
        gpu.platform().look(|state| {
            let [(check, reason)] = state.unhealthy.as_slice() else { panic!("{:?}", state.unhealthy) };
            assert_eq!(check, "comfyui_start");
            assert!(reason.contains("comfy-0") && reason.len() <= 256, "{reason}");
            assert_eq!(state.jobs[&waiting].status, Status::InQueue, "left to another worker");
            assert_eq!(state.calls(Call::Take).count(), 0);
        });
        let starts = std::fs::read(gpu.comfy_dir.join("comfy_double.starts")).unwrap();
        assert_eq!(starts.len(), 3);
        assert_eq!(left::beyond(&gpu.daemon.home, 0), Ok(()));
    }
}

#[tokio::test]
async fn one_instance_that_starts_keeps_the_worker_alive() {
    // Two starts fail, or two of each instance where both count at the same time; then all come up.
    let setup = Gpu::double().instances(2).on(options()).switch("STARTS", "exit:1,exit:1,ok");
    let gpu = setup.set("runpod.max_failed_starts", "3").start().await;
    let id = gpu.platform().submit(gpu.keys.workflow(&workflow::save_one()).input);
    assert_eq!(gpu.platform().settled(&id).await.status, Status::Completed);
    gpu.platform().look(|state: &State| assert!(state.unhealthy.is_empty(), "{:?}", state.unhealthy));
}

#[tokio::test]
async fn nothing_is_taken_before_comfyui_is_ready_and_the_platform_hears_of_the_worker_all_along() {
    let setup = Gpu::double().on(options()).switch("STARTS", "delay:3000").without_waiting();
    let gpu = setup.start().await;
    let id = gpu.platform().submit(gpu.keys.workflow(&workflow::save_one()).input);
    gpu.platform().arrived(Call::Ping, 10).await;
    assert_eq!(gpu.daemon.health("/readyz").await.unwrap().0, 503);
    let job = gpu.platform().settled(&id).await;
    assert_eq!((job.status, job.deliveries.len()), (Status::Completed, 1));
    gpu.platform().look(|state| {
        let first = state.calls(Call::Take).next().unwrap().arrived;
        let pings = state.calls(Call::Ping).filter(|ping| ping.arrived < first).count();
        assert!(pings >= 10, "{pings} heartbeats before the first poll");
        assert!(state.unhealthy.is_empty());
    });
}

#[tokio::test]
async fn a_start_that_never_ends_is_ended_and_tried_again() {
    let setup = Gpu::double().on(options()).switch("STARTS", "never,ok").set("comfy.start_deadline", "2 s");
    let gpu = setup.without_waiting().start().await;
    let id = gpu.platform().submit(gpu.keys.workflow(&workflow::save_one()).input);
    let job = gpu.platform().settled(&id).await;
    assert_eq!((job.status, job.deliveries.len()), (Status::Completed, 1));
    gpu.platform().look(|state| assert!(state.unhealthy.is_empty(), "{:?}", state.unhealthy));
    gpu.daemon.wait_ready().await;
    assert_eq!(left::beyond(&gpu.daemon.home, 1), Ok(()));
}

#[tokio::test]
async fn while_the_only_instance_is_restarted_nothing_is_taken() {
    let gpu = Gpu::double().on(options()).start().await;
    gpu.platform().arrived(Call::Take, 1).await;
    // The double reads its switches at its next start.
    gpu.switch(&[("STARTS", "delay:2000")]);
    let first = left::main_process(&gpu.daemon.home, 0).expect("a ComfyUI");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), Signal::SIGKILL).unwrap();
    gpu.platform().until("the poll's end", |state| state.calls(Call::Take).last()?.abandoned.then_some(())).await;
    let takes = gpu.platform().look(|state| state.calls(Call::Take).count());
    let pings = gpu.platform().look(|state| state.calls(Call::Ping).count());
    let id = gpu.platform().submit(gpu.keys.workflow(&workflow::save_one()).input);
    gpu.platform().arrived(Call::Ping, pings + 8).await;
    assert_eq!(gpu.platform().look(|state| state.calls(Call::Take).count()), takes, "no poll without an instance");
    let job = gpu.platform().settled(&id).await;
    assert_eq!((job.status, job.deliveries.len()), (Status::Completed, 1));
}
