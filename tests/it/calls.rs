//! Calls that are answered later, webhooks, and requests that are made once.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};

use crate::support::daemon::TOKEN;
use crate::support::{Answer, Client, Daemon, RUNTIMES, Settings, eventually};

const ECHO: &str = "export const handler = (event) => ({ echo: event.data });";
const SLEEPS: &str = "export const handler = () => new Promise((done) => setTimeout(done, 50000));";

async fn ask(client: &Client, path: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
    let mut request = client.request("POST", path).bearer_auth(TOKEN).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.finish(request.body(body.to_string())).await
}

/// Asks for a call that is answered later, and returns where it is found.
pub async fn later(client: &Client, id: &str, body: Value) -> String {
    let answer = ask(client, &format!("/environments/{id}/execute"), &body, &[("prefer", "respond-async")]).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!((answer.json["status"].as_str(), &answer.json["environmentId"]), (Some("queued"), &json!(id)));
    assert_eq!(answer.headers["preference-applied"], "respond-async");
    answer.headers["location"].clone()
}

/// Waits until a call stands so, and returns its view.
pub async fn stands(client: &Client, location: &str, status: &str) -> Value {
    let mut seen = Value::Null;
    eventually(status, Duration::from_secs(30), async || {
        seen = client.send("GET", location, None).await.json;
        if seen["status"] == status { Ok(()) } else { Err(seen.to_string()) }
    })
    .await;
    seen
}

