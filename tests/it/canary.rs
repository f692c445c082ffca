//! A canary goes through every path of a sealed job, and is found nowhere: in no log, on no disk, on no command line, in
//! no environment, in no core file, in no answer of the health socket. The keys neither.

mod disk;
mod needles;
mod watch;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};

use crate::comfy_caller::{Caller, image};
use crate::comfy_worker::{Worker, failing, files_below, through};
use crate::support::daemon::TOKEN;
use crate::support::eventually;
use crate::support::gpu::sealed::{Keys, bytes};
use crate::support::gpu::{Gpu, free_ports, left, workflow};
use disk::DiskWatch;
use needles::Needles;
use watch::Watch;

/// Letters only: so that it passes wherever a name is taken.
fn canary() -> String {
    format!("canary{}", uuid::Uuid::new_v4().simple())
}

fn needles(canary: &str, keys: &Keys) -> Needles {
    let private = keys.private_base64();
    let raw = STANDARD.decode(&private).unwrap();
    Needles::default().with(canary.as_bytes()).with(&raw).with(private.as_bytes()).with(TOKEN.as_bytes())
}

#[tokio::test]
async fn a_canary_in_the_real_comfyuis_jobs_is_found_nowhere() {
    let canary = canary();
    let root = Arc::new(Mutex::new(None));
    let setup = |keys: &Keys| (needles(&canary, keys), Arc::clone(&root));
    let mut disk = None;
    let mut worker = Worker::start(|setup_of| {
        let (needles, root) = setup(setup_of.keys());
        disk = Some(DiskWatch::start(&watched(), root, needles));
        setup_of.set("log.level", "trace").env("LOG_SILENT", "1").set("comfy.stop_grace", "1 s")
    })
    .await;
    let needles = needles(&canary, &worker.gpu.keys);
    *root.lock().unwrap() = Some(worker.gpu.daemon.pid());
    let watch = Watch::start(&worker.gpu, needles.clone());

    through_every_kind_of_job(&worker.caller, &canary).await;
    errors(&worker.caller, &canary).await;
    refused_at_the_door(&worker.caller, &worker.gpu.keys, &canary).await;
    worker.assert_serves().await;
    let mut files = Vec::new();
    files_below(&worker.room(), &mut files);
    let holding: Vec<_> = files.into_iter().filter(|file| holds(&needles, file)).collect();
    assert_eq!(holding, Vec::<PathBuf>::new(), "in the RAM directory of an idle ComfyUI");
    no_core_can_be_made(worker.comfy().unwrap());
    for kind in ["os_exit", "segv", "abort"] {
        let prompt = through("TestFail", json!({ "kind": kind, "text": canary, "amount": 3 }));
        worker.caller.run(&prompt).await.failed("crashed");
        worker.ready().await;
    }
    worker.assert_serves().await;

    let (looks, found) = watch.end().await;
    assert!(looks > 10, "{looks}");
    assert_eq!(found, Vec::<String>::new());
    // A daemon that is aborted in the middle of a job leaves none either.
    let running = worker.caller.send(&with_text(&canary, "TestSteps")).await;
    worker.caller.reached(&running, "9").await;
    let home = worker.gpu.daemon.home.clone();
    worker.gpu.daemon.signal(Signal::SIGABRT);
    let ended = worker.gpu.daemon.ended(Duration::from_secs(20)).await;
    assert_eq!((ended.signal(), ended.core_dumped()), (Some(Signal::SIGABRT as i32), false));
    eventually("no ComfyUI without its daemon", Duration::from_secs(10), async || {
        let left = left::processes(&home);
        left.is_empty().then_some(()).ok_or_else(|| format!("{left:?}"))
    })
    .await;
    for folder in [Path::new("."), home.root.path(), Path::new("/tmp"), Path::new("/dev/shm")] {
        let cores: Vec<_> = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect();
        let fresh = cores.into_iter().filter(|path| is_core(path) && holds(&needles, path));
        assert_eq!(fresh.collect::<Vec<_>>(), Vec::<PathBuf>::new());
    }

    assert!(worker.gpu.log_of("job.settled").len() > 10, "the log is being read");
    let log = worker.gpu.daemon.log_text();
    assert!(!needles.are_in(log.as_bytes()), "in the log: {}", line_with(&needles, &log));
    let mut files = Vec::new();
    files_below(home.root.path(), &mut files);
    assert!(files.iter().any(|file| file.ends_with("cloister.db")), "{files:?}");
    let holding: Vec<_> = files.into_iter().filter(|file| holds(&needles, file)).collect();
    assert_eq!(holding, Vec::<PathBuf>::new());

    // The watch is not blind: it sees the daemon's own files, and a canary that is written and removed at once.
    let planted = home.root.path().join("planted");
    let script = format!("echo {canary} > {0}; rm {0}", planted.display());
    assert!(std::process::Command::new("sh").args(["-c", &script]).status().unwrap().success());
    let seen = disk.unwrap().end();
    assert!(!seen.overflown && seen.written.iter().any(|path| path.starts_with(home.root.path().join("state"))));
    let found: Vec<_> = seen.found.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    assert!(found.iter().all(|path| path.starts_with(&*planted.to_string_lossy())), "{found:?}");
    assert_eq!(found.len(), 1, "{:?}", seen.written);
}

