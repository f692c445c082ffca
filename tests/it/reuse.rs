//! Sandboxes that an environment's calls share: one after the other, until something goes wrong or nobody comes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Answer, Client};
use crate::support::{Daemon, RUNTIMES, Settings, eventually, host};

/// Counts the calls that it has seen, and does what it is told.
const COUNTER: &str = r#"
import { mkdirSync, writeFileSync } from "node:fs";
let calls = 0;
export const handler = async (event) => {
  calls += 1;
  const does = event.data ?? {};
  console.log("call", calls);
  if (does.leave === "rejection") Promise.reject(new Error("left behind"));
  if (does.leave === "timer") setTimeout(() => { console.log("late"); throw new Error("late") }, 0);
  if (does.throws) throw new Error("as told");
  if (does.loops) for (;;);
  if (does.file) { mkdirSync("/tmp/out", { recursive: true }); writeFileSync("/tmp/out/" + does.file, does.file); }
  if (does.waits) await new Promise((done) => setTimeout(done, does.waits));
  return { calls, env: event.env };
};"#;

async fn start(settings: Settings) -> Daemon {
    let settings = settings
        .set("sandbox.standing.enabled", "true")
        .set("sandbox.standing.memory_mib", "2048")
        .set("sandbox.standing.runtimes", "0");
    Daemon::start_with(settings).await
}

async fn sharing(client: &Client, runtime: &str, source: &str) -> String {
    let request = json!({
        "mainModule": "main.js", "modules": { "main.js": source }, "runtime": runtime, "isolation": "environment",
    });
    let made = client.set_up(request).await;
    assert_eq!((made.status, &made.json["metadata"]["isolation"]), (200, &json!("environment")), "{}", made.json);
    made.json["id"].as_str().unwrap().to_owned()
}

/// How the call's sandbox came to be, and which call of that sandbox it was.
fn seen(answer: &Answer) -> (&str, &Value) {
    (answer.json["start"].as_str().unwrap(), &answer.expect("ok").result()["calls"])
}

