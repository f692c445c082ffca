//! The real RunPod SDK on the platform double, as worker and as client.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::platform::{Call, Exchange, Options, Platform, Reply, job::Status};

/// A script of `tests/oracle` in the venv that set-up made, in a clean home.
fn script(name: &str, home: &TempDir) -> Command {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let state = std::env::var_os("CLOISTER_STATE_DIR").map_or_else(|| root.join(".cloister"), PathBuf::from);
    let python = state.join("oracle/bin/python");
    assert!(python.exists(), "no RunPod SDK at {}: run `make setup` first", python.display());
    let mut command = Command::new(python);
    command.arg(root.join("tests/oracle").join(name)).current_dir(home.path());
    command.env_clear().env("HOME", home.path()).env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    command
}

/// A worker of the real SDK; its whole process group ends with it.
struct Worker {
    child: Child,
    _home: TempDir,
}

impl Worker {
    fn start(platform: &Platform) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut command = script("echo_worker.py", &home);
        command.envs(platform.worker_env("pod0oracle")).process_group(0);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { child, _home: home }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// The exit code, once it has ended.
    async fn ended(mut self) -> Option<i32> {
        tokio::task::spawn_blocking(move || self.child.wait().unwrap().code()).await.unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

fn quick() -> Platform {
    let second = Duration::from_secs(1);
    Platform::start_with(Options { hold: second, ping_interval: second, ..Options::default() })
}

#[tokio::test]
async fn the_sdk_works_as_a_worker() {
    let platform = quick();
    let _worker = Worker::start(&platform);
    let plain = platform.submit(json!({"text": "Grüße"}));
    let failing = platform.submit(json!({"raise": "boom"}));
    let told = platform.submit(json!({"steps": 2, "seconds": 1.5}));

    let plain = platform.settled(&plain).await;
    assert_eq!((plain.status, plain.output), (Status::Completed, Some(json!({"echo": {"text": "Grüße"}}))));
    let failing = platform.settled(&failing).await;
    let error = failing.error.and_then(|error| error.as_str().map(str::to_owned)).unwrap();
    assert_eq!(failing.status, Status::Failed);
    assert!(error.contains("boom"), "{error}");
    let told = platform.settled(&told).await;
    assert_eq!(told.progress.len(), 2);

    platform.look(|state| {
        state.assert_settled_once();
        state.assert_progress_before_done();
        state.assert_heartbeats(Duration::from_secs(1), Duration::from_millis(1500));
        let take = state.calls(Call::Take).next().unwrap();
        assert_eq!(take.header("authorization"), Some(platform.options().api_key.as_str()));
        assert_eq!(take.parameter("job_in_progress"), Some("0"));
        let done = state.calls(Call::Done).next().unwrap();
        assert_eq!(done.parameter("isStream"), Some("false"));
        assert_eq!(done.header("x-request-id"), done.job());
    });
}

#[tokio::test]
async fn the_sdk_drops_a_stopped_job_and_ends_at_sigterm() {
    let platform = quick();
    let worker = Worker::start(&platform);
    let long = platform.submit(json!({"seconds": 60}));
    let is_named = |ping: &Exchange| ping.pinged().contains(&long.as_str());
    platform
        .until("a heartbeat that names it", |state| state.calls(Call::Ping).find(|ping| is_named(ping)).map(drop))
        .await;
    platform.stop(&[&long, "job-unknown"]);
    let after = platform.submit(json!({"after": true}));
    platform.settled(&after).await;
    assert_eq!(platform.look(|state| state.jobs[&long].finals.len()), 0);

    kill(worker.pid(), Signal::SIGTERM).unwrap();
    assert_eq!(worker.ended().await, Some(0));
}

#[tokio::test]
async fn the_sdk_retries_a_result_on_503_and_loses_it_to_a_reset() {
    let platform = quick();
    let _worker = Worker::start(&platform);
    platform.next(Call::Done, Reply::status(503));
    let retried = platform.submit(json!({"n": 1}));
    assert_eq!(platform.settled(&retried).await.finals.len(), 1);
    assert_eq!(platform.look(|state| state.calls(Call::Done).count()), 2);

    platform.next(Call::Done, Reply::ResetAfterBody { kept: false });
    let lost = platform.submit(json!({"n": 2}));
    let next = platform.submit(json!({"n": 3}));
    platform.settled(&next).await;
    assert_eq!(platform.look(|state| state.jobs[&lost].status), Status::InProgress);
}

#[tokio::test]
async fn the_sdk_works_as_a_client() {
    let platform = quick();
    let _worker = Worker::start(&platform);
    let home = tempfile::tempdir().unwrap();
    let mut client = script("endpoint_client.py", &home);
    client.env("RUNPOD_ENDPOINT_BASE_URL", platform.url()).env("RUNPOD_API_KEY", &platform.options().api_key);
    client.env("RUNPOD_ENDPOINT_ID", &platform.options().endpoint).arg(r#"{"text": "hello"}"#);
    let ended = tokio::task::spawn_blocking(move || client.output().unwrap()).await.unwrap();
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{errors}\n{}", platform.look(|state| state.summary()));
    let seen: Value = serde_json::from_slice(&ended.stdout).unwrap();

    let echoed = json!({"echo": {"text": "hello"}});
    assert_eq!((&seen["output"], &seen["sync"]), (&echoed, &echoed));
    assert_eq!(seen["last"], "COMPLETED");
    assert_eq!(seen["cancelled"]["status"], "CANCELLED");
    assert_eq!(seen["health"]["jobs"]["completed"], 2);
    assert_eq!(platform.settled(seen["id"].as_str().unwrap()).await.status, Status::Completed);
}
