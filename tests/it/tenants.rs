//! Two tenants on one daemon: what is somebody else's, what a quota stops, and what a restart remembers.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::gpu::Gpu;
use crate::support::{Answer, Client, Daemon, Settings, eventually};

/// `cloister …` beside a daemon, as its own user.
fn cloister(daemon: &Daemon, words: &[&str]) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloister"));
    let output = command.args(words).arg("--socket").arg(daemon.health_socket()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// What the health socket answers to another user of the socket's group.
fn asked_by_a_probe(daemon: &Daemon, line: &str) -> String {
    const ASK: &str = "import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(sys.argv[2].encode() + b' HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n')
print(b''.join(iter(lambda: s.recv(65536), b'')).decode())";
    let root = daemon.home.root.path();
    std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o711)).unwrap();
    let mut command = Command::new("/usr/bin/python3");
    let output = command.arg("-c").arg(ASK).arg(daemon.health_socket()).arg(line).uid(65_534).gid(0).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// A caller with a new token of a tenant.
fn caller(daemon: &Daemon, tenant: &str, scopes: &str) -> Client {
    let token = cloister(daemon, &["tokens", "create", "--tenant", tenant, "--scopes", scopes]).unwrap();
    Client::new(&daemon.url, &token)
}

fn set(daemon: &Daemon, words: &[&str]) {
    let words: Vec<&str> = ["tenants", "set"].iter().chain(words).copied().collect();
    cloister(daemon, &words).unwrap();
}

/// Everything of an answer that a caller can compare, the id that it asked for taken out.
fn seen(answer: Answer, id: &str) -> (u16, String, BTreeMap<String, String>) {
    let mut headers = answer.headers;
    // These two are every answer's own.
    headers.remove("date");
    headers.remove("x-request-id");
    (answer.status, answer.text.replace(id, "ID"), headers)
}

const ECHO: &str = "export const handler = (event) => event.data;";
const SPIN: &str = "export const handler = () => { for (;;); };";

