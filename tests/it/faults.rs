//! Sudden deaths: of the daemon at every step, of the sentry and of the gofer (TESTING §2).

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::support::daemon::Home;
use crate::support::{Client, Daemon, RUNTIMES, Settings, eventually, host};

const SLOW: &str = "export const handler = () => new Promise((done) => setTimeout(() => done(1), 30000))";
const QUICK: &str = "export const handler = () => 1";

/// A step of a call's or an environment's life at which the daemon is killed.
#[derive(Debug, Clone, Copy)]
enum Step {
    SetUp,
    Boot,
    Run,
    Settle,
    Delete,
}

fn in_background(client: &Client, method: &'static str, path: String, body: Option<String>) {
    let client = client.clone();
    tokio::spawn(async move {
        let mut request = client.request(method, &path).bearer_auth(crate::support::daemon::TOKEN);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        // The daemon dies under this request: whatever comes of it is not what the test looks at.
        drop(request.send().await);
    });
}

async fn has_slot(daemon: &Daemon) {
    eventually("a slot", Duration::from_secs(20), async || {
        if host::slot_processes(&daemon.home).is_empty() { Err("none yet".into()) } else { Ok(()) }
    })
    .await;
}

async fn is_running(daemon: &Daemon) {
    eventually("a running call", Duration::from_secs(20), async || {
        let (_, picture) = daemon.health("/healthz").await?;
        if picture["pool"]["running"] == 1 { Ok(()) } else { Err(picture.to_string()) }
    })
    .await;
}

async fn bring_to(daemon: &Daemon, step: Step, runtime: &str) {
    let client = daemon.client();
    let execute = |id: &str| format!("/environments/{id}/execute");
    let long = Some(json!({ "limits": { "timeoutMs": 60000 } }).to_string());
    match step {
        Step::SetUp => {
            let request =
                json!({ "mainModule": "a.ts", "modules": { "a.ts": "export const handler = (): number => 1" } });
            in_background(&client, "POST", "/environments/setup".into(), Some(request.to_string()));
            has_slot(daemon).await;
        }
        Step::Boot => {
            let id = client.environment(runtime, SLOW).await;
            in_background(&client, "POST", execute(&id), long);
            has_slot(daemon).await;
        }
        Step::Run => {
            let id = client.environment(runtime, SLOW).await;
            in_background(&client, "POST", execute(&id), long);
            is_running(daemon).await;
        }
        Step::Settle => {
            let id = client.environment(runtime, QUICK).await;
            client.execute(&id, json!({ "limits": { "timeoutMs": 30000 } })).await.expect("ok");
        }
        Step::Delete => {
            let id = client.environment(runtime, SLOW).await;
            in_background(&client, "POST", execute(&id), long);
            is_running(daemon).await;
            in_background(&client, "DELETE", format!("/environments/{id}"), None);
            eventually("a deletion", Duration::from_secs(20), async || {
                let answer = client.send("GET", &format!("/environments/{id}"), None).await;
                if answer.status == 404 { Ok(()) } else { Err(answer.text) }
            })
            .await;
        }
    }
}

#[tokio::test]
async fn kill_9_of_the_daemon_at_every_step_leaves_nothing_after_the_next_start() {
    let mut home = Arc::new(crate::support::daemon::Home::new());
    for runtime in RUNTIMES {
        for step in [Step::SetUp, Step::Boot, Step::Run, Step::Settle, Step::Delete] {
            let daemon = Daemon::start_in(Arc::clone(&home), Settings::default()).await;
            bring_to(&daemon, step, runtime).await;
            home = daemon.kill_only();
            let next = Daemon::start_in(Arc::clone(&home), Settings::default()).await;
            next.assert_nothing_left().await;
            let client = next.client();
            eventually("records and volumes to agree", Duration::from_secs(10), async || {
                let listed = client.send("GET", "/environments", None).await.json.as_array().unwrap().len();
                let volumes = std::fs::read_dir(home.state().join("volumes")).map_or(0, Iterator::count);
                if listed == volumes { Ok(()) } else { Err(format!("{step:?}: {listed} listed, {volumes} volumes")) }
            })
            .await;
            client.assert_healthy_call(runtime).await;
            next.assert_nothing_left().await;
            home = next.kill_only();
        }
    }
}

/// Processes of the one running slot whose command line says `part`.
fn parts(daemon: &Daemon, part: &str) -> Vec<i32> {
    let said = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains(part)
    };
    host::slot_processes(&daemon.home).into_iter().filter(said).collect()
}

#[tokio::test]
async fn kill_9_of_sentry_and_gofer_is_a_crash_and_a_stop_is_a_timeout() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    for runtime in RUNTIMES {
        let id = client.environment(runtime, SLOW).await;
        for (part, signal, outcomes) in [
            // `runsc run` exits with 137 both when its sentry is killed and when the handler kills itself.
            (" boot ", Signal::SIGKILL, &["sandbox_crashed", "no_result"][..]),
            (" gofer ", Signal::SIGKILL, &["sandbox_crashed", "no_result", "timeout"]),
            (" boot ", Signal::SIGSTOP, &["timeout"]),
            (" gofer ", Signal::SIGSTOP, &["timeout"]),
        ] {
            let call = tokio::spawn({
                let (client, id) = (client.clone(), id.clone());
                async move { client.execute(&id, json!({ "limits": { "timeoutMs": 4000 } })).await }
            });
            is_running(&daemon).await;
            let hit = parts(&daemon, part);
            assert!(!hit.is_empty(), "no process says {part:?}");
            for pid in hit {
                kill(Pid::from_raw(pid), signal).unwrap();
            }
            let answer = call.await.unwrap();
            assert!(outcomes.contains(&answer.outcome()), "{runtime}{part}{signal}: {}", answer.text);
            daemon.assert_nothing_left().await;
        }
        client.assert_healthy_call(runtime).await;
    }
}

/// A small disk for a daemon's state.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount_at(path: std::path::PathBuf) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=16m,mode=0755")).unwrap();
        Self(path)
    }

    fn filler(&self) -> std::path::PathBuf {
        self.0.join("filler")
    }

    fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.filler()).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn a_full_disk_is_named_until_there_is_room_again() {
    let home = Arc::new(Home::new());
    let disk = Disk::mount_at(home.state());
    let daemon = Daemon::start_in(home, Settings::default()).await;
    let client = daemon.client();
    let id = client.environment("bun", QUICK).await;
    client.execute(&id, json!({})).await.expect("ok");
    disk.fill();
    let refused = client.execute(&id, json!({})).await;
    assert!(refused.status == 500 && refused.text.contains("the disk is full"), "{}", refused.text);
    // For several beats: not only until the next one.
    let began = Instant::now();
    eventually("some beats", Duration::from_secs(20), async || {
        let (status, ready) = daemon.health("/readyz").await?;
        let past = began.elapsed();
        assert!(
            past < Duration::from_millis(1500) || status == 503 && ready.to_string().contains("the disk is full"),
            "{status} {ready}"
        );
        if past > Duration::from_secs(4) { Ok(()) } else { Err(format!("{past:?}")) }
    })
    .await;
    std::fs::remove_file(disk.filler()).unwrap();
    daemon.wait_ready().await;
    client.execute(&id, json!({})).await.expect("ok");
    client.delete(&id).await;
}
