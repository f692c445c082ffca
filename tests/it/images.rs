//! Runtimes as images: pulled from a real registry, from layouts and archives; tried, served, kept, and let go.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::daemon::Home;
use crate::support::oci::{Image, OciRegistry};
use crate::support::tier::Tier;
use crate::support::{Daemon, RUNTIMES, Settings, eventually};

/// For an image to be fetched, unpacked and tried, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn settings(registry: &OciRegistry, sources: &[(&str, &str)]) -> Settings {
    let settings = Settings::default()
        .set("sandbox.images.auth_file", registry.auth_file().to_str().unwrap())
        .set("sandbox.images.soak_starts", "3")
        .without_waiting();
    with_sources(settings, sources)
}

fn with_sources(settings: Settings, sources: &[(&str, &str)]) -> Settings {
    let variable = |runtime: &str| format!("RUNTIME_IMAGE_{}", runtime.to_uppercase());
    sources.iter().fold(settings, |settings, (runtime, source)| settings.env(&variable(runtime), source))
}

/// How the runtime's image stands.
async fn picture(daemon: &Daemon, runtime: &str) -> Value {
    let (_, body) = daemon.health("/healthz").await.unwrap_or_default();
    let images = body["images"].as_array().cloned().unwrap_or_default();
    images.into_iter().find(|image| image["runtime"] == runtime).unwrap_or_default()
}

async fn until(daemon: &Daemon, what: &str, runtime: &str, is_so: impl Fn(&Value) -> bool) {
    eventually(what, PATIENCE, async || {
        let seen = picture(daemon, runtime).await;
        if is_so(&seen) { Ok(()) } else { Err(format!("{seen}\n{}", daemon.log_text())) }
    })
    .await;
}

async fn until_serving(daemon: &Daemon, runtime: &str, digest: &str) {
    until(daemon, "an image that serves", runtime, |seen| seen["serving"] == digest).await;
}

async fn until_ready(daemon: &Daemon) {
    eventually("readiness", PATIENCE, async || match daemon.health("/readyz").await {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}\n{}", daemon.log_text())),
    })
    .await;
}

/// Sets a handler up, calls it, and takes it away.
async fn assert_it_runs(daemon: &Daemon, runtime: &str) {
    let source = "export const handler = (event) => event.data * 2;";
    let request = json!({ "mainModule": "main.ts", "modules": { "main.ts": source }, "runtime": runtime });
    let made = daemon.client().set_up(request).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let id = made.json["id"].as_str().unwrap();
    let body = json!({ "data": 21, "limits": { "timeoutMs": 30000 } });
    assert_eq!(daemon.client().execute(id, body).await.expect("ok").result(), &json!(42), "{runtime}");
    assert_eq!(daemon.client().delete(id).await.status, 204);
}

fn has(folder: &Path, part: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| entry.unwrap().file_name().to_string_lossy().contains(part))
}

