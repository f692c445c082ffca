//! How the double of ComfyUI comes to harm: as `reference/comfyui.md` §3.6 measured it, and by its switches.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use futures_util::StreamExt;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::comfy::{Comfy, PATIENCE, free_port};
use crate::support::eventually;

/// One node before a picture is saved.
fn through(class: &str, inputs: Value) -> Value {
    let mut inputs = inputs;
    inputs["image"] = json!(["1", 0]);
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": class, "inputs": inputs},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "t"}},
    })
}

fn failing(kind: &str, amount: u64) -> Value {
    through("TestFail", json!({"kind": kind, "text": "boom", "amount": amount}))
}

fn blocking(mode: &str, seconds: f64) -> Value {
    through("TestBlock", json!({"mode": mode, "seconds": seconds}))
}

fn plain() -> Value {
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "t"}},
    })
}

#[tokio::test]
async fn nodes_that_take_the_process_along() {
    for (kind, code, signal) in [("os_exit", Some(3), None), ("segv", None, Some(11)), ("abort", None, Some(6))] {
        let mut comfy = Comfy::start(&[], &[]).await;
        comfy.prompt(failing(kind, 3)).await;
        let status = comfy.ended().await;
        assert_eq!((status.code(), status.signal()), (code, signal), "{kind}");
    }
}

#[tokio::test]
async fn sigterm_kills_at_once_and_leaves_the_temp_folder() {
    let mut comfy = Comfy::start(&[], &[]).await;
    let preview = json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    });
    let id = comfy.prompt(preview).await;
    comfy.history(&id).await;
    comfy.prompt(blocking("gil", 60.0)).await;
    comfy.signal(Signal::SIGTERM);
    assert_eq!(comfy.ended().await.signal(), Some(15));
    assert!(comfy.folder("tmp/temp").exists());
}

#[tokio::test]
async fn sigint_stops_cleanly() {
    let mut comfy = Comfy::start(&[], &[]).await;
    comfy.signal(Signal::SIGINT);
    assert_eq!(comfy.ended().await.code(), Some(0));
    assert!(!comfy.folder("tmp/temp").exists());
}

#[tokio::test]
async fn sigabrt_shows_the_hung_node_with_the_lock_held() {
    let mut comfy = Comfy::start(&["--debug-hang"], &[]).await;
    comfy.prompt(blocking("gil", 60.0)).await;
    comfy.signal(Signal::SIGABRT);
    assert_eq!(comfy.ended().await.signal(), Some(6));
    assert!(comfy.printed().contains("most recent call first"));
}

