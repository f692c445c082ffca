//! Handlers that take time, memory, processes, output or disk (rows A1–A6), judged from the host.

use std::time::Duration;

use serde_json::json;

use crate::support::tier::{Tier, on_every_tier};
use crate::support::{Daemon, RUNTIMES, Settings, host};

on_every_tier!(a1_endless_work_ends_on_the_hosts_clock_with_its_phase_and_its_logs);

async fn a1_endless_work_ends_on_the_hosts_clock_with_its_phase_and_its_logs(tier: Tier) {
    let daemon = Daemon::start_on(tier, Settings::default()).await;
    let client = daemon.client();
    let cases = [
        ("console.log('before'); export const handler = () => { console.log('here'); for (;;); }", "handler", 2),
        ("export const handler = () => new Promise((done) => setTimeout(done, 600000))", "handler", 0),
        ("console.log('before'); for (;;); export const handler = () => 1", "import", 1),
        ("await new Promise((done) => setTimeout(done, 600000)); export const handler = () => 1", "import", 0),
    ];
    for runtime in RUNTIMES {
        for (source, phase, logs) in cases {
            let answer = client.try_out(runtime, source, json!({ "limits": { "timeoutMs": 1500 } })).await;
            answer.expect("timeout");
            assert_eq!((&answer.json["exitCode"], &answer.json["phase"]), (&json!(124), &json!(phase)), "{source}");
            let kept = answer.json["logs"].as_array().unwrap().len();
            assert_eq!(kept, logs, "{runtime} {source}: {}", answer.text);
            let spent = answer.json["timings"]["handlerMs"].as_f64().unwrap();
            assert!((1500.0..1750.0).contains(&spent), "{runtime} {source}: ended after {spent} ms");
        }
    }
    daemon.assert_nothing_left().await;
}

on_every_tier!(a2_memory_bombs_are_told_from_timeouts_and_hurt_no_neighbour);

async fn a2_memory_bombs_are_told_from_timeouts_and_hurt_no_neighbour(tier: Tier) {
    let daemon = Daemon::start_on(tier, Settings::default().set("sandbox.default_memory_mb", "64")).await;
    let client = daemon.client();
    let bombs = [
        "export const handler = () => { const a = []; for (;;) a.push(new Array(1000).fill(Math.random())) }",
        "export const handler = () => { const a = []; for (;;) a.push(Buffer.alloc(4 << 20, 1)) }",
        "export const handler = () => { const m = new WebAssembly.Memory({ initial: 1, maximum: 32768 }); for (;;) { m.grow(64); new Uint8Array(m.buffer).fill(1) } }",
    ];
    for runtime in RUNTIMES {
        let neighbour = client.environment(runtime, "export const handler = (e) => e.data").await;
        for bomb in bombs {
            let body = json!({ "limits": { "timeoutMs": 30000, "memoryMb": 64 } });
            let (hurt, well) = tokio::join!(
                client.try_out(runtime, bomb, body),
                client.execute(&neighbour, json!({ "data": 1, "limits": { "timeoutMs": 30000 } })),
            );
            let told = ["out_of_memory", "handler_error"].contains(&hurt.outcome());
            assert!(told, "{runtime} {bomb}: {}", hurt.text);
            well.expect("ok");
        }
        let array =
            client.try_out(runtime, bombs[0], json!({ "limits": { "timeoutMs": 30000, "memoryMb": 64 } })).await;
        array.expect("out_of_memory");
        assert_eq!(array.json["exitCode"], 137);
    }
    daemon.assert_nothing_left().await;
}

on_every_tier!(a3_process_and_thread_bombs_stay_inside);

async fn a3_process_and_thread_bombs_stay_inside(tier: Tier) {
    let daemon = Daemon::start_on(tier, Settings::default().set("sandbox.default_memory_mb", "512")).await;
    let client = daemon.client();
    let fork = r#"
import { spawn } from "node:child_process";
export const handler = async () => {
  const children = [];
  for (let i = 0; i < 400; i++) children.push(spawn(process.execPath, ["--version"], { stdio: "ignore" }).on("error", () => {}));
  await new Promise((done) => setTimeout(done, 3000));
  return children.length;
};"#;
    let workers = r#"
export const handler = async () => {
  const source = URL.createObjectURL(new Blob(["setInterval(() => {}, 1000)"], { type: "text/javascript" }));
  for (let i = 0; i < 400; i++) new Worker(source, { type: "module" });
  await new Promise((done) => setTimeout(done, 3000));
  return 1;
};"#;
    for runtime in RUNTIMES {
        for bomb in [fork, workers] {
            let permissions = json!({ "allowRun": true, "allowRead": true });
            let body = json!({ "limits": { "timeoutMs": 10000, "memoryMb": 512 } });
            let answer = client.try_permitted(runtime, bomb, permissions, body).await;
            let allowed = ["pids_limit", "handler_error", "timeout", "out_of_memory", "ok"];
            assert!(allowed.contains(&answer.outcome()), "{runtime}: {}", answer.text);
        }
    }
    daemon.assert_nothing_left().await;
    client.assert_healthy_call("deno").await;
}

on_every_tier!(a4_floods_are_cut_and_the_answer_stays_valid);

