//! On the real ComfyUI, as set-up installed it: one process for all, since a start takes ten seconds of a core.

use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;

use super::support::{Instance, World, failure, job, new_prompt, run, through, workflow};
use crate::domain::job::{FailureCode, ImageSource, InputImage, OutputKind};
use crate::domain::secret::Secret;
use crate::ports::comfy::RunEvent;

#[tokio::test]
async fn the_real_one_is_served_from_its_start_to_its_crash() {
    let world = World::of_real(|_| {});
    let instance = world.ready().await;
    every_kind_of_output(&world, &instance).await;
    the_same_again(&world, &instance).await;
    an_input_image(&instance).await;
    refusals(&instance).await;
    exceptions(&instance).await;
    steps_and_an_interrupt(&instance).await;
    nothing_is_written_elsewhere(&world);
    a_zombie_is_followed_until_it_is_aborted(&world, &instance).await;
}

#[tokio::test]
async fn the_real_one_that_exits_under_a_job_is_told() {
    let world = World::of_real(|settings| settings.keep_models = false);
    let instance = world.ready().await;
    let first = run(&instance, &job(&workflow("01"))).await;
    assert!(first.failure.is_none());
    let exit = through("TestFail", json!({"kind": "os_exit", "text": "", "amount": 3}));
    let report = run(&instance, &job(&exit)).await;
    assert_eq!(failure(&report), (FailureCode::Crashed, "ComfyUI ended during the run: exit code 3"));
    world.end(&instance).await;
}

async fn every_kind_of_output(world: &World, instance: &Instance) {
    for (number, kind, count, mime) in [
        ("01", OutputKind::Image, 1, "image/png"),
        ("02", OutputKind::Image, 4, "image/png"),
        ("03", OutputKind::Image, 2, "image/png"),
        ("04", OutputKind::Image, 1, "image/png"),
        ("05", OutputKind::Image, 2, "image/png"),
        ("07", OutputKind::Video, 1, "video/mp4"),
        ("08", OutputKind::Audio, 1, "audio/flac"),
        ("09", OutputKind::Latent, 1, "application/octet-stream"),
        ("10", OutputKind::Animated, 1, "image/webp"),
        ("11", OutputKind::Text, 1, "text/plain"),
    ] {
        let mut wanted = job(&workflow(number));
        wanted.wants.history = true;
        let report = run(instance, &wanted).await;
        assert!(report.failure.is_none(), "{number}: {:?}", failure(&report));
        let found: Vec<_> = report.outputs.iter().map(|output| (output.kind, output.mime)).collect();
        assert_eq!(found, vec![(kind, mime); count], "{number}");
        assert!(report.outputs.iter().all(|output| output.data.len() > 0), "{number}");
        assert!(report.history.is_some(), "{number}");
        if number == "02" {
            assert!(report.outputs.iter().all(|output| output.filename.contains('/')), "with its subfolder");
        }
        instance.clean(report.prompt_id).await.expect("cleaned");
        assert!(world.files().is_empty(), "{number}: {:?}", world.files());
    }
}

/// The files of the first run are gone; what writes them runs again.
async fn the_same_again(world: &World, instance: &Instance) {
    for number in ["01", "04", "08"] {
        for _ in 0..3 {
            let report = run(instance, &job(&workflow(number))).await;
            assert!(report.failure.is_none() && report.outputs.len() == 1, "{number}");
            instance.clean(report.prompt_id).await.expect("cleaned");
        }
    }
    assert!(world.files().is_empty());
}

async fn an_input_image(instance: &Instance) {
    let picture = run(instance, &job(&workflow("01"))).await.outputs.remove(0).data;
    let mut prompt = workflow("06");
    let name = prompt["1"]["inputs"]["image"].as_str().expect("a name").to_owned();
    let missing = run(instance, &job(&prompt)).await;
    assert_eq!(failure(&missing).0, FailureCode::Validation);
    prompt["1"]["inputs"]["image"] = json!(name);
    let mut with_image = job(&prompt);
    with_image.images = vec![InputImage { name, source: ImageSource::Bytes(picture) }];
    let report = run(instance, &with_image).await;
    assert!(report.failure.is_none(), "{:?}", failure(&report));
    instance.clean(report.prompt_id).await.expect("cleaned");
}

