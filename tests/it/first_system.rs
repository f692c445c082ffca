//! The first system's own promises: its routes, fields, texts and sandbox rules, on both runtimes.

use serde_json::{Value, json};

use crate::support::{Daemon, RUNTIMES};

const SUM: &str = r#"
import { multiply } from "./lib/math.ts";
interface Input { a: number; b: number; op?: string }
enum Op { Sum = "sum", Product = "product" }
export async function handler(event: { data: Input; env: Record<string, string> }, context: any) {
  const { a, b, op } = event.data;
  console.log("op is", op);
  return { result: op === Op.Product ? multiply(a, b) : a + b, environment: context.environmentId, env: event.env };
}
"#;
const MATH: &str = "export function multiply(a: number, b: number): number { return a * b; }";

fn typescript(runtime: &str) -> Value {
    json!({ "mainModule": "main.ts", "modules": { "main.ts": SUM, "lib/math.ts": MATH }, "runtime": runtime })
}

#[tokio::test]
async fn setup_execute_twice_list_delete() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    for runtime in RUNTIMES {
        let made = client.set_up(typescript(runtime)).await;
        assert_eq!(made.status, 200, "{}", made.text);
        let id = made.json["id"].as_str().unwrap();
        assert_eq!(made.json["volumeName"], format!("tee-env-{id}"));
        assert_eq!((&made.json["status"], &made.json["runtime"]), (&json!("ready"), &json!(runtime)));
        assert_eq!((&made.json["ttlSeconds"], &made.json["executionCount"]), (&json!(3600), &json!(0)));
        assert_eq!(made.json["metadata"]["moduleCount"], 2);
        assert_eq!(made.json["metadata"]["hasDependencies"], false);
        assert!(made.json.get("lastExecutedAt").is_none());

        let sum = client.execute(id, json!({ "data": { "a": 5, "b": 3 }, "env": { "NAME": "x" } })).await;
        sum.expect("ok");
        assert_eq!(sum.result(), &json!({ "result": 8, "environment": id, "env": { "NAME": "x" } }));
        let printed: Value = serde_json::from_str(sum.json["stdout"].as_str().unwrap()).unwrap();
        assert_eq!(&printed, sum.result());
        assert_eq!((&sum.json["exitCode"], &sum.json["stderr"]), (&json!(0), &json!("")));
        assert_eq!((&sum.json["start"], sum.json.get("isolated")), (&json!("cold"), None));
        assert!(sum.json["durationMs"].is_u64());
        assert_eq!(sum.json["logs"][0]["message"], "op is undefined");

        let product = client.execute(id, json!({ "data": { "a": 5, "b": 3, "op": "product" } })).await;
        assert_eq!(product.expect("ok").result()["result"], 15);

        let list = client.send("GET", "/environments", None).await;
        let listed = list.json.as_array().unwrap().iter().find(|one| one["id"] == id).unwrap();
        assert_eq!(listed["executionCount"], 2);
        assert!(listed["lastExecutedAt"].is_string());
        assert_eq!(client.send("GET", &format!("/environments/{id}"), None).await.json["id"], id);

        assert_eq!(client.delete(id).await.status, 204);
        client.delete(id).await.expect_error(404, "not_found");
        client.execute(id, json!({})).await.expect_error(404, "not_found");
        client.send("GET", &format!("/environments/{id}"), None).await.expect_error(404, "not_found");
    }
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn typescript_that_cannot_be_read_names_its_place_and_declarations_are_left_alone() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let broken = json!({ "mainModule": "a.ts", "modules": { "a.ts": "let fine;\nexport const x: = 1" } });
    let refused = client.set_up(broken).await;
    refused.expect_error(400, "validation_error");
    let fault = &refused.json["details"][0];
    assert_eq!((&fault["module"], &fault["line"]), (&json!("a.ts"), &json!(2)), "{}", refused.text);
    assert!(fault["message"].as_str().unwrap().contains("Unexpected token"), "{}", refused.text);
    let modules = json!({
        "main.ts": "import type { N } from './types.d.ts'; export const handler = (e: { data: N }) => e.data",
        "types.d.ts": "export type N = number;",
    });
    let id = client.environment_of("deno", modules, "main.ts").await;
    let answer = client.execute(&id, json!({ "data": 3, "limits": { "timeoutMs": 20000 } })).await;
    assert_eq!(answer.expect("ok").result(), 3);
    let deep = format!("export const x: any = {}1{}", "(".repeat(100_000), ")".repeat(100_000));
    let refused = client.set_up(json!({ "mainModule": "a.ts", "modules": { "a.ts": deep } })).await;
    refused.expect_error(400, "validation_error");
}

#[tokio::test]
async fn the_newest_environment_is_listed_first() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let first = client.environment("bun", "export const handler = () => 1").await;
    let second = client.environment("bun", "export const handler = () => 2").await;
    let list = client.send("GET", "/environments", None).await;
    let ids: Vec<&str> = list.json.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [second, first]);
}

