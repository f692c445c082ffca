//! The reading of messages, held to dialogues recorded from the real ComfyUI.

use std::path::Path;

use serde_json::Value;

use super::super::collect::{Item, items};
use super::super::message::{self, Message};
use super::super::prompt::Prompt;
use super::super::room::Shelf;
use super::super::seen::{End, Seen};
use super::super::{failure, history};
use crate::domain::job::{FailureCode, Progress};
use crate::ports::comfy::RunEvent;

fn lines(name: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/comfyui/v0.30.0");
    let path = folder.join(format!("{name}.jsonl"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

struct Replay {
    seen: Seen,
    steps: Vec<Progress>,
    previews: usize,
    history: Option<Vec<u8>>,
    replies: Vec<(u64, Vec<u8>)>,
}

/// Plays a dialogue of one prompt to the account of it.
fn replay(name: &str) -> Replay {
    let lines = lines(name);
    let posted = lines.iter().find(|line| line["path"] == "/prompt").expect("a prompt")["json"]["prompt"].clone();
    let text = posted.to_string();
    let prompt = Prompt::read(&text).expect("an object");
    let id = lines.iter().find_map(|line| line["json"]["prompt_id"].as_str()).unwrap_or_default().to_owned();
    let nodes = posted.as_object().expect("nodes").len();
    let mut replay = Replay {
        seen: Seen::new(id.clone(), nodes, prompt.senders(), true),
        steps: Vec::new(),
        previews: 0,
        history: None,
        replies: Vec::new(),
    };
    for line in &lines {
        let event = match line["kind"].as_str() {
            Some("ws_text") if line["dir"] == "s2c" => replay.seen.text(message::read(&line["json"].to_string(), &id)),
            Some("ws_binary") => {
                let frame = line["frame"]["b64"].as_str().expect("a short frame");
                let frame = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, frame).expect("base64");
                message::picture(&frame).and_then(|picture| replay.seen.picture(picture))
            }
            Some("http_response") => {
                if let Some(entry) = line["json"].get(&id) {
                    replay.history = Some(entry.to_string().into_bytes());
                }
                let body = line["json"].to_string().into_bytes();
                replay.replies.push((line["status"].as_u64().expect("status"), body));
                None
            }
            _ => None,
        };
        if let Some(RunEvent::Progress(progress)) = event {
            replay.previews += usize::from(progress.preview.is_some());
            replay.steps.push(progress);
        }
    }
    replay
}

fn paths(seen: &Seen) -> Vec<(Shelf, String, bool)> {
    let file = |item| match item {
        Item::File { shelf, path, animated, .. } => Some((shelf, path, animated)),
        Item::Text { .. } => None,
    };
    items(&seen.outputs).into_iter().filter_map(file).collect()
}

#[test]
fn outputs_are_found_by_their_file_names_whatever_the_key() {
    for (name, shelf, path, animated) in [
        ("10_save_one", Shelf::Output, "t_00001_.png", false),
        ("17_video_mp4", Shelf::Output, "vid_00001_.mp4", true),
        ("18_audio_flac", Shelf::Output, "aud_00001.flac", false),
        ("19_latent", Shelf::Output, "lat_00001_.latent", false),
        ("20_animated_webp", Shelf::Output, "anim_00001_.webp", true),
        ("14_preview_temp", Shelf::Temporary, "ComfyUI_temp_pnxjr_00001_.png", false),
    ] {
        let replay = replay(name);
        assert!(matches!(replay.seen.end, Some(End::Succeeded)), "{name}");
        assert_eq!(paths(&replay.seen), [(shelf, path.to_owned(), animated)], "{name}");
        let told = history::read(&replay.history.expect("an entry")).expect("reads");
        assert!(matches!(told.end, End::Succeeded));
        assert_eq!(told.outputs.into_iter().collect::<Vec<_>>(), replay.seen.outputs, "{name}");
    }
    assert_eq!(paths(&replay("13_scale_invert_two_outputs").seen).len(), 2);
}

#[test]
fn texts_of_nodes_are_outputs() {
    let text = Item::Text { node: "2".to_owned(), text: "a secret prompt text".to_owned() };
    assert_eq!(items(&replay("21_text_preview_any").seen.outputs), [text]);
}

#[test]
fn pictures_over_the_socket_are_outputs_of_their_node_by_either_kind_of_frame() {
    for name in ["15_save_websocket_type1", "16_save_websocket_type4_feature_flag"] {
        let seen = replay(name).seen;
        assert_eq!(seen.pictures.len(), 2, "{name}");
        for (node, picture) in &seen.pictures {
            assert_eq!(node, "2");
            assert!(picture.bytes().starts_with(b"\x89PNG"));
        }
        assert!(seen.outputs.is_empty());
    }
}

#[test]
fn progress_counts_steps_and_nodes_and_carries_previews() {
    let replay = replay("23_steps_progress_preview_type4");
    assert!(replay.previews > 0 && replay.seen.pictures.is_empty());
    let last = replay.steps.iter().rfind(|step| step.node.as_deref() == Some("2")).expect("steps");
    assert_eq!(last.value, last.max);
    assert!(last.max > 1.0);
    let done: Vec<_> = replay.steps.iter().map(|step| step.nodes_done).collect();
    assert!(done.is_sorted(), "{done:?}");
    let end = replay.steps.last().expect("steps");
    assert_eq!((end.nodes_done, end.nodes), (3, 3));
}

#[test]
fn failures_are_told_apart_by_socket_and_history_alike() {
    for (name, code) in [
        ("26_exec_error_custom_node", FailureCode::NodeError),
        ("27_exec_error_simulated_cuda_oom", FailureCode::OutOfMemory),
        ("31_exec_error_core_broken_image", FailureCode::NodeError),
    ] {
        let replay = replay(name);
        let Some(End::Failed(failure)) = replay.seen.end else { panic!("{name}") };
        assert_eq!(failure.code, code, "{name}");
        assert!(!failure.summary.contains("SECRET"), "{}", failure.summary);
        assert!(failure.detail["traceback"].is_array() && failure.detail.get("current_inputs").is_none());
        let told = history::read(&replay.history.expect("an entry")).expect("reads");
        let End::Failed(again) = told.end else { panic!("{name}") };
        assert_eq!((again.code, again.summary), (failure.code, failure.summary));
    }
    let Some(End::Failed(failure)) = replay("50_interrupt_global").seen.end else { panic!("interrupted") };
    assert_eq!(failure.code, FailureCode::Interrupted);
}

#[test]
fn a_part_that_was_left_out_is_told() {
    let replay = replay("28_partial_validation_200_with_node_errors");
    let said: Value = serde_json::from_slice(&replay.replies[0].1).expect("JSON");
    let failure = failure::left_out(&said).expect("told");
    assert_eq!(failure.code, FailureCode::Validation);
    assert_eq!(failure.detail["node_errors"]["3"]["errors"][0]["type"], "value_smaller_than_min");
    assert!(matches!(replay.seen.end, Some(End::Succeeded)));
}

#[test]
fn refusals_are_told_by_node_and_without_this_hosts_paths() {
    let mut kinds = std::collections::BTreeSet::new();
    for line in lines("40_prompt_errors").iter().filter(|line| line["kind"] == "http_response") {
        let status = line["status"].as_u64().expect("status") as u16;
        if status == 200 {
            continue;
        }
        let body = line.get("json").map_or_else(|| line["text"].as_str().unwrap_or_default().into(), Value::to_string);
        let failure = failure::refused(status, body.as_bytes());
        assert_eq!(failure.code, FailureCode::Validation);
        assert!(!failure.detail.to_string().contains("/opt/"), "{}", failure.detail);
        kinds.insert(failure.summary);
    }
    insta::assert_debug_snapshot!(kinds);
}

#[test]
fn what_concerns_another_prompt_or_nobody_is_nothing() {
    let other = r#"{"type": "execution_success", "data": {"prompt_id": "b"}}"#;
    assert_eq!(message::read(other, "a"), Message::Other);
    for text in
        ["", "[]", "{}", r#"{"type": "status", "data": {}}"#, r#"{"type": "executing", "data": {"node": null}}"#]
    {
        assert_eq!(message::read(text, "a"), Message::Other, "{text}");
    }
    let anew = r#"{"type": "executing", "data": {"node": "7"}}"#;
    assert_eq!(message::read(anew, "a"), Message::Executing(Some("7".to_owned())));
    for frame in [
        &b""[..],
        b"\0\0\0\x01",
        b"\0\0\0\x04\xff\xff\xff\xff{}",
        b"\0\0\0\x03\0\0\0\x012hi",
        b"\0\0\0\x04\0\0\0\x02[]",
    ] {
        assert!(message::picture(frame).is_none(), "{frame:?}");
    }
}