#[tokio::test]
async fn both_runtimes_run_from_a_registry_and_without_it_afterwards() {
    let registry = OciRegistry::start();
    let mut sources = Vec::new();
    for runtime in RUNTIMES {
        let image = Image::of(runtime, "1.0");
        sources.push((runtime, registry.push(&format!("team/{runtime}"), "1", &image).await, image.digest()));
    }
    let named: Vec<(&str, &str)> = sources.iter().map(|(runtime, source, _)| (*runtime, source.as_str())).collect();
    let settings = settings(&registry, &named);
    let mut daemon = Daemon::start_in(Arc::new(Home::new()), settings.clone()).await;
    until_ready(&daemon).await;
    for (runtime, _, digest) in &sources {
        until_serving(&daemon, runtime, digest).await;
        assert_it_runs(&daemon, runtime).await;
    }
    let log = daemon.log_text();
    assert!(!log.contains("test-pass") && !log.contains("cHVsbGVyOnRlc3QtcGFzcw"), "credentials in the log");
    assert!(!has(&daemon.home.state().join("images"), ".blobs"), "what was fetched is kept unpacked only");
    daemon.assert_nothing_left().await;
    daemon.signal(Signal::SIGTERM);
    daemon.ended(PATIENCE).await;

    // Nobody answers any more: what was pulled last serves, and readiness tells.
    let home = Arc::clone(&daemon.home);
    drop((daemon, registry));
    let daemon = Daemon::start_in(home, settings.clone()).await;
    until_ready(&daemon).await;
    for (runtime, _, digest) in &sources {
        until(&daemon, "what is known of old", runtime, |seen| {
            seen["serving"] == *digest && seen["problem"].as_str().is_some_and(|told| told.contains("found there last"))
        })
        .await;
        assert_it_runs(&daemon, runtime).await;
    }
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn a_new_image_is_soaked_and_a_broken_one_never_serves() {
    let registry = OciRegistry::start();
    let (first, second) = (Image::of("bun", "1.0"), Image::of("bun", "1.1"));
    let source = registry.push("bun", "stable", &first).await;
    let settings = settings(&registry, &[("bun", &source)]);
    let daemon = Daemon::start_in(Arc::new(Home::new()), settings.clone()).await;
    until_serving(&daemon, "bun", &first.digest()).await;

    registry.push("bun", "stable", &Image::broken("bun")).await;
    daemon.signal(Signal::SIGHUP);
    until(&daemon, "a refusal", "bun", |seen| seen["problem"].as_str().is_some_and(|told| told.contains("serves on")))
        .await;
    let seen = picture(&daemon, "bun").await;
    assert_eq!(seen["serving"], first.digest());
    assert!(seen["problem"].as_str().unwrap().contains("failed at start 1 of 3"), "{seen}");
    assert_it_runs(&daemon, "bun").await;

    registry.push("bun", "stable", &second).await;
    daemon.signal(Signal::SIGHUP);
    until(&daemon, "a trial", "bun", |seen| seen["onTrial"] == second.digest()).await;
    assert_eq!(picture(&daemon, "bun").await["serving"], first.digest(), "the former one serves until then");
    until_serving(&daemon, "bun", &second.digest()).await;
    assert_it_runs(&daemon, "bun").await;
    assert!(has(&daemon.home.state().join("images"), &first.digest()[7..]), "its sandboxes may still be there");
    daemon.assert_nothing_left().await;

    // Killed in the middle of another trial: what that left is gone after the next start, and so is what serves no more.
    registry.push("bun", "stable", &first).await;
    let home = daemon.kill_only();
    let endless = settings.clone().set("sandbox.images.soak_starts", "100000");
    let daemon = Daemon::start_in(home, endless).await;
    until(&daemon, "a trial", "bun", |seen| seen["passed"].as_u64() > Some(0)).await;
    let home = daemon.kill_only();
    let pinned = format!("{}@{}", source.rsplit_once(':').unwrap().0, second.digest());
    let daemon = Daemon::start_in(home, with_sources(settings, &[("bun", &pinned)])).await;
    until(&daemon, "the pinned image", "bun", |seen| seen["serving"] == second.digest() && seen["onTrial"].is_null())
        .await;
    eventually("an empty host", PATIENCE, async || {
        let slots = daemon.home.run().join("trial/slots");
        let left = std::fs::read_dir(&slots).map_or(0, Iterator::count);
        if left == 0 { Ok(()) } else { Err(format!("{left} slots of trials")) }
    })
    .await;
    daemon.assert_nothing_left().await;
    assert!(!has(&daemon.home.state().join("images"), &first.digest()[7..]), "nobody asks for it");
    assert_it_runs(&daemon, "bun").await;
}

#[tokio::test]
async fn layouts_and_archives_run_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let (layout, archive) = (dir.path().join("bun"), dir.path().join("deno.tar"));
    let (bun, deno) = (Image::of("bun", "1.0"), Image::of("deno", "1.0"));
    bun.lay_out(&layout);
    deno.archive(&archive);
    let sources = [("bun", layout.to_str().unwrap()), ("deno", archive.to_str().unwrap())];
    let daemon = Daemon::start_with(with_sources(Settings::default().without_waiting(), &sources)).await;
    until_ready(&daemon).await;
    for (runtime, digest) in [("bun", bun.digest()), ("deno", deno.digest())] {
        until_serving(&daemon, runtime, &digest).await;
        assert_it_runs(&daemon, runtime).await;
    }
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn what_stands_with_a_former_image_is_replaced_when_another_one_serves() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Image::of("bun", "1.0"), Image::of("bun", "1.1"));
    first.lay_out(dir.path());
    // One stands for each runtime, and one for the environment that is called.
    let tier = Settings { tier: Tier::Environment, ..Settings::default().without_waiting() };
    let settings = Tier::Environment.settings(tier).set("sandbox.standing.runtimes", "1");
    let settings = settings.set("sandbox.images.soak_starts", "3");
    let daemon = Daemon::start_with(with_sources(settings, &[("bun", dir.path().to_str().unwrap())])).await;
    until_serving(&daemon, "bun", &first.digest()).await;
    until_ready(&daemon).await;
    let client = daemon.client();
    let source = "const mark = require('fs').readFileSync('/etc/mark', 'utf8'); export const handler = () => mark;";
    let body = || json!({ "limits": { "timeoutMs": 30000 } });
    let id = client.environment("bun", source).await;
    for _ in 0..2 {
        assert_eq!(client.execute(&id, body()).await.expect("ok").result(), "1.0");
    }
    daemon.standing.wait_for(3).await;

    second.lay_out(dir.path());
    daemon.signal(Signal::SIGHUP);
    until_serving(&daemon, "bun", &second.digest()).await;
    daemon.standing.wait_for(3).await;
    let (own, other) = (client.execute(&id, body()).await, client.environment("bun", source).await);
    let runtimes = client.execute(&other, body()).await;
    for (answer, start) in [(own, "warm-environment"), (runtimes, "warm-runtime")] {
        assert_eq!((answer.expect("ok").result(), &answer.json["start"]), (&json!("1.1"), &json!(start)));
    }
    daemon.standing.wait_for(3).await;
    daemon.assert_nothing_left().await;
}