#[tokio::test]
async fn handlers_of_every_kind_get_their_outcome() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let cases = [
        ("export function handler(e) { return e.data + 1 }", "ok", 0),
        ("export const handler = async (e) => { await null; return e.data + 1 }", "ok", 0),
        ("export const handler = () => undefined", "ok", 0),
        ("export const handler = () => { throw new TypeError('no way') }", "handler_error", 1),
        ("export const handler = async () => { throw new TypeError('no way') }", "handler_error", 1),
        ("export const other = 1", "no_handler", 1),
        ("export const handler = 5", "no_handler", 1),
        ("throw new TypeError('no way')", "handler_error", 1),
        ("export const handler = () => 10n", "invalid_result", 1),
        ("this is not javascript", "handler_error", 1),
    ];
    for runtime in RUNTIMES {
        for (source, outcome, exit_code) in cases {
            let answer = client.try_out(runtime, source, json!({ "data": 41 })).await;
            answer.expect(outcome);
            assert_eq!(answer.json["exitCode"], exit_code, "{runtime}: {source}");
            if source.contains("no way") {
                assert_eq!(answer.json["error"]["name"], "TypeError", "{runtime}: {}", answer.text);
                assert_eq!(answer.json["error"]["message"], "no way");
                assert!(answer.json["stderr"].as_str().unwrap().contains("no way"));
            }
            if source.contains("e.data + 1") {
                assert_eq!(answer.result(), &json!(42));
            }
        }
        let nothing = client.try_out(runtime, "export const handler = () => undefined", json!({})).await;
        assert_eq!((nothing.result(), &nothing.json["stdout"]), (&Value::Null, &json!("null")));
    }
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn what_is_not_installed_cannot_be_imported_and_local_modules_can() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    for runtime in RUNTIMES {
        let modules = json!({
            "main.js": "export const handler = async (e) => { const m = await import('./lib/' + e.data + '.js'); return m.value }",
            "lib/one.js": "import { two } from '../two.js'; export const value = two + 1;",
            "two.js": "export const two = 2;",
        });
        let id = client.environment_of(runtime, modules, "main.js").await;
        let answer = client.execute(&id, json!({ "data": "one" })).await;
        assert_eq!(answer.expect("ok").result(), 3);
        for specifier in ["https://example.com/mod.js", "npm:left-pad", "jsr:@std/assert", "left-pad"] {
            let source = format!("import x from {specifier:?}; export const handler = () => x");
            let answer = client.try_out(runtime, &source, json!({ "limits": { "timeoutMs": 20000 } })).await;
            answer.expect("handler_error");
            let spent = answer.json["timings"]["handlerMs"].as_f64().unwrap();
            assert!(spent < 10_000.0, "{runtime} {specifier} took {spent} ms to be refused");
        }
    }
    let with =
        json!({ "mainModule": "main.js", "modules": { "main.js": "" }, "dependencies": { "npm": ["left-pad@1.3.0"] } });
    let refused = client.set_up(with).await;
    refused.expect_error(400, "validation_error");
    assert!(refused.text.contains("dependencies are not enabled"));
}

#[tokio::test]
async fn deno_permissions_are_flags_of_its_own_above_the_sandbox() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let source = r#"
export const handler = async () => {
  const state = {};
  for (const name of ["net", "env", "read", "write", "run", "ffi", "sys"]) {
    state[name] = (await Deno.permissions.query({ name })).state;
  }
  return state;
};"#;
    let permissions_of = async |permissions: Value| {
        let request = json!({ "mainModule": "main.js", "modules": { "main.js": source }, "permissions": permissions });
        let made = client.set_up(request).await;
        assert_eq!(made.status, 200, "{}", made.text);
        client.execute(made.json["id"].as_str().unwrap(), json!({})).await.expect("ok").result().clone()
    };
    let plain = permissions_of(json!({})).await;
    for (name, state) in
        [("net", "prompt"), ("env", "granted"), ("write", "prompt"), ("run", "prompt"), ("ffi", "prompt")]
    {
        assert_eq!(plain[name], state, "{name}");
    }
    let granted =
        permissions_of(json!({ "allowRun": true, "allowFfi": true, "allowRead": true, "allowHrtime": true })).await;
    for name in ["run", "ffi", "read"] {
        assert_eq!(granted[name], "granted", "{name}");
    }
}

#[tokio::test]
async fn the_environment_of_a_call_is_its_own() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let source = "export const handler = (event) => [event.env.API_KEY, globalThis.process.env.API_KEY]";
    for runtime in RUNTIMES {
        let id = client.environment(runtime, source).await;
        let with = client.execute(&id, json!({ "env": { "API_KEY": "k-1" }, "limits": { "timeoutMs": 20000 } })).await;
        assert_eq!(with.expect("ok").result(), &json!(["k-1", "k-1"]));
        let without = client.execute(&id, json!({ "limits": { "timeoutMs": 20000 } })).await;
        assert_eq!(without.expect("ok").result(), &json!([null, null]));
        for name in ["PATH", "LD_PRELOAD", "NODE_OPTIONS", "DENO_DIR", "BUN_INSTALL"] {
            client.execute(&id, json!({ "env": { name: "x" } })).await.expect_error(400, "validation_error");
        }
        client.execute(&id, json!({ "env": { "A": "x\0y" } })).await.expect_error(400, "validation_error");
    }
}
