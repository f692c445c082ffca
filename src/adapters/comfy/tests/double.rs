//! Runs over the double.

use serde_json::json;
use tokio::sync::mpsc;

use super::support::{World, failure, job, new_prompt, run, through, workflow};
use crate::domain::job::{FailureCode, ImageSource, InputImage, OutputKind};
use crate::domain::secret::Secret;
use crate::ports::comfy::RunEvent;

#[tokio::test]
async fn a_job_comes_back_and_nothing_of_it_stays() {
    let world = World::of_double(&[], |_| {});
    let instance = world.ready().await;
    let prompt = new_prompt();
    let (events, mut heard) = mpsc::channel(100);
    let mut wanted = job(&workflow("01"));
    wanted.wants.history = true;
    let report = instance.run(&wanted, prompt, events).await;
    assert!(report.failure.is_none());
    assert_eq!(report.prompt_id, prompt);
    let [output] = report.outputs.as_slice() else { panic!("one output") };
    assert_eq!((output.kind, output.mime, output.node.as_str()), (OutputKind::Image, "image/png", "2"));
    assert!(output.data.bytes().starts_with(b"\x89PNG"));
    let history: serde_json::Value = serde_json::from_slice(report.history.expect("wanted").bytes()).expect("JSON");
    assert_eq!(history["status"]["status_str"], "success");
    let mut kinds = Vec::new();
    while let Ok(event) = heard.try_recv() {
        kinds.push(match event {
            RunEvent::Accepted => "accepted",
            RunEvent::Progress(_) => "progress",
            RunEvent::Sign => "sign",
        });
    }
    assert!(kinds.contains(&"accepted") && kinds.contains(&"progress") && kinds.contains(&"sign"), "{kinds:?}");

    assert_eq!(world.files().len(), 1);
    instance.clean(prompt).await.expect("cleaned");
    assert!(world.files().is_empty(), "{:?}", world.files());
    let again = run(&instance, &job(&workflow("01"))).await;
    assert!(again.failure.is_none(), "the same prompt runs again though its file was swept");
    assert_eq!(again.outputs[0].data, output.data);
    assert!(again.history.is_none());
    world.end(&instance).await;
}

#[tokio::test]
async fn every_kind_of_output_is_found_in_its_place() {
    let world = World::of_double(&[], |_| {});
    let instance = world.ready().await;
    for (number, kinds) in [
        ("02", vec![OutputKind::Image; 4]),
        ("03", vec![OutputKind::Image; 2]),
        ("05", vec![OutputKind::Image; 2]),
        ("07", vec![OutputKind::Video]),
        ("08", vec![OutputKind::Audio]),
        ("09", vec![OutputKind::Latent]),
        ("10", vec![OutputKind::Animated]),
        ("11", vec![OutputKind::Text]),
    ] {
        let report = run(&instance, &job(&workflow(number))).await;
        assert!(report.failure.is_none(), "{number}: {:?}", failure(&report));
        let found: Vec<_> = report.outputs.iter().map(|output| output.kind).collect();
        assert_eq!(found, kinds, "{number}");
        assert!(report.outputs.iter().all(|output| output.data.len() > 0), "{number}");
    }
    world.end(&instance).await;
}

#[tokio::test]
async fn input_images_lie_where_the_prompt_looks_for_them() {
    let world = World::of_double(&[], |_| {});
    let instance = world.ready().await;
    let picture = run(&instance, &job(&workflow("01"))).await.outputs.remove(0).data;
    let mut loading = workflow("06");
    loading["1"]["inputs"]["image"] = json!("photo of me.png");
    let mut with_image = job(&loading);
    let image = |name: &str, source| InputImage { name: name.to_owned(), source };
    with_image.images = vec![image("photo of me.png", ImageSource::Bytes(picture.clone()))];
    let report = run(&instance, &with_image).await;
    assert!(report.failure.is_none(), "{:?}", failure(&report));
    instance.clean(report.prompt_id).await.expect("cleaned");
    assert!(world.files().is_empty());

    for (images, says) in [
        (vec![image("a.png", ImageSource::Url(Secret::from("https://a".to_owned())))], "was not fetched"),
        (vec![image("../a.png", ImageSource::Bytes(picture.clone()))], "under its name"),
        (
            vec![image("a.png", ImageSource::Bytes(picture.clone())), image("a.png", ImageSource::Bytes(picture))],
            "same name",
        ),
    ] {
        with_image.images = images;
        let report = run(&instance, &with_image).await;
        let (code, summary) = failure(&report);
        assert!(code == FailureCode::Input && summary.contains(says), "{summary}");
        instance.clean(report.prompt_id).await.expect("cleaned");
    }
    world.end(&instance).await;
}