#[tokio::test]
async fn a_held_lock_silences_http_while_tcp_connects() {
    let comfy = Comfy::start(&[], &[]).await;
    comfy.prompt(blocking("gil", 2.0)).await;
    let ask = |patience: Duration| comfy.http.get(comfy.url("/queue")).timeout(patience).send();
    eventually("the silence", PATIENCE, async || match ask(Duration::from_millis(300)).await {
        Err(error) if error.is_timeout() => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert!(ask(PATIENCE).await.unwrap().status().is_success());
}

#[tokio::test]
async fn a_blocked_node_leaves_http_alone() {
    let comfy = Comfy::start(&[], &[]).await;
    let id = comfy.prompt(blocking("sleep", 2.0)).await;
    eventually("the node in work", PATIENCE, async || match &comfy.get("/queue").await["queue_running"][0][1] {
        running if *running == json!(id) => Ok(()),
        other => Err(format!("{other} runs")),
    })
    .await;
    assert_eq!(comfy.history(&id).await["status"]["status_str"], "success");
}

#[tokio::test]
async fn a_second_process_on_the_port_wipes_the_temp_folder_and_ends() {
    let comfy = Comfy::start(&[], &[]).await;
    let temp = comfy.folder("tmp/temp");
    std::fs::create_dir_all(&temp).unwrap();
    let mut twin = comfy.twin();
    let status = tokio::task::spawn_blocking(move || twin.wait().unwrap()).await.unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(!temp.exists());
    assert!(comfy.get("/queue").await.is_object());
}

#[tokio::test]
async fn starts_go_as_the_list_says() {
    let home = tempfile::tempdir().unwrap();
    let switches = [("STARTS", "exit:7,delay:50,ok")];
    let mut first = Comfy::spawn(home, free_port(), &[], &switches);
    assert_eq!(first.ended().await.code(), Some(7));
    let home = std::mem::replace(&mut first.home, tempfile::tempdir().unwrap());
    let second = Comfy::spawn(home, free_port(), &[], &switches);
    second.ready().await;
    assert_eq!(std::fs::read(second.folder("comfy_double.starts")).unwrap().len(), 2);
}

#[tokio::test]
async fn faults_after_so_many_jobs() {
    for (fault, signal) in [("1:segv", Some(11)), ("1:kill", Some(9)), ("1:exit:3", None)] {
        let mut comfy = Comfy::start(&[], &[("FAULT_AFTER", fault)]).await;
        let first = comfy.prompt(plain()).await;
        comfy.history(&first).await;
        let _cut_off = comfy.http.post(comfy.url("/prompt")).body(json!({"prompt": plain()}).to_string()).send().await;
        assert_eq!(comfy.ended().await.signal(), signal, "{fault}");
    }
}

/// How many messages a socket hears of one job before it is cut, or has been silent for a while.
async fn heard(switches: &[(&str, &str)]) -> (usize, bool) {
    let comfy = Comfy::start(&[], switches).await;
    let url = format!("ws://127.0.0.1:{}/ws?clientId=tests", comfy.port);
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let id = comfy.prompt(plain()).await;
    comfy.history(&id).await;
    let mut count = 0;
    loop {
        match tokio::time::timeout(Duration::from_millis(500), socket.next()).await {
            Err(_) => return (count, false),
            Ok(Some(Ok(_))) => count += 1,
            Ok(_) => return (count, true),
        }
    }
}

#[tokio::test]
async fn sockets_are_cut_or_fall_silent() {
    // The greeting comes beside what is counted.
    assert_eq!(heard(&[("WS", "drop:3")]).await, (4, true));
    assert_eq!(heard(&[("WS", "silent:3")]).await, (4, false));
}

#[tokio::test]
async fn requests_answer_500_and_history_comes_late() {
    let comfy = Comfy::start(&[], &[("HTTP_500", "2:/history"), ("HISTORY_DELAY_MS", "100")]).await;
    for _ in 0..2 {
        assert_eq!(comfy.http.get(comfy.url("/history")).send().await.unwrap().status(), 500);
    }
    let id = comfy.prompt(plain()).await;
    assert_eq!(comfy.get(&format!("/history/{id}")).await, json!({}));
    assert_eq!(comfy.history(&id).await["status"]["status_str"], "success");
}

#[tokio::test]
async fn a_full_output_folder_is_an_execution_error_and_files_stay_unlisted() {
    let comfy = Comfy::start(&[], &[("FILL_OUTPUT", "1000")]).await;
    let fill = json!({"1": {"class_type": "DoubleFill", "inputs": {"bytes": 5000, "filename": "unlisted.bin"}}});
    let id = comfy.prompt(fill).await;
    assert_eq!(comfy.history(&id).await["outputs"], json!({}));
    assert_eq!(std::fs::metadata(comfy.folder("out/unlisted.bin")).unwrap().len(), 5000);
    assert_eq!(std::fs::read_dir(comfy.folder("out")).unwrap().count(), 2);

    std::fs::remove_dir_all(comfy.folder("out")).unwrap();
    std::fs::write(comfy.folder("out"), "in the way").unwrap();
    let id = comfy.prompt(plain()).await;
    assert_eq!(comfy.history(&id).await["status"]["messages"][2][0], "execution_error");
}
