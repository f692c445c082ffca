//! Starting, stopping, restarting: exit codes, drains, taken places, and what readiness names.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::daemon::{Home, command};
use crate::support::{Daemon, Settings, eventually};

async fn one_call_running(daemon: &Daemon, timeout_ms: u64) -> tokio::task::JoinHandle<crate::support::Answer> {
    let client = daemon.client();
    let source = "export const handler = () => new Promise((done) => setTimeout(() => done('finished'), 2500))";
    let id = client.environment("bun", source).await;
    let call = tokio::spawn(async move { client.execute(&id, json!({ "limits": { "timeoutMs": timeout_ms } })).await });
    eventually("a running call", Duration::from_secs(20), async || {
        let (_, picture) = daemon.health("/healthz").await?;
        if picture["pool"]["running"] == 1 { Ok(()) } else { Err(picture.to_string()) }
    })
    .await;
    call
}

#[tokio::test]
async fn sigterm_finishes_what_was_accepted_and_exits_0() {
    let mut daemon = Daemon::start().await;
    let call = one_call_running(&daemon, 20_000).await;
    daemon.signal(Signal::SIGTERM);
    assert_eq!(call.await.unwrap().expect("ok").result(), "finished");
    assert_eq!(daemon.ended(Duration::from_secs(20)).await.code(), Some(0));
    daemon.assert_nothing_left().await;
    assert!(!daemon.health_socket().exists(), "the socket is taken away");
}

#[tokio::test]
async fn a_second_sigterm_hurries() {
    let mut daemon = Daemon::start().await;
    let client = daemon.client();
    let id = client.environment("bun", "export const handler = () => new Promise((d) => setTimeout(d, 50000))").await;
    let call = tokio::spawn(async move { client.execute(&id, json!({ "limits": { "timeoutMs": 60000 } })).await });
    eventually("a running call", Duration::from_secs(20), async || {
        let (_, picture) = daemon.health("/healthz").await?;
        if picture["pool"]["running"] == 1 { Ok(()) } else { Err(picture.to_string()) }
    })
    .await;
    daemon.signal(Signal::SIGTERM);
    eventually("a drain", Duration::from_secs(5), async || {
        let (status, _) = daemon.health("/readyz").await?;
        if status == 503 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    daemon.signal(Signal::SIGTERM);
    call.await.unwrap().expect("cancelled");
    assert_eq!(daemon.ended(Duration::from_secs(10)).await.code(), Some(0));
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn a_taken_port_and_a_taken_state_are_errors_69() {
    let daemon = Daemon::start().await;
    let port = daemon.url.rsplit(':').next().unwrap();
    let elsewhere = Home::new();
    let output = command(&elsewhere, &Settings::default().env("PORT", port)).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(crate::support::host::subtrees(&elsewhere), Vec::<std::path::PathBuf>::new());
    let output = command(&daemon.home, &Settings::default()).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(daemon.health("/readyz").await.unwrap().0, 200, "the first daemon is not disturbed");
}

#[tokio::test]
async fn environments_survive_a_restart() {
    let mut daemon = Daemon::start().await;
    let client = daemon.client();
    let id = client.environment("deno", "export const handler = (e) => e.data * 2").await;
    daemon.signal(Signal::SIGTERM);
    daemon.ended(Duration::from_secs(10)).await;
    let daemon = Daemon::start_in(std::sync::Arc::clone(&daemon.home), Settings::default()).await;
    let answer = daemon.client().execute(&id, json!({ "data": 21, "limits": { "timeoutMs": 20000 } })).await;
    assert_eq!(answer.expect("ok").result(), 42);
}

#[tokio::test]
async fn a_store_that_is_gone_does_not_take_the_volumes_along() {
    let mut daemon = Daemon::start().await;
    let id = daemon.client().environment("bun", "export const handler = () => 1").await;
    daemon.signal(Signal::SIGTERM);
    daemon.ended(Duration::from_secs(10)).await;
    std::fs::remove_file(daemon.home.state().join("cloister.db")).unwrap();
    let output = command(&daemon.home, &Settings::default()).output().unwrap();
    assert_eq!(output.status.code(), Some(69));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("1 volumes") && told.contains("backup"), "{told}");
    assert!(daemon.home.state().join("volumes").join(format!("tee-env-{id}")).exists());
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let settings = Settings::default()
        .env("RUNTIME_IMAGE_DENO", "/nowhere/deno")
        .env("RUNTIME_IMAGE_BUN", "/nowhere/bun")
        .without_waiting();
    let daemon = Daemon::start_with(settings).await;
    eventually("a reason", Duration::from_secs(20), async || {
        let (status, picture) = daemon.health("/readyz").await?;
        let told = picture.to_string();
        if status == 503 && told.contains("deno") && told.contains("set-up") { Ok(()) } else { Err(told) }
    })
    .await;
    let request = json!({ "mainModule": "a.js", "modules": { "a.js": "export const handler = () => 1" } });
    let made = daemon.client().set_up(request).await;
    let id = made.json["id"].as_str().unwrap().to_owned();
    daemon.client().execute(&id, json!({})).await.expect_error(500, "execution_failed");
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn without_gvisor_it_says_so_at_start_in_readiness_and_in_every_answer() {
    let daemon = Daemon::start_with(Settings::default().env("DISABLE_GVISOR", "true")).await;
    assert!(daemon.log_text().to_lowercase().contains("gvisor"), "{}", daemon.log_text());
    let (_, picture) = daemon.health("/healthz").await.unwrap();
    assert!(picture["warnings"].to_string().to_lowercase().contains("gvisor"), "{picture}");
    let client = daemon.client();
    for runtime in crate::support::RUNTIMES {
        let answer = client
            .try_out(
                runtime,
                "export const handler = (e) => e.data",
                json!({ "data": 5, "limits": { "timeoutMs": 20000 } }),
            )
            .await;
        assert_eq!(answer.expect("ok").result(), 5);
        assert_eq!(answer.json["isolated"], false, "{}", answer.text);
    }
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn a_full_disk_is_a_clear_error_and_leaves_nothing() {
    let home = std::sync::Arc::new(Home::new());
    std::fs::create_dir_all(home.state().join("volumes")).unwrap();
    let volumes = home.state().join("volumes");
    let small =
        nix::mount::mount(Some("tmpfs"), &volumes, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=64k"));
    small.unwrap();
    let daemon = Daemon::start_in(std::sync::Arc::clone(&home), Settings::default()).await;
    let client = daemon.client();
    let large = json!({ "mainModule": "a.js", "modules": { "a.js": format!("//{}", "x".repeat(1 << 20)) } });
    let answer = client.set_up(large).await;
    answer.expect_error(500, "setup_failed");
    assert!(answer.text.to_lowercase().contains("space"), "{}", answer.text);
    assert_eq!(std::fs::read_dir(&volumes).unwrap().count(), 0);
    assert_eq!(client.send("GET", "/environments", None).await.json, json!([]));
    client.environment("bun", "export const handler = () => 1").await;
    drop(daemon);
    nix::mount::umount2(&volumes, nix::mount::MntFlags::MNT_DETACH).unwrap();
}
