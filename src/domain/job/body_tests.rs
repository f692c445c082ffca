//! The bodies, as callers read them.

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::domain::envelope::{EnvelopeVersion, Kid};
use crate::domain::job::{JobTimings, Preview, PromptId};

fn output(filename: &str, kind: OutputKind, mime: &'static str) -> Output {
    let data = Secret::new(b"abc".to_vec());
    Output { node: "9".into(), filename: filename.into(), kind, mime, data }
}

fn report(outputs: Vec<Output>, failure: Option<FailureCode>) -> ComfyReport {
    let detail = json!({ "node_errors": { "4": { "class_type": "K\"S" } } });
    ComfyReport {
        prompt_id: PromptId(Uuid::nil()),
        outputs,
        history: Some(Secret::from(r#"{"status":"x"}"#.to_owned())),
        failure: failure.map(|code| ComfyFailure { code, summary: "node 4 was refused".into(), detail }),
        timings: JobTimings { queue_ms: 1, run_ms: 20, collect_ms: 3 },
    }
}

fn two() -> Vec<Output> {
    vec![output("a\"b/x.png", OutputKind::Image, "image/png"), output("y.mp4", OutputKind::Video, "video/mp4")]
}

fn part() -> SealedPart {
    SealedPart { kid: Kid([0xab; 8]), nonce: [0; 24], ciphertext: b"sealed".to_vec() }
}

fn address() -> ReplyAddress {
    ReplyAddress { version: EnvelopeVersion::V2, kid: Kid([0xab; 8]), epk: [0; 32], request_id: "r-1".into() }
}

/// Both halves of an answer, each on a line of its own.
fn shown(answer: &Answer) -> String {
    let output = answer.output.as_ref().and_then(Secret::text).unwrap_or("-");
    if output != "-" {
        serde_json::from_str::<Value>(output).unwrap_or_else(|error| panic!("{error}: {output}"));
    }
    format!("output: {output}\nerror: {}", answer.error.as_deref().unwrap_or("-"))
}

fn text(secret: &Secret) -> &str {
    let text = secret.text().unwrap();
    serde_json::from_str::<Value>(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    text
}

#[test]
fn a_plain_request_gets_images_and_all_other_outputs_in_clear() {
    insta::assert_snapshot!(shown(&plain(Some("p-1"), &report(two(), None), None)), @r#"
    output: {"status":"ok","prompt_id":"p-1","images":[{"filename":"a\"b/x.png","type":"base64","data":"YWJj","node":"9","mime":"image/png"}],"outputs":[{"filename":"y.mp4","type":"base64","data":"YWJj","node":"9","mime":"video/mp4"}],"history":{"status":"x"}}
    error: -
    "#);
    let urls = ["https://s3/x".to_owned(), "https://s3/y".to_owned()];
    insta::assert_snapshot!(shown(&plain(Some("p-1"), &report(two(), None), Some(&urls))), @r#"
    output: {"status":"ok","prompt_id":"p-1","images":[{"filename":"a\"b/x.png","type":"s3_url","data":"https://s3/x","node":"9","mime":"image/png"}],"outputs":[{"filename":"y.mp4","type":"s3_url","data":"https://s3/y","node":"9","mime":"video/mp4"}],"history":{"status":"x"}}
    error: -
    "#);
}

#[test]
fn no_images_is_said_only_when_there_is_no_output_of_any_kind() {
    insta::assert_snapshot!(shown(&plain(Some("p-1"), &report(vec![], None), None)), @r#"
    output: {"status":"success_no_images","prompt_id":"p-1","images":[],"outputs":[],"history":{"status":"x"}}
    error: -
    "#);
    let video = vec![output("y.mp4", OutputKind::Video, "video/mp4")];
    assert!(shown(&plain(None, &report(video, None), None)).contains(r#"{"status":"ok""#));
    insta::assert_snapshot!(shown(&plain(Some(DRY_RUN), &report(vec![], None), None)), @r#"
    output: {"status":"ok","prompt_id":"dry-run"}
    error: -
    "#);
}

#[test]
fn a_failure_is_one_line_and_its_details_are_for_the_caller() {
    insta::assert_snapshot!(shown(&plain(Some("p-1"), &report(vec![], Some(FailureCode::Validation)), None)), @r#"
    output: {"prompt_id":"p-1","details":[{"node_errors":{"4":{"class_type":"K\"S"}}}]}
    error: execution_failed: validation: node 4 was refused
    "#);
    insta::assert_snapshot!(shown(&plain(None, &report(two(), Some(FailureCode::Unavailable)), None)), @r#"
    output: {"details":[{"node_errors":{"4":{"class_type":"K\"S"}}}]}
    error: comfy_init_failed: node 4 was refused
    "#);
    let partial = report(two(), Some(FailureCode::Validation));
    insta::assert_snapshot!(shown(&plain(Some("p-1"), &partial, None)), @r#"
    output: {"status":"ok","prompt_id":"p-1","images":[{"filename":"a\"b/x.png","type":"base64","data":"YWJj","node":"9","mime":"image/png"}],"outputs":[{"filename":"y.mp4","type":"base64","data":"YWJj","node":"9","mime":"video/mp4"}],"history":{"status":"x"},"errors":["validation: node 4 was refused"],"details":[{"node_errors":{"4":{"class_type":"K\"S"}}}]}
    error: -
    "#);
}

#[test]
fn a_sealed_request_gets_nothing_of_its_own_in_clear() {
    insta::assert_snapshot!(text(&reply_text(&address(), &report(two(), Some(FailureCode::NodeError)))), @r#"{"v":2,"type":"reply","id":"r-1","outputs":[{"node":"9","filename":"a\"b/x.png","kind":"image","mime":"image/png","data":"YWJj"},{"node":"9","filename":"y.mp4","kind":"video","mime":"video/mp4","data":"YWJj"}],"history":{"status":"x"},"error":{"code":"node_error","summary":"node 4 was refused","detail":{"node_errors":{"4":{"class_type":"K\"S"}}}},"timings":{"queueMs":1,"runMs":20,"collectMs":3}}"#);
    insta::assert_snapshot!(shown(&sealed(Some("p-1"), &report(two(), None), &part(), None)), @r#"
    output: {"status":"ok","prompt_id":"p-1","encrypted":true,"v":2,"kid":"abababababababab","nonce":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","ciphertext":"c2VhbGVk"}
    error: -
    "#);
    let failed = report(vec![], Some(FailureCode::OutOfMemory));
    insta::assert_snapshot!(shown(&sealed(None, &failed, &part(), Some("https://s3/z"))), @r#"
    output: {"status":"error","encrypted":true,"v":2,"kid":"abababababababab","nonce":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","ciphertext_url":"https://s3/z"}
    error: execution_failed: out_of_memory: node 4 was refused
    "#);
}

#[test]
fn a_handlers_answer_is_the_routes_body_sealed_where_the_request_was() {
    insta::assert_snapshot!(text(&execution_text(&address(), r#"{"id":1}"#)), @r#"{"v":2,"type":"reply","id":"r-1","execution":{"id":1}}"#);
    insta::assert_snapshot!(shown(&sealed_execution(&part(), None)), @r#"
    output: {"status":"ok","encrypted":true,"v":2,"kid":"abababababababab","nonce":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","ciphertext":"c2VhbGVk"}
    error: -
    "#);
}

#[test]
fn an_update_tells_the_node_its_steps_and_the_nodes_that_are_done() {
    let preview = Preview { mime: "image/jpeg".into(), data: Secret::new(b"abc".to_vec()) };
    let mut progress =
        Progress { node: Some("3".into()), value: 4.0, max: 20.0, nodes_done: 2, nodes: 7, preview: Some(preview) };
    insta::assert_snapshot!(text(&progress_text("r-1", 3, &progress)), @r#"{"type":"progress","id":"r-1","seq":3,"node":"3","value":4.0,"max":20.0,"nodes_done":2,"nodes":7,"preview":{"mime":"image/jpeg","data":"YWJj"}}"#);
    (progress.node, progress.preview, progress.max) = (None, None, f64::NAN);
    insta::assert_snapshot!(text(&progress_text("r-1", 4, &progress)), @r#"{"type":"progress","id":"r-1","seq":4,"node":null,"value":4.0,"max":null,"nodes_done":2,"nodes":7}"#);
    insta::assert_snapshot!(text(&sealed_progress(&part())), @r#"{"encrypted":true,"v":2,"kid":"abababababababab","nonce":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","ciphertext":"c2VhbGVk"}"#);
}

#[test]
fn a_body_is_made_in_one_piece() {
    let big = Output { data: Secret::new(vec![7; 3_000_000]), ..output("x.png", OutputKind::Image, "image/png") };
    let report = report(vec![big], None);
    let promised = size_with_data(&report, false) + 512;
    for made in [plain_body(Some("p"), &report, None), reply_text(&address(), &report)] {
        assert!(made.len() <= promised, "{} of {promised}", made.len());
    }
}

#[test]
fn what_is_too_large_is_said_with_its_remedy() {
    insta::assert_snapshot!(too_large(21 << 20, Some(10 << 20), None), @"result_too_large: the answer has 21 MiB, 10 are taken: name a bucket (BUCKET_ENDPOINT_URL, or s3Config with the request)");
    insta::assert_snapshot!(too_large(1, None, Some("s3.example answered the upload with status 403")), @"result_too_large: the answer has 1 MiB, the platform refused it: s3.example answered the upload with status 403");
}