#[tokio::test]
async fn calls_follow_each_other_and_each_has_logs_limits_and_times_of_its_own() {
    let daemon = start(Settings::default().set("sandbox.standing.reuses", "4")).await;
    let client = daemon.client();
    for runtime in RUNTIMES {
        let id = sharing(&client, runtime, COUNTER).await;
        for (n, start) in [(1, "cold"), (2, "reused"), (3, "reused"), (4, "reused"), (1, "cold")] {
            let answer = client.execute(&id, json!({ "data": {} })).await;
            assert_eq!(seen(&answer), (start, &json!(n)), "{runtime}");
            let logs: Vec<&Value> =
                answer.json["logs"].as_array().unwrap().iter().map(|entry| &entry["message"]).collect();
            assert_eq!(logs, [&json!(format!("call {n}"))], "{runtime}");
        }
        client.delete(&id).await;
    }
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn what_a_call_leaves_behind_is_not_held_against_the_next() {
    let daemon = start(Settings::default()).await;
    let client = daemon.client();
    for runtime in RUNTIMES {
        let id = sharing(&client, runtime, COUNTER).await;
        for n in 1..=4 {
            let leave = if n % 2 == 1 { "rejection" } else { "timer" };
            let answer = client.execute(&id, json!({ "data": { "leave": leave } })).await;
            assert_eq!(seen(&answer).1, &json!(n), "{runtime}");
            assert_eq!(answer.json["logs"].as_array().unwrap().len(), 1, "{runtime}: {}", answer.json["logs"]);
        }
        client.delete(&id).await;
    }
}

#[tokio::test]
async fn any_other_outcome_ends_it_and_so_do_new_modules_and_variables_get_one_of_their_own() {
    let daemon = start(Settings::default()).await;
    let client = daemon.client();
    for runtime in RUNTIMES {
        let id = sharing(&client, runtime, COUNTER).await;
        let call = async |body: Value| client.execute(&id, body).await;
        for (does, outcome) in [(json!({ "throws": true }), "handler_error"), (json!({ "loops": true }), "timeout")] {
            assert_eq!(seen(&call(json!({})).await), ("cold", &json!(1)), "{runtime}");
            let bad = call(json!({ "data": does, "limits": { "timeoutMs": 800 } })).await;
            bad.expect(outcome);
            assert_eq!(bad.json["start"], "reused", "{runtime}");
        }
        assert_eq!(seen(&call(json!({})).await), ("cold", &json!(1)), "{runtime}");
        let named = call(json!({ "env": { "NAME": "ada" } })).await;
        assert_eq!(
            (seen(&named), &named.result()["env"]),
            (("cold", &json!(1)), &json!({ "NAME": "ada" })),
            "{runtime}"
        );
        let next = call(json!({})).await;
        assert_eq!((seen(&next), &next.result()["env"]), (("reused", &json!(2)), &json!({})), "{runtime}");
        if runtime == "bun" {
            call(json!({ "data": { "file": "mine" } })).await.expect("ok");
            let with_files = call(json!({ "files": true })).await;
            assert_eq!((seen(&with_files), &with_files.json["files"]), (("cold", &json!(1)), &json!(null)));
        }
        let change = json!({ "modules": { "main.js": COUNTER.replace("calls += 1", "calls += 10") } });
        let changed = client.send("PUT", &format!("/environments/{id}/modules"), Some(change.to_string())).await;
        assert_eq!(changed.status, 200, "{}", changed.json);
        assert_eq!(seen(&call(json!({})).await), ("cold", &json!(10)), "{runtime}");
        client.delete(&id).await;
    }
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn short_calls_take_turns_in_one_and_long_ones_get_more() {
    let daemon = start(Settings::default()).await;
    let client = daemon.client();
    for runtime in RUNTIMES {
        let id = sharing(&client, runtime, COUNTER).await;
        client.execute(&id, json!({})).await.expect("ok");
        let all = |data: Value| {
            let calls = (0..8).map(|_| client.execute(&id, json!({ "data": data.clone() }))).collect::<Vec<_>>();
            futures_util::future::join_all(calls)
        };
        let short = all(json!({})).await;
        // On a machine that is busy otherwise some may wait for long.
        let reused = short.iter().filter(|answer| seen(answer).0 == "reused").count();
        assert!(reused >= 4, "{runtime}: {reused}");
        let long = all(json!({ "waits": 1500 })).await;
        let cold = long.iter().filter(|answer| seen(answer).0 == "cold").count();
        assert!((1..8).contains(&cold), "{runtime}: {cold}");
        client.delete(&id).await;
    }
    daemon.assert_nothing_left().await;
}

/// A thread of the handler's goes on after its call, and writes what could be a result to the runner's channel.
const FORGER: &str = r#"
import fs from "node:fs";
const forge = `
  const body = Buffer.from('{"type":"result","nonce":"${"0".repeat(32)}","json":"1"}');
  const size = Buffer.alloc(4);
  size.writeUInt32BE(body.length);
  setInterval(() => { try { require("node:fs").writeSync(3, Buffer.concat([size, body])) } catch {} }, 1);
`;
export const handler = async (event) => {
  if (event.data !== "forge") return "honest";
  fs.writeFileSync("/tmp/forge.cjs", forge);
  new Worker("/tmp/forge.cjs");
  return "begun";
};"#;

#[tokio::test]
async fn what_is_said_between_two_calls_answers_neither() {
    let daemon = start(Settings::default()).await;
    let client = daemon.client();
    let id = sharing(&client, "bun", FORGER).await;
    for _ in 0..4 {
        client.execute(&id, json!({ "data": "forge" })).await;
        for _ in 0..2 {
            let answer = client.execute(&id, json!({ "data": "asks" })).await;
            // One that was overtaken while it ran has none; what came before it began was never taken for its answer.
            let taken = answer.outcome() == "ok";
            assert!(taken || answer.outcome() == "no_result", "{}", answer.json);
            assert!(!taken || answer.result() == "honest", "{}", answer.json);
        }
        assert_eq!(client.execute(&id, json!({})).await.expect("ok").result(), "honest");
    }
    client.delete(&id).await;
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn one_that_waits_is_frozen_ends_when_nobody_comes_and_its_death_is_no_callers_affair() {
    let daemon = start(Settings::default().set("sandbox.standing.reuse_idle", "4 s")).await;
    let client = daemon.client();
    let id = sharing(&client, "bun", COUNTER).await;
    let frozen = async |count: usize| {
        eventually("frozen sandboxes", Duration::from_secs(30), async || {
            match host::frozen_slots(&daemon.home).len() {
                found if found == count => Ok(()),
                found => Err(found.to_string()),
            }
        })
        .await;
    };
    client.execute(&id, json!({})).await.expect("ok");
    frozen(1).await;
    assert_eq!(seen(&client.execute(&id, json!({})).await), ("reused", &json!(2)));
    frozen(1).await;
    host::kill_frozen(&daemon.home);
    daemon.noticed("slot.lost", 1).await;
    assert_eq!(seen(&client.execute(&id, json!({})).await), ("cold", &json!(1)));
    frozen(1).await;
    frozen(0).await;
    client.delete(&id).await;
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn what_goes_on_between_two_calls_counts_for_the_second() {
    let daemon = start(Settings::default()).await;
    let client = daemon.client();
    let source = r#"
        const burn = () => { for (let i = 0; i < 4e8; i++) globalThis.sum = i; };
        export const handler = (event) => { if (event.data === "leave") setTimeout(burn, 0); return 1 };"#;
    for runtime in RUNTIMES {
        let id = sharing(&client, runtime, source).await;
        client.execute(&id, json!({})).await.expect("ok");
        let plain = client.execute(&id, json!({})).await;
        client.execute(&id, json!({ "data": "leave" })).await.expect("ok");
        let second = client.execute(&id, json!({ "limits": { "timeoutMs": 60000 } })).await;
        assert_eq!(second.expect("ok").json["start"], "reused", "{runtime}");
        let used = |answer: &Answer| answer.json["cpuMs"].as_f64().unwrap();
        assert!(used(&second) > used(&plain) + 100.0, "{runtime}: {} and {}", used(&plain), used(&second));
        client.delete(&id).await;
    }
}