#[tokio::test]
async fn refusals_exceptions_and_partial_prompts_are_told_apart() {
    let world = World::of_double(&[], |_| {});
    let instance = world.ready().await;
    for number in ["30", "31", "32", "33", "34", "37"] {
        let report = run(&instance, &job(&workflow(number))).await;
        assert_eq!(failure(&report).0, FailureCode::Validation, "{number}");
        assert!(report.outputs.is_empty());
    }
    let report = run(&instance, &job(&json!([1]))).await;
    assert_eq!(failure(&report), (FailureCode::Validation, "the prompt is no JSON object"));

    let report = run(&instance, &job(&workflow("36"))).await;
    assert_eq!(failure(&report).0, FailureCode::Validation);
    assert_eq!(report.outputs.len(), 1, "what is valid was made");

    let fail = |kind: &str| through("TestFail", json!({"kind": kind, "text": "SECRET", "amount": 1}));
    for (kind, code) in [("raise", FailureCode::NodeError), ("oom_error", FailureCode::OutOfMemory)] {
        let report = run(&instance, &job(&fail(kind))).await;
        assert_eq!(failure(&report).0, code);
        assert!(!failure(&report).1.contains("SECRET"));
    }
    world.end(&instance).await;
}

#[tokio::test]
async fn previews_come_only_where_they_are_wanted() {
    let world = World::of_double(&[], |_| {});
    let instance = world.ready().await;
    let steps = through("TestSteps", json!({"steps": 3, "delay": 0.01, "preview": "JPEG"}));
    for wanted in [true, false] {
        let mut with_previews = job(&steps);
        with_previews.wants.previews = wanted;
        let (events, mut heard) = mpsc::channel(100);
        let report = instance.run(&with_previews, new_prompt(), events).await;
        assert!(report.failure.is_none() && report.outputs.len() == 1);
        let mut previews = 0;
        let mut last = None;
        while let Ok(event) = heard.try_recv() {
            if let RunEvent::Progress(progress) = event {
                if let Some(preview) = &progress.preview {
                    assert_eq!(preview.mime, "image/jpeg");
                    previews += 1;
                }
                last = Some(progress);
            }
        }
        assert_eq!(previews, if wanted { 3 } else { 0 });
        let last = last.expect("progress");
        assert_eq!((last.nodes_done, last.nodes), (3, 3));
    }
    world.end(&instance).await;
}

#[tokio::test]
async fn a_prompt_is_interrupted_where_it_is() {
    let world = World::of_double(&[], |_| {});
    let instance = world.ready().await;
    let long = job(&through("TestSteps", json!({"steps": 100_000, "delay": 0.01, "preview": "none"})));
    let (running, waiting) = (new_prompt(), new_prompt());
    let ((events, mut heard), (more_events, mut heard_second)) = (mpsc::channel(100), mpsc::channel(100));
    let rest = async {
        while !matches!(heard.recv().await, Some(RunEvent::Progress(progress)) if progress.max > 1.0) {}
        // The second waits behind the first: taken out of the queue, it ends without a word of ComfyUI's.
        let stopping = async {
            while !matches!(heard_second.recv().await, Some(RunEvent::Accepted)) {}
            instance.interrupt(waiting).await.expect("asked");
        };
        let (second, ()) = tokio::join!(instance.run(&long, waiting, more_events), stopping);
        instance.interrupt(running).await.expect("asked");
        second
    };
    let (first, second) = tokio::join!(instance.run(&long, running, events), rest);
    assert_eq!(failure(&second), (FailureCode::Interrupted, "the prompt was interrupted"));
    assert_eq!(failure(&first), (FailureCode::Interrupted, "the prompt was interrupted"));
    // One that was stopped before it was posted is not posted.
    let third = new_prompt();
    instance.interrupt(third).await.expect("asked");
    let report = instance.run(&long, third, mpsc::channel(1).0).await;
    assert_eq!(failure(&report).0, FailureCode::Interrupted);
    world.end(&instance).await;
}

#[tokio::test]
async fn outputs_over_the_limit_cannot_be_sent() {
    let world = World::of_double(&[], |settings| settings.output_bytes = 200);
    let instance = world.ready().await;
    let report = run(&instance, &job(&workflow("02"))).await;
    let (code, summary) = failure(&report);
    assert!(code == FailureCode::Unsendable && summary.contains("limit of 200 bytes"), "{summary}");
    world.end(&instance).await;
}