/// An address of this host that is not the loopback one. Nothing is sent.
fn own_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").ok()?;
    match socket.local_addr().unwrap().ip() {
        IpAddr::V4(address) if !address.is_loopback() && !address.is_unspecified() => Some(address),
        _ => None,
    }
}

#[tokio::test]
async fn a_registry_that_is_not_this_host_is_asked_over_tls_only() {
    let Some(address) = own_address() else {
        eprintln!("SKIP: this host has no address but the loopback one, and that is asked over plain HTTP");
        return;
    };
    let registry = OciRegistry::start_at(address);
    let image = Image::of("bun", "1.0");
    let source = registry.push("bun", "1", &image).await;
    let trusted = registry.certificate.clone().unwrap();
    let settings = settings(&registry, &[("bun", &source)]);
    let daemon = Daemon::start_in(Arc::new(Home::new()), settings.clone()).await;
    until(&daemon, "distrust", "bun", |seen| {
        seen["problem"].as_str().is_some_and(|told| told.contains("cannot be reached") && told.contains("certificate"))
    })
    .await;
    drop(daemon);
    let settings = settings.env("SSL_CERT_FILE", trusted.to_str().unwrap());
    let daemon = Daemon::start_in(Arc::new(Home::new()), settings).await;
    until_serving(&daemon, "bun", &image.digest()).await;
    assert_it_runs(&daemon, "bun").await;
}

#[tokio::test]
async fn an_image_that_cannot_be_had_is_told_and_the_rest_goes_on() {
    let registry = OciRegistry::start();
    let source = format!("{}/nothing/here:1", registry.address);
    let daemon = Daemon::start_in(Arc::new(Home::new()), settings(&registry, &[("bun", &source)])).await;
    until(&daemon, "the reason", "bun", |seen| {
        seen["problem"].as_str().is_some_and(|told| told.contains("answered 404") && told.contains("no such image"))
    })
    .await;
    eventually("the reason in readiness", PATIENCE, async || match daemon.health("/readyz").await {
        Ok((503, body)) if body["reasons"].to_string().contains("the bun runtime is not there yet") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_it_runs(&daemon, "deno").await;
}
