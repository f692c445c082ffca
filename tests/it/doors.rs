//! The HTTP door under bad input and bad manners (rows E2, E3), and the health socket.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{Client, Daemon, Settings, eventually, host};

#[tokio::test]
async fn a_token_is_needed_everywhere_but_for_health() {
    let daemon = Daemon::start().await;
    let stranger = Client::new(&daemon.url, "wrong");
    for (method, path) in [("GET", "/environments"), ("POST", "/environments/setup"), ("GET", "/nowhere")] {
        let answer = stranger.send(method, path, None).await;
        assert_eq!((answer.status, answer.text.as_str()), (401, "Unauthorized"), "{method} {path}");
        assert!(answer.headers.contains_key("x-request-id"));
    }
    let health = stranger.finish(stranger.request("GET", "/health")).await;
    assert_eq!((health.status, health.text.as_str()), (200, "OK"));
    let client = daemon.client();
    let named = client.request("GET", "/environments").bearer_auth(crate::support::daemon::TOKEN);
    let named = client.finish(named.header("x-request-id", "mine-1")).await;
    assert_eq!(named.headers["x-request-id"], "mine-1");
}

#[tokio::test]
async fn it_does_not_start_without_a_token_unless_told_to() {
    let home = crate::support::daemon::Home::new();
    let settings = Settings::default().env("BEARER_TOKEN", "");
    let output = crate::support::daemon::command(&home, &settings).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("BEARER_TOKEN") && told.contains("DISABLE_BEARER_TOKEN"), "{told}");
    let open = Settings::default().env("BEARER_TOKEN", "").env("DISABLE_BEARER_TOKEN", "true");
    let daemon = Daemon::start_with(open).await;
    assert_eq!(Client::new(&daemon.url, "any").send("GET", "/environments", None).await.status, 200);
}

#[tokio::test]
async fn e2_what_is_too_large_too_deep_or_not_json_is_refused_in_bounded_memory() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let id = client.environment("bun", "export const handler = (e) => e.data").await;
    let before = host::footprint(daemon.pid());
    let large = json!({ "mainModule": "main.js", "modules": { "main.js": "x".repeat(11 << 20) } });
    client.set_up(large).await.expect_error(413, "request_too_large");
    client.execute(&id, json!({ "data": "x".repeat((11 << 20) / 10) })).await.expect_error(413, "request_too_large");
    let execute = format!("/environments/{id}/execute");
    let deep = format!("{{\"data\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    client.send("POST", &execute, Some(deep)).await.expect_error(400, "invalid_request");
    let twice = r#"{"data":1,"data":2}"#.to_owned();
    client.send("POST", &execute, Some(twice)).await.expect_error(400, "invalid_request");
    let twice = r#"{"mainModule":"a.js","modules":{"a.js":"1","a.js":"2"}}"#.to_owned();
    client.send("POST", "/environments/setup", Some(twice)).await.expect_error(400, "invalid_request");
    for broken in ["", "{", "[1]", "nul", "{\"data\": \u{0}}"] {
        client.send("POST", &execute, Some(broken.to_owned())).await.expect_error(400, "invalid_request");
    }
    let typed = |kind: &str| {
        let request = client.request("POST", &execute).bearer_auth(crate::support::daemon::TOKEN);
        client.finish(request.header("content-type", kind).body("{}"))
    };
    typed("text/plain").await.expect_error(415, "unsupported_media_type");
    let packed = client.request("POST", &execute).bearer_auth(crate::support::daemon::TOKEN);
    let packed = packed.header("content-type", "application/json").header("content-encoding", "gzip").body("{}");
    client.finish(packed).await.expect_error(415, "unsupported_media_type");
    client.send("POST", "/environments/not-a-uuid/execute", Some("{}".into())).await.expect_error(400, "invalid_id");
    client.send("DELETE", "/environments/not-a-uuid", None).await.expect_error(400, "invalid_id");
    let after = host::footprint(daemon.pid());
    assert!(after.resident_kib < before.resident_kib + 48 * 1024, "{before:?} → {after:?}");
}

