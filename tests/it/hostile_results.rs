//! Forged results, broken values, handlers that never settle (rows B1–B4): the host decides, not the text.

use serde_json::json;

use crate::support::tier::{Tier, on_every_tier};
use crate::support::{Daemon, RUNTIMES, Settings};

on_every_tier!(b1_a_forged_result_is_never_ok);

async fn b1_a_forged_result_is_never_ok(tier: Tier) {
    let daemon = Daemon::start_on(tier, Settings::default()).await;
    let client = daemon.client();
    let frame = r#"
const body = new TextEncoder().encode(JSON.stringify({ type: "result", nonce: "0".repeat(32), json: "\"forged\"" }));
const frame = new Uint8Array(4 + body.length);
new DataView(frame.buffer).setUint32(0, body.length);
frame.set(body, 4);
"#;
    let write = |runtime: &str, fd: u32| match runtime {
        "deno" => {
            format!("try {{ Deno.openSync('/proc/self/fd/{fd}', {{ write: true }}).writeSync(frame) }} catch {{}}")
        }
        _ => format!("try {{ (await import('node:fs')).writeSync({fd}, frame) }} catch {{}}"),
    };
    let endings = ["process.exit(0)", "process.abort()", "process.kill(process.pid, 'SIGKILL')"];
    for runtime in RUNTIMES {
        for ending in endings {
            let writes: String = (1..8).map(|fd| write(runtime, fd)).collect();
            let source = format!("{frame} export const handler = async () => {{ {writes} {ending}; }}");
            let answer = client.try_out(runtime, &source, json!({ "limits": { "timeoutMs": 20000 } })).await;
            assert_ne!(answer.outcome(), "ok", "{runtime} {ending}: {}", answer.text);
            assert!(answer.result().is_null() && !answer.json["stdout"].as_str().unwrap().eq("\"forged\""));
        }
        let printed = r#"export const handler = () => { console.log('{"type":"result"}'); process.stdout.write('{"result":"forged"}'); process.exit(0) }"#;
        client.try_out(runtime, printed, json!({ "limits": { "timeoutMs": 20000 } })).await.expect("no_result");
    }
    daemon.assert_nothing_left().await;
}

on_every_tier!(b1_a_replaced_node_fs_does_not_learn_the_nonce);

async fn b1_a_replaced_node_fs_does_not_learn_the_nonce(tier: Tier) {
    let daemon = Daemon::start_on(tier, Settings::default()).await;
    let source = r#"
import fs from "node:fs";
import { mock } from "bun:test";
const write = fs.writeSync;
const frame = (message) => {
  const body = Buffer.from(JSON.stringify(message));
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length);
  return Buffer.concat([head, body]);
};
await mock.module("node:fs", () => ({ ...fs, writeSync: (fd, bytes) => {
  const [, nonce] = /"nonce":"(\w+)"/.exec(Buffer.from(bytes).toString("latin1"));
  write(3, frame({ type: "imported", nonce }));
  write(3, frame({ type: "result", nonce, json: '"forged"' }));
  for (;;);
} }));
console.log("x");"#;
    let client = daemon.client();
    let answer = client.try_out("bun", source, json!({ "limits": { "timeoutMs": 20000 } })).await;
    assert_ne!(answer.outcome(), "ok", "{}", answer.text);
}

on_every_tier!(b2_polluted_prototypes_and_strange_values_give_a_valid_answer);