async fn a4_floods_are_cut_and_the_answer_stays_valid(tier: Tier) {
    let daemon = Daemon::start_on(tier, Settings::default()).await;
    let client = daemon.client();
    let before = host::footprint(daemon.pid());
    let floods = [
        "export const handler = () => { const s = 'x'.repeat(1 << 16); for (let i = 0; i < 16384; i++) process.stdout.write(s); return 1 }",
        "import { writeSync } from 'node:fs'; export const handler = () => { const s = 'x'.repeat(1 << 16); for (;;) { try { writeSync(2, s) } catch (e) { if (e.code !== 'EAGAIN') throw e } } }",
        "export const handler = () => { const s = 'x'.repeat(1000); for (let i = 0; i < 1e6; i++) console.log(s); return 1 }",
        "export const handler = () => { console.error('y'.repeat(50e6)); return 1 }",
    ];
    for runtime in RUNTIMES {
        for source in floods {
            let body = json!({ "limits": { "timeoutMs": 20000, "memoryMb": 512 } });
            let answer = client.try_out(runtime, source, body).await;
            let ended = ["output_limit", "ok", "timeout", "out_of_memory"].contains(&answer.outcome());
            assert!(ended, "{runtime} {source}: {:.500}", answer.text);
            assert!(answer.text.len() < 12 << 20, "{runtime}: an answer of {} bytes", answer.text.len());
            if answer.outcome() == "ok" {
                assert!(answer.text.contains("truncated"), "{runtime} {source}: no mark");
            }
        }
        let dirty = "export const handler = () => { process.stdout.write(new Uint8Array([0, 27, 91, 51, 49, 109, 255, 254, 65])); console.log('\\u0000\\u001b[31m\\ud800'); return 1 }";
        client.try_out(runtime, dirty, json!({ "limits": { "timeoutMs": 20000 } })).await.expect("ok");
    }
    let after = host::footprint(daemon.pid());
    assert!(after.resident_kib < before.resident_kib + 64 * 1024, "the daemon grew from {before:?} to {after:?}");
    daemon.assert_nothing_left().await;
}

on_every_tier!(a5_disks_are_the_sandboxs_own_and_small);

async fn a5_disks_are_the_sandboxs_own_and_small(tier: Tier) {
    let daemon = Daemon::start_on(tier, Settings::default().set("sandbox.default_memory_mb", "256")).await;
    let client = daemon.client();
    let source = r#"
import { writeFileSync, mkdirSync } from "node:fs";
export const handler = () => {
  const seen = {};
  const attempt = (name, act) => { try { act(); seen[name] = "done" } catch (e) { seen[name] = e.code ?? e.name } };
  attempt("workspace", () => writeFileSync("/workspace/x", "x"));
  attempt("main", () => writeFileSync("/workspace/main.js", "x"));
  attempt("root", () => writeFileSync("/x", "x"));
  attempt("runtime", () => writeFileSync("/runtime/runner.js", "x"));
  attempt("usr", () => writeFileSync("/usr/bin/x", "x"));
  attempt("small", () => writeFileSync("/tmp/small", "x"));
  attempt("full", () => { for (let i = 0; ; i++) writeFileSync(`/tmp/f${i}`, Buffer.alloc(1 << 20, 1)) });
  attempt("mkdir", () => mkdirSync("/workspace/d"));
  return seen;
};"#;
    for runtime in RUNTIMES {
        let permissions = json!({ "allowWrite": true, "allowRead": true });
        let body = json!({ "limits": { "timeoutMs": 30000, "memoryMb": 256 } });
        let answer = client.try_permitted(runtime, source, permissions, body).await;
        let seen = answer.expect("ok").result().clone();
        for place in ["workspace", "main", "root", "runtime", "usr", "mkdir"] {
            assert_ne!(seen[place], "done", "{runtime} wrote to {place}: {seen}");
        }
        assert_eq!(seen["small"], "done", "{runtime}: {seen}");
        assert_eq!(seen["full"], "ENOSPC", "{runtime}: {seen}");
    }
    daemon.assert_nothing_left().await;
}

on_every_tier!(a6_ten_hogs_stay_within_their_quota);

async fn a6_ten_hogs_stay_within_their_quota(tier: Tier) {
    let daemon = Daemon::start_on(tier, Settings::default().set("sandbox.boots_at_once", "2")).await;
    let client = daemon.client();
    let id = client.ready_environment("bun", "export const handler = () => { for (;;); }", json!({})).await;
    let hogs = (0..10).map(|_| client.execute(&id, json!({ "limits": { "timeoutMs": 4000 } })));
    let answers = futures_util::future::join_all(hogs).await;
    for answer in answers {
        answer.expect("timeout");
        let cpu = answer.json["cpuMs"].as_f64().unwrap();
        let wall = answer.json["timings"]["handlerMs"].as_f64().unwrap();
        assert!(cpu <= wall * 0.5 * 1.1 + 100.0, "{cpu} ms of CPU in {wall} ms at a quota of half a core");
    }
    daemon.assert_nothing_left().await;
    tokio::time::timeout(Duration::from_secs(60), client.assert_healthy_call("bun")).await.unwrap();
}
