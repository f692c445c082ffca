//! Secrets that sandboxes use and never see, on both runtimes: by the real `fetch` and `WebSocket`, through the real proxy.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::support::far::{Certified, Far, web, websockets};
use crate::support::{Client, Daemon, RUNTIMES, Settings};

const CANARY: &str = "sk-canary-5d21f0";

/// A daemon that admits this host and trusts the certificate.
async fn admitting(certified: &Certified) -> Daemon {
    Daemon::start_with(settings(certified)).await
}

fn settings(certified: &Certified) -> Settings {
    Settings::default()
        .set("sandbox.egress.allow_private", "127.0.0.1/32")
        .set("log.level", "trace")
        .env("SSL_CERT_FILE", certified.file.to_str().unwrap())
}

async fn put(client: &Client, name: &str, hosts: &[String], value: &str) {
    let body = json!({ "value": value, "hosts": hosts });
    let answer = client.send("PUT", &format!("/secrets/{name}"), Some(body.to_string())).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(!answer.text.contains(value), "{}", answer.text);
}

/// Tells what its variables hold, and what came of each request.
const REQUESTS: &str = r#"
const atTop = process.env.API_KEY;
const attempt = async ({ url, headers, body }) => {
  const put = (text) => text?.replaceAll("$KEY", process.env.API_KEY);
  const given = Object.fromEntries(Object.entries(headers ?? {}).map(([name, text]) => [name, put(text)]));
  try {
    const answer = await fetch(put(url), { headers: given, method: body ? "POST" : "GET", body: put(body) });
    return { text: await answer.text(), echo: answer.headers.get("x-echo"), proxy: answer.headers.get("proxy-status") };
  } catch (e) { return { error: String(e) } }
};
export const handler = async (event) => {
  const seen = { inEvent: event.env.API_KEY, inProcess: process.env.API_KEY, atTop, answers: [] };
  for (const request of event.data ?? []) seen.answers.push(await attempt(request));
  return seen;
};"#;

async fn environment(client: &Client, runtime: &str, source: &str, net: &[String]) -> String {
    let made = client
        .set_up(json!({ "mainModule": "main.js", "modules": { "main.js": source }, "runtime": runtime,
            "permissions": { "allowNet": net }, "secrets": ["API_KEY"] }))
        .await;
    assert_eq!((made.status, &made.json["metadata"]["secrets"]), (200, &json!(["API_KEY"])), "{}", made.text);
    made.json["id"].as_str().unwrap().to_owned()
}

async fn called(client: &Client, id: &str, data: Value) -> Map<String, Value> {
    let body = json!({ "data": data, "limits": { "timeoutMs": 60000 } });
    let answer = client.execute(id, body).await;
    let seen = answer.expect("ok").result().as_object().unwrap().clone();
    assert!(!answer.text.contains(CANARY), "in an answer: {}", answer.text);
    seen
}

fn files_with_the_canary(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files_with_the_canary(&entry.path()));
        } else if std::fs::read(entry.path()).is_ok_and(|bytes| holds_the_canary(&bytes)) {
            found.push(entry.path());
        }
    }
    found
}

fn holds_the_canary(bytes: &[u8]) -> bool {
    bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes())
}

/// The processes that show the canary in their arguments or variables.
fn processes_with_the_canary() -> Vec<PathBuf> {
    let files = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let files = files.flat_map(|entry| ["cmdline", "environ"].map(|name| entry.path().join(name)));
    files.filter(|path| std::fs::read(path).is_ok_and(|bytes| holds_the_canary(&bytes))).collect()
}