#[tokio::test]
async fn a_canary_is_in_no_log_of_any_level() {
    for level in ["error", "warn", "info", "debug"] {
        let canary = canary();
        // Quiet levels do not tell the address.
        let port = free_ports(1).to_string();
        let gpu = Gpu::double().set("log.level", level).env("PORT", &port).start().await;
        let caller = Caller::new(&gpu.daemon.url, &gpu.keys);
        let needles = needles(&canary, &gpu.keys);
        let watch = Watch::start(&gpu, needles.clone());
        errors(&caller, &canary).await;
        refused_at_the_door(&caller, &gpu.keys, &canary).await;
        caller.run(&with_text(&canary, "TestText")).await.done();
        let (_, found) = watch.end().await;
        assert_eq!(found, Vec::<String>::new(), "{level}");
        let log = gpu.daemon.log_text();
        assert!(!needles.are_in(log.as_bytes()), "{level}: {}", line_with(&needles, &log));
    }
}

/// The file systems of the state, of the working directory, and of the places where programs leave things.
fn watched() -> Vec<&'static Path> {
    ["/", "/tmp", "/var/tmp", env!("CARGO_MANIFEST_DIR")].map(Path::new).to_vec()
}

fn with_text(canary: &str, class: &str) -> Value {
    let mut prompt = match class {
        "TestSteps" => through(class, json!({ "steps": 1000, "delay": 0.05, "preview": "none" })),
        class => through(class, json!({ "text": canary })),
    };
    prompt["2"]["inputs"]["filename_prefix"] = json!(canary);
    prompt
}

/// Prompt text, file name, image name, the image's own bytes, a text frame, a preview, the reply, v1.
async fn through_every_kind_of_job(caller: &Caller, canary: &str) {
    let mut text = workflow::fixture("11_text_preview_any");
    text["1"]["inputs"]["value"] = json!(canary);
    let ended = caller.run_with(&text, json!({ "reply": { "history": true } })).await.done();
    assert_eq!(ended.outputs()[0].data, canary.as_bytes(), "the reply holds it");
    assert!(ended.reply["history"].to_string().contains(canary));

    for class in ["EmptyImage", "SaveImageWebsocket", "PreviewImage"] {
        let mut prompt = with_text(canary, "TestText");
        if class != "EmptyImage" {
            prompt["3"] = json!({ "class_type": class, "inputs": { "images": ["1", 0] } });
        }
        let ended = caller.run_with(&prompt, json!({ "client_id": canary })).await.done();
        assert!(ended.outputs().iter().any(|output| output.filename.starts_with(canary)));
    }
    for name in ["08_audio_flac", "09_latent", "10_animated_webp"] {
        let mut prompt = workflow::fixture(name);
        prompt["2"]["inputs"]["filename_prefix"] = json!(format!("{canary}/{canary}"));
        caller.run(&prompt).await.done();
    }
    let picture = caller.run(&workflow::save_one()).await.done().outputs().remove(0).data;
    // A picture's reader stops at its end; what comes after is in the file all the same.
    let marked = [&picture, canary.as_bytes()].concat();
    let mut load = workflow::fixture("06_load_invert_save");
    load["1"]["inputs"]["image"] = json!(format!("{canary}.png"));
    caller.run_with(&load, image(&format!("{canary}.png"), &marked)).await.done();

    let steps = through("TestSteps", json!({ "steps": 10, "delay": 0.1, "preview": "PNG" }));
    let sent = caller.send_with(&steps, json!({ "reply": { "previews": true } })).await;
    caller.updated(&sent, |update| update["preview"].is_object()).await;
    caller.ended(&sent).await.done();
}