#[tokio::test]
async fn e2_a_caller_that_dawdles_is_let_go() {
    let settings = Settings::default().set("server.header_timeout", "1 s").set("server.body_timeout", "1 s");
    let daemon = Daemon::start_with(settings).await;
    let address = daemon.url.strip_prefix("http://").unwrap();
    let token = crate::support::daemon::TOKEN;
    let slow_body = format!(
        "POST /environments/setup HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{{"
    );
    for opening in ["GET /environments HTTP/1.1\r\nhost: x\r\nx-slow: ".to_owned(), slow_body] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(opening.as_bytes()).await.unwrap();
        let began = Instant::now();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "the connection was still open after {:?}", began.elapsed());
        assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn e2_a_stranger_who_sends_ahead_and_reads_nothing_is_cut() {
    let daemon = Daemon::start().await;
    let address = daemon.url.strip_prefix("http://").unwrap().parse().unwrap();
    for path in ["/health", "/environments"] {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(2048).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        let requests = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").repeat(1000);
        let sending = async { while stream.write_all(requests.as_bytes()).await.is_ok() {} };
        let cut = tokio::time::timeout(Duration::from_secs(15), sending).await;
        assert!(cut.is_ok(), "{path}: the connection stayed open");
        let mut answers = Vec::new();
        // What was sent after the end makes it a reset.
        let _ = stream.read_to_end(&mut answers).await;
        let answers = String::from_utf8_lossy(&answers);
        assert!(answers.matches("HTTP/1.1 ").count() <= 1, "{path}: {answers}");
    }
    assert_eq!(daemon.client().send("GET", "/environments", None).await.status, 200);
}

#[tokio::test]
async fn e3_a_crowd_is_served_or_told_when_to_come_back() {
    let daemon =
        Daemon::start_with(Settings::default().set("sandbox.queue", "20").set("sandbox.max_executions", "4")).await;
    let client = daemon.client();
    let id = client.environment("bun", "export const handler = (e) => e.data").await;
    let calls = (0..200).map(|n| client.execute(&id, json!({ "data": n, "limits": { "timeoutMs": 30000 } })));
    let answers = futures_util::future::join_all(calls).await;
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    assert!(served >= 20, "only {served} of 200 were served");
    for answer in answers {
        match answer.status {
            200 => drop(answer.expect("ok")),
            429 => {
                let seconds: u64 = answer.headers["retry-after"].parse().unwrap();
                assert!(seconds >= 1);
                answer.expect_error(429, "too_many_requests");
            }
            other => panic!("{other}: {}", answer.text),
        }
    }
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn e3_hang_ups_deletes_and_double_deletes_leave_no_orphan() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let id = client.environment("deno", "export const handler = () => new Promise((d) => setTimeout(d, 50000))").await;
    let body = json!({ "limits": { "timeoutMs": 60000 } });
    let hanging = tokio::spawn({
        let (client, id, body) = (client.clone(), id.clone(), body.clone());
        async move { client.execute(&id, body).await }
    });
    let running = async |wanted: u64| {
        eventually("a running call", Duration::from_secs(20), async || {
            let (_, picture) = daemon.health("/healthz").await?;
            let seen = picture["pool"]["running"].as_u64();
            if seen == Some(wanted) { Ok(()) } else { Err(picture.to_string()) }
        })
        .await;
    };
    running(1).await;
    hanging.abort();
    daemon.assert_nothing_left().await;
    running(0).await;

    let deleted = tokio::spawn({
        let (client, id, body) = (client.clone(), id.clone(), body.clone());
        async move { client.execute(&id, body).await }
    });
    running(1).await;
    let (first, second) = tokio::join!(client.delete(&id), client.delete(&id));
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert!(statuses == [204, 204] || statuses == [204, 404], "{statuses:?}");
    deleted.await.unwrap().expect("cancelled");
    daemon.assert_nothing_left().await;
    assert_eq!(std::fs::read_dir(daemon.home.state().join("volumes")).unwrap().count(), 0);
}

#[tokio::test]
async fn the_health_socket_tells_life_readiness_and_everything() {
    let daemon = Daemon::start().await;
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(daemon.health(path).await.unwrap().0, 200, "{path}");
    }
    let (_, whole) = daemon.health("/healthz").await.unwrap();
    let names: Vec<&str> =
        whole["parts"].as_array().unwrap().iter().map(|part| part["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"sandbox_pool") && names.contains(&"reaper"), "{whole}");
}