#[tokio::test]
async fn a_handler_uses_a_secret_in_tls_and_in_clear_that_neither_it_nor_anybody_else_sees() {
    let folder = tempfile::tempdir().unwrap();
    let certified = Certified::in_folder(folder.path());
    let (secure, clear, other) = (web(Some(&certified)).await, web(None).await, web(None).await);
    let daemon = admitting(&certified).await;
    let client = daemon.client();
    let here = |far: &Far| format!("127.0.0.1:{}", far.port);
    put(&client, "API_KEY", &["localhost".to_owned(), here(&clear)], CANARY).await;
    for runtime in RUNTIMES {
        let net = [format!("localhost:{}", secure.port), here(&clear), here(&other), here(&secure)];
        let id = environment(&client, runtime, REQUESTS, &net).await;
        let with_key = |url: String| json!({ "url": url, "headers": { "x-key": "$KEY" } });
        let data = json!([
            { "url": format!("https://localhost:{}/q?k=$KEY", secure.port), "body": "$KEY",
              "headers": { "authorization": "Bearer $KEY", "x-key": "$KEY" } },
            with_key(format!("http://{}/", here(&clear))),
            with_key(format!("http://{}/", here(&other))),
            with_key(format!("https://localhost:{}/to?http://{}/moved", secure.port, here(&other))),
            // The same server by another name, which is not the secret's: TLS is not ended, and nobody here trusts it.
            with_key(format!("https://{}/", here(&secure))),
        ]);
        let call = tokio::spawn({
            let (client, id) = (client.clone(), id.clone());
            async move { called(&client, &id, data).await }
        });
        let mut shown = Vec::new();
        while !call.is_finished() {
            shown.extend(processes_with_the_canary());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let seen = call.await.unwrap();
        assert_eq!(shown, Vec::<PathBuf>::new(), "{runtime}");
        let mark = seen["inEvent"].as_str().unwrap();
        assert!(mark.starts_with("cloister-secret-") && mark.len() == 48, "{runtime}: {mark}");
        assert_eq!((&seen["inProcess"], &seen["atTop"]), (&seen["inEvent"], &seen["inEvent"]), "{runtime}");
        let answers = seen["answers"].as_array().unwrap();
        for answered in &answers[..4] {
            assert_eq!(answered["text"], "served", "{runtime}: {seen:?}");
            assert_eq!(answered["echo"], mark, "{runtime}: told back as the placeholder: {seen:?}");
        }
        assert!(answers[4]["error"].is_string(), "{runtime}: {seen:?}");

        let in_tls = secure.take();
        assert_eq!(in_tls.len(), 2, "{runtime}: {in_tls:?}");
        let lower = in_tls[0].to_lowercase();
        assert!(lower.contains(&format!("authorization: bearer {CANARY}\r\n")), "{runtime}: {}", in_tls[0]);
        assert!(lower.contains(&format!("x-key: {CANARY}\r\n")), "{runtime}: {}", in_tls[0]);
        assert!(in_tls[0].starts_with(&format!("POST /q?k={mark} HTTP/1.1\r\n")), "{runtime}: {}", in_tls[0]);
        assert!(lower.contains(&format!("host: localhost:{}\r\n", secure.port)), "{runtime}: {}", in_tls[0]);
        assert!(
            clear.take()[0].contains(&format!("x-key: {CANARY}\r\n")),
            "{runtime}: in clear to a host with its port"
        );
        let elsewhere = other.take();
        assert_eq!(elsewhere.len(), 2, "{runtime}");
        for request in elsewhere {
            assert!(
                request.contains(&format!("x-key: {mark}\r\n")) && !request.contains(CANARY),
                "{runtime}: {request}"
            );
        }

        // Another sandbox's placeholder is worth nothing.
        let stale = json!([{ "url": format!("http://{}/", here(&clear)), "headers": { "x-key": mark } }]);
        let next = called(&client, &id, stale).await;
        assert_ne!(next["inEvent"], seen["inEvent"], "{runtime}");
        assert!(clear.take()[0].contains(&format!("x-key: {mark}\r\n")), "{runtime}");
        client.delete(&id).await;
    }
    let (_, health) = daemon.health("/healthz").await.unwrap();
    let egress = &health["egress"];
    assert_eq!((&egress["secrets"], &egress["secretsPut"]), (&json!(1), &json!(2 * 4)), "{health}");
    assert_eq!(egress["secretsWithheld"], json!(2 * 2), "{health}");
    let listed = client.send("GET", "/secrets", None).await;
    assert_eq!(listed.json[0]["name"], "API_KEY", "{}", listed.text);
    daemon.assert_nothing_left().await;
    let log = daemon.log_text();
    assert!(log.contains("egress.secret_put") && log.contains("egress.secret_withheld") && log.contains("secret.put"));
    assert!(!log.contains(CANARY) && !health.to_string().contains(CANARY) && !listed.text.contains(CANARY));
    assert_eq!(files_with_the_canary(daemon.home.root.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_change_and_a_removal_are_in_force_for_the_next_request_and_a_kill_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let certified = Certified::in_folder(folder.path());
    let clear = web(None).await;
    let host = format!("127.0.0.1:{}", clear.port);
    let daemon = admitting(&certified).await;
    let client = daemon.client();
    let hosts = [host.clone()];
    put(&client, "API_KEY", &hosts, "first").await;
    let id = environment(&client, "deno", REQUESTS, &hosts).await;
    let request = || json!([{ "url": format!("http://{host}/"), "headers": { "x-key": "$KEY" } }]);
    let sent = async |client: &Client| {
        called(client, &id, request()).await;
        let key = clear.take()[0].lines().find_map(|line| line.strip_prefix("x-key: ").map(str::to_owned));
        key.unwrap()
    };
    assert_eq!(sent(&client).await, "first");
    put(&client, "API_KEY", &hosts, "second").await;
    assert_eq!(sent(&client).await, "second");

    let home = daemon.kill_only();
    let daemon = Daemon::start_in(home, settings(&certified)).await;
    let client = daemon.client();
    assert_eq!(sent(&client).await, "second", "after a kill");
    assert_eq!(client.send("DELETE", "/secrets/API_KEY", None).await.status, 204);
    assert!(sent(&client).await.starts_with("cloister-secret-"), "removed");
    assert_eq!(client.send("GET", "/secrets", None).await.json, json!([]));
    client.send("DELETE", "/secrets/API_KEY", None).await.expect_error(404, "not_found");
}

#[tokio::test]
async fn what_is_no_secret_is_refused_and_says_what_is_wrong() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let body = |value: &str, hosts: Value| Some(json!({ "value": value, "hosts": hosts }).to_string());
    for (name, sent) in [
        ("KEY", body("a\r\nX-Evil: 1", json!(["a.example"]))),
        ("KEY", body("", json!(["a.example"]))),
        ("KEY", body("v", json!([]))),
        ("KEY", body("v", json!(["https://a.example"]))),
        ("LD_PRELOAD", body("v", json!(["a.example"]))),
        ("a-b", body("v", json!(["a.example"]))),
        ("KEY", Some("{}".to_owned())),
    ] {
        client.send("PUT", &format!("/secrets/{name}"), sent).await.expect_error(400, "validation_error");
    }
    client.send("PUT", "/secrets/KEY", body("v", json!("a.example"))).await.expect_error(400, "invalid_request");
    client
        .send("PUT", "/secrets/KEY", body(&"v".repeat(70_000), json!([])))
        .await
        .expect_error(413, "request_too_large");
    client.send("POST", "/secrets/KEY", None).await.expect_error(405, "method_not_allowed");
    assert_eq!(client.finish(client.request("GET", "/secrets")).await.status, 401);
    let request = json!({ "mainModule": "main.js", "modules": { "main.js": "1" }, "secrets": ["MISSING"] });
    let refused = client.set_up(request).await;
    refused.expect_error(400, "validation_error");
    assert!(refused.json["error"].as_str().unwrap().contains("MISSING"), "{}", refused.text);
}

/// Opens a WebSocket, sends a word, and tells what comes back. Bun takes a proxy by its own option only.
const SOCKETS: &str = r#"
export const handler = (event) => new Promise((done) => {
  // Deno's own permissions refuse at once.
  const open = (url, ...options) => { try { return new WebSocket(url, ...options) } catch (e) { done("error " + e); return {} } };
  const options = typeof Bun === "undefined" ? undefined : { proxy: process.env.HTTP_PROXY };
  const socket = options ? open(event.data, options) : open(event.data);
  socket.onopen = () => socket.send("word");
  socket.onmessage = (message) => { socket.close(); done("heard " + message.data) };
  socket.onerror = (e) => done("error " + e.message);
});"#;

#[tokio::test]
async fn websockets_go_through_the_proxy_in_clear_and_in_tls_to_listed_hosts_only() {
    let folder = tempfile::tempdir().unwrap();
    let certified = Certified::in_folder(folder.path());
    let (clear, secure, other) = (websockets(None).await, websockets(Some(&certified)).await, websockets(None).await);
    let daemon = admitting(&certified).await;
    let client = daemon.client();
    put(&client, "API_KEY", &["localhost".to_owned()], CANARY).await;
    for runtime in RUNTIMES {
        let net = [format!("127.0.0.1:{}", clear.port), format!("localhost:{}", secure.port)];
        let id = environment(&client, runtime, SOCKETS, &net).await;
        let said = async |url: String| {
            let body = json!({ "data": url, "limits": { "timeoutMs": 30000 } });
            client.execute(&id, body).await.expect("ok").result().as_str().unwrap().to_owned()
        };
        assert_eq!(said(format!("ws://127.0.0.1:{}/", clear.port)).await, "heard word", "{runtime}");
        assert_eq!(said(format!("wss://localhost:{}/", secure.port)).await, "heard word", "{runtime}");
        let refused = said(format!("ws://127.0.0.1:{}/", other.port)).await;
        assert!(refused.starts_with("error"), "{runtime}: {refused}");
        assert_eq!((clear.take(), secure.take(), other.take()), (vec!["word".into()], vec!["word".into()], vec![]));
    }
    daemon.assert_nothing_left().await;
}

/// Asks by `fetch` and by a WebSocket, trusting one certificate: the server's own.
const END_TO_END: &str = r#"
export const handler = async ({ data: { page, socket, ca } }) => {
  const bun = typeof Bun !== "undefined";
  const client = bun ? undefined : Deno.createHttpClient({ caCerts: [ca] });
  const headers = { "x-key": process.env.API_KEY };
  const answer = await fetch(page, bun ? { headers, tls: { ca } } : { headers, client });
  const heard = await new Promise((done) => {
    const made = new WebSocket(socket, bun ? { proxy: process.env.HTTP_PROXY, tls: { ca } } : { client });
    made.onopen = () => made.send("word");
    made.onmessage = (message) => { made.close(); done("heard " + message.data) };
    made.onerror = (e) => done("error " + e.message);
  });
  return [await answer.text(), answer.headers.get("x-echo") === process.env.API_KEY, heard];
};"#;

#[tokio::test]
async fn tls_to_a_host_without_a_secret_is_the_servers_own_from_end_to_end() {
    let folder = tempfile::tempdir().unwrap();
    let certified = Certified::in_folder(folder.path());
    let (secure, sockets) = (web(Some(&certified)).await, websockets(Some(&certified)).await);
    let daemon = admitting(&certified).await;
    let client = daemon.client();
    put(&client, "API_KEY", &["api.example.com".to_owned()], CANARY).await;
    let ca = std::fs::read_to_string(&certified.file).unwrap();
    for runtime in RUNTIMES {
        let net = [secure.port, sockets.port].map(|port| format!("localhost:{port}"));
        let id = environment(&client, runtime, END_TO_END, &net).await;
        let data = json!({ "page": format!("https://{}/", net[0]), "socket": format!("wss://{}/", net[1]), "ca": ca });
        let answer = client.execute(&id, json!({ "data": data, "limits": { "timeoutMs": 30000 } })).await;
        assert_eq!(answer.expect("ok").result(), &json!(["served", true, "heard word"]), "{runtime}");
        let (seen, said) = (secure.take(), sockets.take());
        assert!(seen[0].contains("x-key: cloister-secret-") && said == ["word"], "{runtime}: {seen:?} {said:?}");
    }
    let (_, health) = daemon.health("/healthz").await.unwrap();
    let egress = &health["egress"];
    assert_eq!(
        (&egress["allowed"], &egress["secretsPut"], &egress["secretsWithheld"]),
        (&json!(4), &json!(0), &json!(0))
    );
}