/// An exception's message, and refusals that quote values, names of classes and ids of nodes.
async fn errors(caller: &Caller, canary: &str) {
    let raised = through("TestFail", json!({ "kind": "raise", "text": canary, "amount": 1 }));
    let ended = caller.run(&raised).await.failed("node_error");
    assert!(ended.reply["error"]["detail"].to_string().contains(canary), "{}", ended.reply["error"]);

    let mut unlisted = workflow::fixture("35_err_not_in_list");
    unlisted["1"]["inputs"]["ckpt_name"] = json!(canary);
    let mut unknown = workflow::fixture("30_err_missing_node");
    unknown["2"]["class_type"] = json!(canary);
    let mut dangling = workflow::fixture("37_err_dangling_link");
    dangling["2"]["inputs"]["images"] = json!([canary, 0]);
    let mut range = workflow::fixture("32_err_validation_range");
    range["1"]["inputs"]["width"] = json!(canary);
    let mut named = workflow::fixture("32_err_validation_range");
    named[canary] = named["2"].take();
    named.as_object_mut().unwrap().remove("2");
    for prompt in [unlisted, unknown, dangling, range, named] {
        let ended = caller.run(&prompt).await.failed("validation");
        assert!(!ended.public.to_string().contains(canary) && !ended.error.unwrap().contains(canary));
    }
    assert!(!caller.run(&failing("raise")).await.public.to_string().contains("boom"));
}

/// Bodies that are no jobs: nothing of them is in the answers, and nothing in the log.
async fn refused_at_the_door(caller: &Caller, keys: &Keys, canary: &str) {
    let of = |input: Value| json!({ "input": input });
    let sealed = |fields: Value| of(keys.v2(&fields).input);
    let mut wrong_nonce = keys.workflow(&workflow::save_one()).input;
    wrong_nonce["nonce"] = json!(STANDARD.encode([7; 24]));
    let mut wrong_kid = keys.workflow(&workflow::save_one()).input;
    wrong_kid["kid"] = json!(canary);
    assert!(!bytes(&wrong_kid["ciphertext"]).is_empty());
    for (status, body) in [
        (422, sealed(json!({ "workflow": canary }))),
        (422, sealed(json!({ "workflow": { canary: canary } }))),
        (400, sealed(json!({ "workflow": workflow::save_one(), "images": [{ "name": "a", "image": canary }] }))),
        (400, of(wrong_nonce)),
        (400, of(json!({ "encrypted": true, "epk": canary, "nonce": canary, "ciphertext": canary }))),
        (403, of(json!({ "workflow": { "1": { "class_type": canary, "inputs": {} } } }))),
        (400, json!({ canary: canary })),
    ] {
        let (seen, answer) = caller.ask(Method::POST, "/run", Some(body)).await;
        assert_eq!(seen, status, "{answer}");
        assert!(!answer.to_string().contains(canary), "{answer}");
    }
    let (seen, answer) = caller.ask(Method::POST, "/run", Some(of(wrong_kid))).await;
    assert!((400..500).contains(&seen) && !answer.to_string().contains(canary), "{seen} {answer}");
    let (seen, _) = caller.ask(Method::GET, &format!("/status/{canary}?of={canary}"), None).await;
    assert_eq!(seen, 404);
    let v1 = keys.v1(&json!({ canary: canary })).input;
    caller.ask(Method::POST, "/run", Some(of(v1))).await;
}

/// Neither a file nor, for a program that the kernel would hand a core to, memory in it.
fn no_core_can_be_made(pid: i32) {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(line.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{line}");
    let filter = std::fs::read_to_string(format!("/proc/{pid}/coredump_filter")).unwrap();
    assert_eq!(filter.trim(), "00000000");
}

fn is_core(path: &Path) -> bool {
    path.is_file() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core"))
}

fn holds(needles: &Needles, path: &Path) -> bool {
    needles.are_in(&std::fs::read(path).unwrap_or_default())
}

fn line_with(needles: &Needles, log: &str) -> String {
    log.lines().find(|line| needles.are_in(line.as_bytes())).unwrap_or_default().to_owned()
}