#[tokio::test]
async fn an_accepted_call_runs_later_and_is_found_by_its_id() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    for runtime in RUNTIMES {
        let id = client.environment(runtime, ECHO).await;
        let location = later(&client, &id, json!({ "data": "é", "limits": { "timeoutMs": 30000 } })).await;
        let done = stands(&client, &location, "done").await;
        assert_eq!((&done["outcome"], &done["answer"]["result"]), (&json!("ok"), &json!({ "echo": "é" })));
        assert_eq!(done["answer"]["id"], done["id"]);
        let listed = client.send("GET", &format!("/executions?environment={id}"), None).await.json;
        assert_eq!(
            (listed[0]["id"] == done["id"], listed[0]["answer"].is_null(), listed[1].is_null()),
            (true, true, true)
        );
        // A call whose caller waited is found, too, without its answer.
        let plain = client.execute(&id, json!({ "limits": { "timeoutMs": 30000 } })).await;
        let found = client.send("GET", &format!("/executions/{}", plain.json["id"].as_str().unwrap()), None).await;
        assert_eq!((found.json["status"].as_str(), found.json["outcome"].as_str()), (Some("done"), Some("ok")));
        client.delete(&id).await;
        client.send("GET", &location, None).await.expect_error(404, "not_found");
    }
    client.send("GET", "/executions/x", None).await.expect_error(400, "invalid_id");
    client.send("GET", "/executions?environment=x", None).await.expect_error(400, "invalid_id");
    let unknown = "/executions/0190c5a2-5c1b-7f2e-9d3a-7a1f0e2d4c55";
    client.send("DELETE", unknown, None).await.expect_error(404, "not_found");
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn accepted_calls_are_cancelled_and_refused_when_there_are_too_many() {
    let settings = Settings::default().set("calls.at_once", "1").set("calls.queue", "2");
    let daemon = Daemon::start_with(settings).await;
    let client = daemon.client();
    let id = client.environment("bun", SLEEPS).await;
    let body = json!({ "limits": { "timeoutMs": 60000 } });
    let running = later(&client, &id, body.clone()).await;
    stands(&client, &running, "running").await;
    let waiting = later(&client, &id, body.clone()).await;
    let full = ask(&client, &format!("/environments/{id}/execute?async=true"), &body, &[]).await;
    full.expect_error(429, "too_many_requests");
    assert!(full.headers.contains_key("retry-after"));
    for location in [&waiting, &running, &running] {
        assert_eq!(client.send("DELETE", location, None).await.status, 204);
    }
    for location in [&waiting, &running] {
        let done = stands(&client, location, "done").await;
        assert_eq!((&done["outcome"], &done["answer"]["outcome"]), (&json!("cancelled"), &json!("cancelled")));
    }
    assert!(stands(&client, &waiting, "done").await["startedAt"].is_null());
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn after_a_kill_what_had_not_begun_runs_and_what_had_is_over() {
    let settings = Settings::default().set("calls.at_once", "1");
    let daemon = Daemon::start_with(settings.clone()).await;
    let client = daemon.client();
    let (slow, quick) = (client.environment("bun", SLEEPS).await, client.environment("bun", ECHO).await);
    let begun = later(&client, &slow, json!({ "limits": { "timeoutMs": 60000 } })).await;
    eventually("a running call", Duration::from_secs(20), async || {
        let (_, picture) = daemon.health("/healthz").await?;
        if picture["pool"]["running"] == 1 { Ok(()) } else { Err(picture["pool"].to_string()) }
    })
    .await;
    let mut waiting = Vec::new();
    for n in 0..3 {
        waiting.push(later(&client, &quick, json!({ "data": n, "limits": { "timeoutMs": 30000 } })).await);
    }
    let home = daemon.kill_only();
    let daemon = Daemon::start_in(home, settings).await;
    let client = daemon.client();
    let over = stands(&client, &begun, "done").await;
    assert_eq!((&over["outcome"], over["answer"].is_null()), (&json!("cancelled"), true));
    for (n, location) in waiting.iter().enumerate() {
        let done = stands(&client, location, "done").await;
        assert_eq!(done["answer"]["result"], json!({ "echo": n }));
    }
    let environment = client.send("GET", &format!("/environments/{slow}"), None).await.json;
    assert_eq!(environment["executionCount"], 1, "it is not run twice");
    daemon.assert_nothing_left().await;
}

/// A request's head, in lower case, and its body.
type Heard = (String, String);

/// Answers each request with the next status, the last one for ever.
fn listener(statuses: &'static [u16]) -> (String, Receiver<Heard>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook?token=t", listener.local_addr().unwrap());
    let (tell, heard) = channel();
    std::thread::spawn(move || {
        let mut statuses = statuses.iter().copied();
        let mut last = 204;
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
            let head = head.to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
            reader.read_exact(&mut body).unwrap();
            last = statuses.next().unwrap_or(last);
            let answer = format!("HTTP/1.1 {last} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
            drop(tell.send((head, String::from_utf8(body).unwrap())));
        }
    });
    (url, heard)
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
}

#[tokio::test]
async fn a_webhook_is_told_the_end_signed_and_again_after_a_failure() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let (url, heard) = listener(&[500, 204]);
    let daemon = Daemon::start_with(Settings::default().set("calls.webhook_allow_private", "127.0.0.0/8")).await;
    let client = daemon.client();
    let id = client.environment("deno", ECHO).await;
    let webhook = json!({ "url": url, "secret": secret });
    let location =
        later(&client, &id, json!({ "data": 1, "webhook": webhook, "limits": { "timeoutMs": 30000 } })).await;
    let (first, body) = heard.recv_timeout(Duration::from_secs(30)).unwrap();
    let message: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&message["type"], &message["data"]["answer"]["result"]),
        (&json!("execution.done"), &json!({ "echo": 1 }))
    );
    assert!(first.starts_with("post /hook?token=t http/1.1\r\n"), "{first}");
    let (again, same) = heard.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(
        (header(&first, "webhook-id"), header(&again, "webhook-id").is_empty()),
        (header(&again, "webhook-id"), false)
    );
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&BASE64_STANDARD.decode(&secret[6..]).unwrap()).unwrap();
    let id = message["data"]["id"].as_str().unwrap();
    mac.update(format!("msg_{id}.{}.{same}", header(&again, "webhook-timestamp")).as_bytes());
    let signed = format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(header(&again, "webhook-signature"), signed.to_lowercase());
    eventually("a delivered webhook", Duration::from_secs(5), async || {
        let hook = client.send("GET", &location, None).await.json["webhook"].clone();
        if hook == json!({ "state": "delivered", "attempts": 2 }) { Ok(()) } else { Err(hook.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn a_webhook_reaches_no_private_address_and_what_is_none_is_refused() {
    let (url, heard) = listener(&[204]);
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let id = client.environment("bun", ECHO).await;
    let by_name = url.replace("127.0.0.1", "localhost");
    for url in [url, by_name, "http://169.254.169.254/latest".to_owned()] {
        let location =
            later(&client, &id, json!({ "webhook": { "url": url }, "limits": { "timeoutMs": 30000 } })).await;
        eventually("a webhook that is given up", Duration::from_secs(30), async || {
            let hook = client.send("GET", &location, None).await.json["webhook"].clone();
            if hook == json!({ "state": "failed", "attempts": 1 }) { Ok(()) } else { Err(hook.to_string()) }
        })
        .await;
    }
    assert!(heard.try_recv().is_err());
    let path = format!("/environments/{id}/execute");
    let prefer: &[(&str, &str)] = &[("prefer", "respond-async")];
    for (webhook, headers, code) in [
        (json!({ "url": "ftp://a" }), prefer, "validation_error"),
        (json!({ "url": "https://a", "secret": "x" }), prefer, "validation_error"),
        (json!({ "url": "https://a" }), &[], "validation_error"),
        (json!({ "url": "https://a", "more": 1 }), prefer, "invalid_request"),
        (json!("https://a"), prefer, "invalid_request"),
    ] {
        ask(&client, &path, &json!({ "webhook": webhook }), headers).await.expect_error(400, code);
    }
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn a_request_with_a_key_is_made_once_and_its_answer_outlives_a_kill_where_output_is_kept() {
    for keep in ["true", "false"] {
        let settings = Settings::default().set("store.keep_output", keep);
        let daemon = Daemon::start_with(settings.clone()).await;
        let client = daemon.client();
        let source = "export const handler = () => new Promise((done) => setTimeout(() => done(Math.random()), 500));";
        let id = client.environment("deno", source).await;
        let path = format!("/environments/{id}/execute");
        let body = json!({ "limits": { "timeoutMs": 30000 } });
        let key: &[(&str, &str)] = &[("idempotency-key", "\"order 17\"")];
        ask(&client, &path, &body, key).await.expect_error(400, "validation_error");
        let key: &[(&str, &str)] = &[("idempotency-key", "order-17")];
        let (first, second) = tokio::join!(ask(&client, &path, &body, key), ask(&client, &path, &body, key));
        first.expect("ok");
        assert_eq!(first.text, second.text);
        let replayed = [&first, &second].map(|answer| answer.headers.contains_key("idempotency-replayed"));
        assert!(replayed[0] != replayed[1], "one of them did it: {replayed:?}");
        ask(&client, &path, &json!({}), key).await.expect_error(422, "idempotency_key_reused");
        let events =
            ask(&client, &path, &body, &[("idempotency-key", "order-17"), ("accept", "text/event-stream")]).await;
        assert_eq!(events.text, format!("id: 1\nevent: result\ndata: {}\n\n", first.text));

        let home = daemon.kill_only();
        let daemon = Daemon::start_in(home, settings).await;
        let client = daemon.client();
        let again = ask(&client, &path, &body, key).await;
        if keep == "true" {
            assert_eq!((again.status, again.text), (200, first.text));
        } else {
            again.expect_error(409, "answer_not_kept");
            assert_eq!(again.json["details"]["executionId"], first.json["id"]);
        }
        let environment = client.send("GET", &format!("/environments/{id}"), None).await.json;
        assert_eq!(environment["executionCount"], 1);
        daemon.assert_nothing_left().await;
    }
}

#[tokio::test]
async fn a_call_with_a_key_that_a_kill_cut_off_says_so_and_is_not_run_again() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let id = client.environment("bun", SLEEPS).await;
    let path = format!("/environments/{id}/execute");
    let body = json!({ "limits": { "timeoutMs": 60000 } });
    let key: &[(&str, &str)] = &[("idempotency-key", "k")];
    let hung_up = tokio::time::timeout(Duration::from_secs(3), ask(&client, &path, &body, key)).await;
    assert!(hung_up.is_err());
    let (_, picture) = daemon.health("/healthz").await.unwrap();
    assert_eq!(picture["pool"]["running"], 1, "a call with a key goes on without its caller");
    let home = daemon.kill_only();
    let daemon = Daemon::start_in(home, Settings::default()).await;
    let client = daemon.client();
    let again = ask(&client, &path, &body, key).await;
    again.expect_error(409, "call_cut_off");
    let call = again.json["details"]["executionId"].as_str().unwrap();
    let call = client.send("GET", &format!("/executions/{call}"), None).await.json;
    assert_eq!((&call["status"], &call["outcome"]), (&json!("done"), &json!("cancelled")));
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn set_ups_and_accepted_calls_are_made_once_too() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let key: &[(&str, &str)] = &[("idempotency-key", "k")];
    let request = json!({ "mainModule": "m.js", "modules": { "m.js": ECHO }, "runtime": "bun" });
    let (first, second) = tokio::join!(
        ask(&client, "/environments/setup", &request, key),
        ask(&client, "/environments/setup", &request, key)
    );
    assert_eq!((first.status, &first.json["id"]), (200, &second.json["id"]), "{}", second.text);
    let listed = client.send("GET", "/environments", None).await.json;
    assert_eq!(listed.as_array().unwrap().len(), 1);
    let bad = json!({ "mainModule": "m.js", "modules": {}, "runtime": "bun" });
    let other: &[(&str, &str)] = &[("idempotency-key", "l")];
    ask(&client, "/environments/setup", &bad, other).await.expect_error(400, "validation_error");
    assert_eq!(ask(&client, "/environments/setup", &request, other).await.status, 200, "a refusal uses no key up");

    let path = format!("/environments/{}/execute", first.json["id"].as_str().unwrap());
    let headers: &[(&str, &str)] = &[("idempotency-key", "k"), ("prefer", "respond-async")];
    let body = json!({ "limits": { "timeoutMs": 30000 } });
    let first = ask(&client, &path, &body, headers).await;
    let second = ask(&client, &path, &body, headers).await;
    assert_eq!((first.status, second.status), (202, 202), "{} {}", first.text, second.text);
    assert_eq!(first.headers["location"], second.headers["location"]);
    ask(&client, &path, &body, key).await.expect_error(422, "idempotency_key_reused");
    stands(&client, &first.headers["location"], "done").await;
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn a_drain_finishes_what_runs_keeps_what_waits_and_settles_keys() {
    let settings = Settings::default().set("calls.at_once", "1").set("store.keep_output", "true");
    let mut daemon = Daemon::start_with(settings.clone()).await;
    let client = daemon.client();
    let source = "export const handler = () => new Promise((done) => setTimeout(() => done('finished'), 3000));";
    let id = client.environment("bun", source).await;
    let body = json!({ "limits": { "timeoutMs": 30000 } });
    let running = later(&client, &id, body.clone()).await;
    let waiting = later(&client, &id, body.clone()).await;
    let path = format!("/environments/{id}/execute");
    let key: &[(&str, &str)] = &[("idempotency-key", "k")];
    let keyed = {
        let (client, path, body) = (client.clone(), path.clone(), body.clone());
        tokio::spawn(async move { ask(&client, &path, &body, key).await })
    };
    eventually("two running calls", Duration::from_secs(20), async || {
        let (_, picture) = daemon.health("/healthz").await?;
        if picture["pool"]["running"] == 2 { Ok(()) } else { Err(picture["pool"].to_string()) }
    })
    .await;
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    let keyed = keyed.await.unwrap();
    assert_eq!(keyed.expect("ok").result(), "finished");
    assert_eq!(daemon.ended(Duration::from_secs(20)).await.code(), Some(0));
    let home = daemon.kill_only();
    let daemon = Daemon::start_in(home, settings).await;
    let client = daemon.client();
    let done = client.send("GET", &running, None).await.json;
    assert_eq!((&done["status"], &done["answer"]["result"]), (&json!("done"), &json!("finished")));
    assert_eq!(ask(&client, &path, &body, key).await.text, keyed.text);
    assert_eq!(stands(&client, &waiting, "done").await["answer"]["result"], "finished");
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn nothing_of_an_accepted_call_is_in_a_log_of_any_level() {
    const CANARY: &str = "canary5f1e";
    let (url, heard) = listener(&[500, 204]);
    let settings = Settings::default().set("log.level", "trace").set("calls.webhook_allow_private", "127.0.0.0/8");
    let daemon = Daemon::start_with(settings).await;
    let client = daemon.client();
    let source =
        format!("export const handler = (event) => {{ console.log(event.data); throw event.data; }}; // {CANARY}");
    let id = client.environment("bun", &source).await;
    let secret = format!("whsec_{}", BASE64_STANDARD.encode([CANARY; 3].concat()));
    let body = json!({ "data": CANARY, "env": { CANARY: CANARY }, "files": true, "limits": { "timeoutMs": 30000 },
        "webhook": { "url": format!("{url}&{CANARY}"), "secret": secret } });
    let path = format!("/environments/{id}/execute");
    let headers: &[(&str, &str)] = &[("idempotency-key", CANARY), ("prefer", "respond-async")];
    let answer = ask(&client, &path, &body, headers).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    for _ in 0..2 {
        let (_, told) = heard.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(told.contains(CANARY), "the webhook is told what the handler said");
    }
    let modules = json!({ "modules": { "main.js": source } }).to_string();
    assert_eq!(client.send("PUT", &format!("/environments/{id}/modules"), Some(modules)).await.status, 200);
    let log = daemon.log_text();
    assert!(log.contains("webhook.failed") && log.contains("desk.ended"), "{log}");
    let line = log.lines().find(|line| line.contains(CANARY) || line.contains(&secret));
    assert_eq!(line, None);
}