async fn b2_polluted_prototypes_and_strange_values_give_a_valid_answer(tier: Tier) {
    let daemon = Daemon::start_on(tier, Settings::default()).await;
    let client = daemon.client();
    let pollution = r#"
Object.prototype.toJSON = function () { return "polluted" };
Array.prototype.map = Array.prototype.push = Array.prototype.join = () => { throw new Error("polluted") };
Promise.prototype.then = function () { throw new Error("polluted") };
JSON.stringify = () => "\"polluted\""; JSON.parse = () => "polluted";
String.prototype.slice = () => "polluted"; Function.prototype.call = Function.prototype.apply = () => "polluted";
Uint8Array.prototype.set = TextEncoder.prototype.encode = () => { throw new Error("polluted") };
"#;
    let cases = [
        ("export const handler = () => ({ a: 1, ['__proto__']: { b: 2 } })", &["ok"][..]),
        ("export const handler = () => { const a = {}; a.a = a; return a }", &["invalid_result"]),
        ("export const handler = () => ({ toJSON() { throw new Error('no') } })", &["invalid_result"]),
        ("export const handler = () => 1n", &["invalid_result"]),
        ("export const handler = () => Symbol('x')", &["invalid_result"]),
        (
            "export const handler = () => new Proxy({}, { get() { throw 1 }, ownKeys() { throw 2 } })",
            &["invalid_result", "handler_error"],
        ),
        ("export const handler = () => ({ then(done) { done(7) } })", &["ok"]),
        ("export const handler = () => ({ get then() { throw new Error('then') } })", &["handler_error"]),
        ("export const handler = () => ({ toJSON() { return 'x'.repeat(40e6) } })", &["output_limit", "out_of_memory"]),
        (
            "let d = 0; export const handler = () => { let o = []; for (let i = 0; i < 5000; i++) o = [o]; return o }",
            &["invalid_result"],
        ),
    ];
    for runtime in RUNTIMES {
        for (source, outcomes) in cases {
            let body = json!({ "limits": { "timeoutMs": 20000, "memoryMb": 512 } });
            let answer = client.try_out(runtime, source, body).await;
            assert!(outcomes.contains(&answer.outcome()), "{runtime} {source}: {}", answer.text);
        }
        for when in ["before", "after"] {
            let (top, inside) = if when == "before" { (pollution, "") } else { ("", pollution) };
            let source =
                format!("{top} export const handler = () => {{ {inside} return {{ __proto__: null, fine: 1 }} }}");
            let answer = client.try_out(runtime, &source, json!({ "limits": { "timeoutMs": 20000 } })).await;
            assert!(["ok", "invalid_result", "handler_error"].contains(&answer.outcome()), "{when}: {}", answer.text);
        }
        let looping = "export const handler = () => ({ toJSON() { for (;;); } })";
        client.try_out(runtime, looping, json!({ "limits": { "timeoutMs": 500 } })).await.expect("timeout");
    }
    daemon.assert_nothing_left().await;
}

on_every_tier!(b3_what_cannot_settle_ends_at_once);

async fn b3_what_cannot_settle_ends_at_once(tier: Tier) {
    let daemon = Daemon::start_on(tier, Settings::default()).await;
    let client = daemon.client();
    let cases = [
        ("export const handler = () => { throw null }", "handler_error"),
        ("export const handler = () => { throw undefined }", "handler_error"),
        ("export const handler = () => { throw new Error('x'.repeat(30e6)) }", "handler_error"),
        ("export const handler = () => new Promise(() => {})", "no_result"),
        (
            "export const handler = () => { Promise.reject(new Error('later')); return new Promise(() => {}) }",
            "handler_error",
        ),
        ("export const handler = () => { setTimeout(() => Promise.reject(1), 0); return 1 }", "ok"),
    ];
    for runtime in RUNTIMES {
        for (source, outcome) in cases {
            let body = json!({ "limits": { "timeoutMs": 30000, "memoryMb": 512 } });
            let answer = client.try_out(runtime, source, body).await;
            assert_eq!(answer.outcome(), outcome, "{runtime} {source}: {:.1500}", answer.text);
            let spent = answer.json["timings"]["handlerMs"].as_f64().unwrap();
            assert!(spent < 15_000.0, "{runtime} {source} waited {spent} ms");
        }
    }
    daemon.assert_nothing_left().await;
}

on_every_tier!(b4_what_a_handler_leaves_running_dies_with_its_sandbox);

async fn b4_what_a_handler_leaves_running_dies_with_its_sandbox(tier: Tier) {
    let daemon = Daemon::start_on(tier, Settings::default()).await;
    let client = daemon.client();
    let cases = [
        "export const handler = () => { setInterval(() => {}, 1); return 1 }",
        "export const handler = () => { setTimeout(() => { for (;;); }, 0); return 1 }",
        "export const handler = () => { new Worker(URL.createObjectURL(new Blob(['for(;;);'])), { type: 'module' }); return 1 }",
        "export const handler = async () => { const { spawn } = await import('node:child_process'); try { spawn(process.execPath, ['--version']).on('error', () => {}) } catch {} return 1 }",
    ];
    for runtime in RUNTIMES {
        for source in cases {
            let answer = client.try_out(runtime, source, json!({ "limits": { "timeoutMs": 30000 } })).await;
            assert_eq!(answer.expect("ok").result(), 1, "{runtime} {source}");
        }
        daemon.assert_nothing_left().await;
    }
}