#[tokio::test]
async fn two_tenants_who_attack_each_others_ids_learn_nothing_on_any_route() {
    let daemon = Daemon::start().await;
    for tenant in ["acme", "umbrella"] {
        set(&daemon, &[tenant]);
    }
    let clients = [caller(&daemon, "acme", "all"), caller(&daemon, "umbrella", "all"), daemon.client()];
    let (mut ids, mut calls) = (Vec::new(), Vec::new());
    for client in &clients {
        ids.push(client.environment("bun", ECHO).await);
        let answer = client.execute(&ids[ids.len() - 1], json!({ "data": 1 })).await;
        calls.push(answer.expect("ok").json["id"].as_str().unwrap().to_owned());
    }
    let nobodys = "0b8e7c6a-5c1b-4f2e-9d3a-7a1f0e2d4c55";
    for (at, client) in clients.iter().enumerate() {
        for theirs in ids.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, id)| id) {
            for (method, rest, body) in [
                ("GET", "", None),
                ("GET", "/executions", None),
                ("POST", "/execute", Some(r#"{"data":1}"#)),
                ("POST", "/execute", Some(r#"{"data":1,"limits":{"timeoutMs":1}}"#)),
                ("POST", "/execute", Some("{")),
                ("DELETE", "", None),
                ("PATCH", "", Some(r#"{"ttlSeconds":1}"#)),
                ("PUT", "/modules", Some(r#"{"modules":{"main.js":"export const handler = () => 1"}}"#)),
                ("POST", "/clone", None),
                ("POST", "/execute?async=true", Some("{}")),
            ] {
                let ask = async |id: &str| {
                    let answer =
                        client.send(method, &format!("/environments/{id}{rest}"), body.map(str::to_owned)).await;
                    seen(answer, id)
                };
                let (attacked, absent) = (ask(theirs).await, ask(nobodys).await);
                assert_eq!(attacked, absent, "{method} {rest}");
                assert!(attacked.0 >= 400, "{method} {rest}: {attacked:?}");
            }
        }
        for theirs in calls.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, id)| id) {
            for method in ["GET", "DELETE"] {
                let ask = async |id: &str| seen(client.send(method, &format!("/executions/{id}"), None).await, id);
                let (attacked, absent) = (ask(theirs).await, ask(nobodys).await);
                assert_eq!(attacked, absent, "{method}");
                assert_eq!(attacked.0, 404, "{method}: {attacked:?}");
            }
        }
        let list = client.send("GET", "/environments", None).await;
        let listed: Vec<&str> = list.json.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
        assert_eq!(listed, [ids[at].as_str()]);
        let calls = client.send("GET", &format!("/environments/{}/executions", ids[at]), None).await;
        assert_eq!(calls.json.as_array().unwrap().len(), 1, "nobody else's attempt is among them");
        client.execute(&ids[at], json!({ "data": 2 })).await.expect("ok");
    }
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn a_token_holds_at_once_and_over_a_restart_and_ends_with_its_revocation() {
    let daemon = Daemon::start().await;
    set(&daemon, &["acme"]);
    let reader = caller(&daemon, "acme", "environments:read");
    assert_eq!(reader.send("GET", "/environments", None).await.status, 200);
    let wanted = json!({ "mainModule": "main.js", "modules": { "main.js": ECHO } });
    let refused = reader.set_up(wanted.clone()).await;
    refused.expect_error(403, "missing_scope");
    assert_eq!(refused.json["details"]["scope"], "environments:write");
    let refused = cloister(&daemon, &["tokens", "create", "--tenant", "nobody", "--scopes", "all"]).unwrap_err();
    assert!(refused.contains("cloister tenants set nobody"), "{refused}");
    assert!(asked_by_a_probe(&daemon, "GET /readyz").starts_with("HTTP/1.1 200"));
    for line in ["GET /tokens", "POST /tokens", "GET /tenants", "PUT /tenants/x", "DELETE /tokens/0123456789ab"] {
        let answer = asked_by_a_probe(&daemon, line);
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("operator_only"), "{line}: {answer}");
    }

    let home = daemon.kill_only();
    let daemon = Daemon::start_in(home, Settings::default()).await;
    let listed: Value = serde_json::from_str(&cloister(&daemon, &["tokens", "list", "--json"]).unwrap()).unwrap();
    assert_eq!((listed[0]["tenant"].as_str(), listed[0].get("token")), (Some("acme"), None));
    let moved = reader.at(&daemon.url);
    assert_eq!(moved.send("GET", "/environments", None).await.status, 200);
    cloister(&daemon, &["tokens", "revoke", listed[0]["id"].as_str().unwrap()]).unwrap();
    let refused = moved.send("GET", "/environments", None).await;
    assert_eq!((refused.status, refused.text.as_str()), (401, "Unauthorized"));
    assert_eq!(daemon.client().set_up(wanted).await.status, 200, "the operator's own token stays");
    let (_, health) = daemon.health("/healthz").await.unwrap();
    assert_eq!((&health["tenants"]["tenants"], &health["tenants"]["tokens"]), (&json!(2), &json!(0)));
}

#[tokio::test]
async fn quotas_stop_one_tenant_and_nobody_else() {
    let mut daemon = Daemon::start().await;
    set(&daemon, &["acme", "--environments", "1", "--concurrency", "1"]);
    set(&daemon, &["umbrella"]);
    let (acme, umbrella) = (caller(&daemon, "acme", "all"), caller(&daemon, "umbrella", "all"));
    let id = acme.environment("bun", SPIN).await;
    let wanted = json!({ "mainModule": "main.js", "modules": { "main.js": ECHO }, "runtime": "bun" });
    let full = acme.set_up(wanted.clone()).await;
    full.expect_error(403, "quota_exceeded");
    assert_eq!(full.json["details"], json!({ "quota": "environments", "limit": 1, "used": 1 }));

    let running = tokio::spawn({
        let (acme, id) = (acme.clone(), id.clone());
        async move { acme.execute(&id, json!({ "limits": { "timeoutMs": 3000 } })).await }
    });
    let health = async |pointer: &str| daemon.health("/healthz").await.map(|(_, body)| body.pointer(pointer).cloned());
    eventually("a running call", Duration::from_secs(20), async || match health("/tenants/calls").await? {
        Some(calls) if calls == json!(1) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let refused = acme.execute(&id, json!({})).await;
    refused.expect_error(429, "quota_exceeded");
    assert_eq!(
        (refused.headers["retry-after"].as_str(), &refused.json["details"]["quota"]),
        ("1", &json!("concurrency"))
    );
    let theirs = umbrella.environment("bun", ECHO).await;
    umbrella.execute(&theirs, json!({ "data": 1 })).await.expect("ok");
    running.await.unwrap().expect("timeout");

    // Three seconds of a whole core's half: the cgroup's own count, over a restart.
    eventually("the charge", Duration::from_secs(10), async || {
        let listed: Value = serde_json::from_str(&cloister(&daemon, &["tenants", "list", "--json"])?).unwrap();
        let seconds = listed[0]["usage"]["cpuSeconds"].as_f64().unwrap();
        if seconds > 0.5 && seconds < 3.5 { Ok(()) } else { Err(listed.to_string()) }
    })
    .await;
    set(&daemon, &["acme", "--cpu-seconds", "1/day"]);
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(daemon.ended(Duration::from_secs(20)).await.code(), Some(0));
    let home = daemon.kill_only();
    let daemon = Daemon::start_in(home, Settings::default()).await;
    let (acme, umbrella) = (acme.at(&daemon.url), umbrella.at(&daemon.url));
    let spent = acme.execute(&id, json!({})).await;
    spent.expect_error(429, "quota_exceeded");
    assert_eq!(spent.json["details"]["quota"], "cpu_seconds", "{}", spent.text);
    assert!(spent.headers["retry-after"].parse::<u64>().unwrap() <= 86_400);
    umbrella.execute(&theirs, json!({ "data": 1 })).await.expect("ok");

    set(&daemon, &["acme", "--reset", "--storage-mib", "1"]);
    let large = json!({ "main.js": ECHO, "big.js": format!("// {}", "x".repeat(1 << 20)) });
    let refused = acme.set_up(json!({ "mainModule": "main.js", "modules": large, "runtime": "bun" })).await;
    refused.expect_error(403, "quota_exceeded");
    assert_eq!(refused.json["details"]["quota"], "storage_bytes");
    set(&daemon, &["acme", "--reset", "--rate", "0.001/s", "--burst", "1"]);
    assert_eq!(acme.set_up(wanted.clone()).await.status, 200);
    acme.set_up(wanted).await.expect_error(429, "quota_exceeded");
    let log = daemon.log_text();
    for event in ["quota.refused", "tenant.set"] {
        assert!(log.contains(event), "{event}");
    }
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn an_environment_that_allows_one_call_at_once_serves_them_one_after_the_other() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let limits = json!({ "concurrency": 1, "rate": { "perSecond": 0.01, "burst": 3 } });
    let source = "export const handler = () => new Promise((done) => setTimeout(() => done(Date.now()), 300));";
    let wanted =
        json!({ "mainModule": "main.js", "modules": { "main.js": source }, "runtime": "bun", "limits": limits });
    let made = client.set_up(wanted).await;
    assert_eq!(made.json["limits"]["concurrency"], 1, "{}", made.text);
    let id = made.json["id"].as_str().unwrap();
    let calls = (0..3).map(|_| client.execute(id, json!({ "limits": { "timeoutMs": 20000 } })));
    let mut ends: Vec<i64> = futures_util::future::join_all(calls)
        .await
        .iter()
        .map(|call| call.expect("ok").result().as_i64().unwrap())
        .collect();
    ends.sort_unstable();
    assert!(ends.windows(2).all(|pair| pair[1] - pair[0] >= 300), "{ends:?}");
    let refused = client.execute(id, json!({})).await;
    refused.expect_error(429, "rate_limited");
    assert!(refused.headers["retry-after"].parse::<u64>().unwrap() > 60);
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn a_tenants_jobs_and_the_handlers_that_they_call_are_its_own() {
    let gpu = Gpu::double().with_sandboxes().start().await;
    for tenant in ["acme", "umbrella"] {
        set(&gpu.daemon, &[tenant]);
    }
    let (acme, umbrella) = (caller(&gpu.daemon, "acme", "all"), caller(&gpu.daemon, "umbrella", "all"));
    let id = acme.environment("bun", ECHO).await;
    let job = json!({ "input": { "execute": { "id": id, "data": 7, "limits": { "timeoutMs": 30000 } } } }).to_string();
    let own = acme.send("POST", "/v2/any/runsync", Some(job.clone())).await;
    assert_eq!((&own.json["status"], &own.json["output"]["result"]), (&json!("COMPLETED"), &json!(7)), "{}", own.text);
    let theirs = umbrella.send("POST", "/v2/any/runsync", Some(job.clone())).await;
    assert_eq!(theirs.json["status"], "FAILED");
    assert_eq!(theirs.json["error"], format!("execution_failed: environment {id} does not exist"));
    let submits = caller(&gpu.daemon, "acme", "jobs:submit");
    submits.send("POST", "/v2/any/run", Some(job)).await.expect_error(403, "missing_scope");

    let job = own.json["id"].as_str().unwrap();
    for (method, route) in [("GET", "status"), ("POST", "status-sync"), ("GET", "stream"), ("POST", "cancel")] {
        let ask = async |id: &str| seen(umbrella.send(method, &format!("/v2/any/{route}/{id}"), None).await, id);
        let attacked = ask(job).await;
        assert_eq!((attacked.0, &attacked), (404, &ask("sync-00000000-0000-4000-8000-000000000000").await), "{route}");
    }
    let shown = acme.send("GET", &format!("/v2/any/status/{job}"), None).await;
    assert_eq!(shown.json["status"], "COMPLETED", "nobody cancelled it");
    for (client, completed) in [(&acme, 1), (&umbrella, 0)] {
        let health = client.send("GET", "/v2/any/health", None).await;
        assert_eq!(health.json["jobs"]["completed"], completed, "{}", health.text);
    }
}