async fn refusals(instance: &Instance) {
    for number in ["30", "31", "32", "33", "34", "35", "37", "38", "39"] {
        let report = run(instance, &job(&workflow(number))).await;
        let failure = report.failure.expect("refused");
        assert_eq!(failure.code, FailureCode::Validation, "{number}");
        assert!(failure.detail["type"].is_string(), "{number}");
    }
    let graph = json!({"nodes": [], "links": [], "version": 0.4});
    assert_eq!(
        failure(&run(instance, &job(&graph)).await),
        (FailureCode::Validation, "ComfyUI could not read the prompt")
    );
    let partial = run(instance, &job(&workflow("36"))).await;
    assert_eq!(failure(&partial).0, FailureCode::Validation);
    assert_eq!(partial.outputs.len(), 1);
}

async fn exceptions(instance: &Instance) {
    let fail = |kind: &str| through("TestFail", json!({"kind": kind, "text": "SECRET", "amount": 1}));
    for (prompt, code) in [
        (fail("raise"), FailureCode::NodeError),
        (fail("oom_error"), FailureCode::OutOfMemory),
        (workflow("40"), FailureCode::NodeError),
    ] {
        let mut failing = job(&prompt);
        if prompt["1"]["class_type"] == "LoadImage" {
            let name = prompt["1"]["inputs"]["image"].as_str().expect("a name").to_owned();
            let broken = ImageSource::Bytes(Secret::from("no picture".to_owned()));
            failing.images = vec![InputImage { name, source: broken }];
        }
        let report = run(instance, &failing).await;
        let failure = report.failure.expect("it raised");
        assert_eq!(failure.code, code, "{}", failure.summary);
        assert!(!failure.summary.contains("SECRET"));
        assert!(failure.detail["traceback"].is_array());
        instance.clean(report.prompt_id).await.expect("cleaned");
    }
}

async fn steps_and_an_interrupt(instance: &Instance) {
    let mut long = job(&through("TestSteps", json!({"steps": 10_000, "delay": 0.02, "preview": "JPEG"})));
    long.wants.previews = true;
    let prompt = new_prompt();
    let (events, mut heard) = mpsc::channel(100);
    let stopping = async {
        let has_preview = |event| matches!(event, Some(RunEvent::Progress(progress)) if progress.preview.is_some() && progress.max > 1.0);
        while !has_preview(heard.recv().await) {}
        instance.probe().await.expect("answers while it works");
        instance.interrupt(prompt).await.expect("asked");
    };
    let (report, ()) = tokio::join!(instance.run(&long, prompt, events), stopping);
    assert_eq!(failure(&report).0, FailureCode::Interrupted);
    let next = run(instance, &job(&workflow("01"))).await;
    assert!(next.failure.is_none(), "the next job is served as before");
}

/// What ComfyUI has open, and may write, lies in the room.
fn nothing_is_written_elsewhere(world: &World) {
    let room = world.room();
    let all = procfs::process::all_processes().expect("proc").filter_map(Result::ok);
    for process in all.filter(|process| process.cwd().is_ok_and(|cwd| cwd == room)) {
        for descriptor in process.fd().expect("descriptors").flatten() {
            let procfs::process::FDTarget::Path(path) = &descriptor.target else { continue };
            let written = descriptor.mode().intersects(procfs::process::FDPermissions::WRITE);
            let harmless = path.starts_with(&room) || path.starts_with("/dev");
            assert!(!written || harmless, "{}", path.display());
        }
    }
}

async fn a_zombie_is_followed_until_it_is_aborted(world: &World, instance: &Instance) {
    let prompt = through("TestFail", json!({"kind": "sysexit", "text": "", "amount": 1}));
    let (events, mut heard) = mpsc::channel(100);
    let zombie = job(&prompt);
    let ending = async {
        while !matches!(heard.recv().await, Some(RunEvent::Progress(progress)) if progress.node.as_deref() == Some("9"))
        {
        }
        instance.probe().await.expect("a zombie answers");
        instance.abort();
    };
    let (report, ()) = tokio::join!(instance.run(&zombie, new_prompt(), events), ending);
    assert_eq!(failure(&report), (FailureCode::Crashed, "ComfyUI ended during the run: signal 6 (SIGABRT)"));
    instance.stop(Duration::ZERO).await.expect("stops");
    world.assert_nothing_left();
}
