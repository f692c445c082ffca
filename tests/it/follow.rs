//! Calls that are followed while they run: what comes when, and what a reader who leaves or lags does.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::event;
use crate::support::daemon::TOKEN;
use crate::support::{Daemon, RUNTIMES, Settings, eventually};

/// A followed call, read event by event.
pub struct Stream {
    response: reqwest::Response,
    text: String,
}

impl Stream {
    pub async fn open(daemon: &Daemon, id: &str, body: Value) -> Self {
        let request = daemon.client().request("POST", &format!("/environments/{id}/execute"));
        let request = request.bearer_auth(TOKEN).header("accept", "text/event-stream").body(body.to_string());
        let response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        Self { response, text: String::new() }
    }

    /// The next event's name and data; none at the end of the stream.
    pub async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            while let Some((text, rest)) = self.text.split_once("\n\n") {
                let found = event(text);
                self.text = rest.to_owned();
                if found.is_some() {
                    return found;
                }
            }
            let piece = self.response.chunk().await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }
}

#[tokio::test]
async fn what_a_handler_says_comes_while_it_runs_and_a_reader_who_leaves_cancels_it() {
    let daemon = Daemon::start().await;
    for runtime in RUNTIMES {
        let source = r#"
            console.log("imported");
            export const handler = async () => {
                console.warn("begun");
                if (globalThis.Bun) process.stdout.write("é\n"); else Deno.stdout.writeSync(new TextEncoder().encode("é\n"));
                await new Promise((done) => setTimeout(done, 55000));
            };"#;
        let id = daemon.client().environment(runtime, source).await;
        let mut stream = Stream::open(&daemon, &id, json!({ "limits": { "timeoutMs": 60000 } })).await;
        let mut seen = Vec::new();
        for _ in 0..3 {
            let (name, data) = stream.next().await.unwrap();
            seen.push(format!(
                "{name} {}{}",
                data["text"].as_str().unwrap_or(""),
                data["message"].as_str().unwrap_or("")
            ));
        }
        seen.sort();
        assert_eq!(seen, ["log begun", "log imported", "stdout é\n"], "{runtime}");
        // The call cannot have ended by itself: it sleeps for 55 s.
        drop(stream);
        eventually("a cancelled call", Duration::from_secs(10), async || {
            let calls = daemon.client().send("GET", &format!("/environments/{id}/executions"), None).await.json;
            if calls[0]["outcome"] == "cancelled" { Ok(()) } else { Err(calls.to_string()) }
        })
        .await;
    }
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn the_last_event_is_the_plain_answer_and_the_events_are_its_logs_and_output() {
    let daemon = Daemon::start().await;
    for runtime in RUNTIMES {
        let source = r#"
            import { writeSync } from "node:fs";
            // Not by a stream of the runtime's: what that has not written when the handler returns goes with the sandbox.
            const write = (text) => globalThis.Bun ? writeSync(2, text) : Deno.stderr.writeSync(new TextEncoder().encode(text));
            export const handler = (event) => { console.log("a", event.data); write("z".repeat(5000)); return { ok: [1] }; };"#;
        let id = daemon.client().environment(runtime, source).await;
        let mut stream = Stream::open(&daemon, &id, json!({ "data": 7, "limits": { "timeoutMs": 30000 } })).await;
        let (mut logs, mut stderr, mut result) = (Vec::new(), String::new(), Value::Null);
        while let Some((name, data)) = stream.next().await {
            match name.as_str() {
                "log" => logs.push(data),
                "stderr" => stderr.push_str(data["text"].as_str().unwrap()),
                "result" => result = data,
                other => panic!("{other}: {data}"),
            }
        }
        assert_eq!((&result["outcome"], &result["result"]), (&json!("ok"), &json!({ "ok": [1] })), "{runtime}");
        assert_eq!((&result["logs"], &result["stderr"]), (&json!(logs), &json!(stderr)), "{runtime}");
        assert_eq!((logs.len(), stderr.len()), (1, 5000));
    }
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn a_reader_who_lags_costs_the_call_nothing_and_the_daemon_little() {
    let daemon = Daemon::start_with(Settings::default().set("sandbox.output_keep_kib", "32768")).await;
    let source = r#"
        export const handler = () => {
            const line = new TextEncoder().encode("x".repeat(65535) + "\n");
            for (let i = 0; i < 448; i++) Deno.stdout.writeSync(line);
            return "written";
        };"#;
    let id = daemon.client().environment("deno", source).await;
    let mut stream = Stream::open(&daemon, &id, json!({ "limits": { "timeoutMs": 50000, "memoryMb": 256 } })).await;
    // Nothing is read until the call is over.
    eventually("the end of the call", Duration::from_secs(60), async || {
        let calls = daemon.client().send("GET", &format!("/environments/{id}/executions"), None).await.json;
        if calls[0]["outcome"] == "ok" { Ok(()) } else { Err(calls.to_string()) }
    })
    .await;
    let (mut dropped, mut length, mut result) = (0, 0, Value::Null);
    while let Some((name, data)) = stream.next().await {
        match name.as_str() {
            "stdout" => length += data["text"].as_str().unwrap().len(),
            "dropped" => dropped += data["events"].as_u64().unwrap(),
            _ => result = data,
        }
    }
    assert_eq!(result["result"], "written");
    assert!(dropped > 0 && length < 448 << 16, "{dropped} events were dropped, {length} bytes came");
    daemon.assert_nothing_left().await;
}
