//! P10, first half: process start to the first call for a job.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::rival;
use super::support::daemon::{Home, Settings, command};
use super::support::platform::{Call, Platform};
use super::table::Row;

const ROUNDS: usize = 11;
/// The SDK takes seconds.
const ROUNDS_OF_SDK: usize = 5;

pub async fn row() -> Row {
    let home = Home::new();
    let (mut ours, mut sdk) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let span = daemon(&home).await;
        // The first start also makes the store, and looks at runsc for the first time.
        if round > 0 {
            ours.push(span);
        }
        if round < ROUNDS_OF_SDK {
            let platform = Platform::start();
            let worker = rival::sdk(&platform, 1);
            sdk.push(first_call(&platform, worker.spawned).await);
        }
    }
    Row {
        name: "P10",
        what: "process start → first job asked for".to_owned(),
        measure:
            "spawn → the head of the first job-take at the platform; DRY_RUN=1, sandboxes on, state directory in use \
                  before"
                .to_owned(),
        goal: "≤ 60 ms",
        tried: ROUNDS,
        failed: 0,
        ..Row::beside_sdk(&ours, &sdk, Duration::from_millis(60))
    }
}

async fn daemon(home: &Home) -> Duration {
    let platform = Platform::start();
    let mut settings = Settings::default().env("DRY_RUN", "1");
    settings.env.extend(platform.worker_env("pod-of-the-benchmark"));
    let mut command = command(home, &settings);
    let began = Instant::now();
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let span = first_call(&platform, began).await;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    child.wait().unwrap();
    span
}

async fn first_call(platform: &Platform, began: Instant) -> Duration {
    platform.arrived(Call::Take, 1).await;
    platform.look(|state| state.calls(Call::Take).next().map(|take| take.arrived - began)).unwrap()
}
