//! What the platform's statuses and failures become.

use std::net::TcpStream;

use super::*;
use crate::adapters::doubles::{Request, answer, cut, json};
use crate::domain::job::{Answer, JobId};
use crate::ports::job_source::{Empty, JobSource, SourceError};

const JSON: (&str, &str) = ("Content-Type", "application/json");

async fn taken(
    script: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static,
) -> Result<super::super::Taken, SourceError> {
    let server = Server::start(script);
    source(&server).take(1, false).await
}

async fn settled(script: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> Result<(), SourceError> {
    let server = Server::start(script);
    let job: JobId = "job".parse().expect("an id");
    source(&server).settle(&job, &Answer::failed("x"), false).await
}

fn is_unreachable<T: std::fmt::Debug>(outcome: &Result<T, SourceError>) -> bool {
    matches!(outcome, Err(SourceError::Unreachable(text)) if !text.contains("http://"))
}

#[tokio::test]
async fn an_answer_without_jobs_is_no_error() {
    for (status, kind, body, why) in [
        (204, "application/json", "", Empty::Idle),
        (200, "application/json", "[]", Empty::Idle),
        (200, "application/json; charset=utf-8", "null", Empty::Idle),
        (400, "application/json", "{\"error\":\"no worker\"}", Empty::Parked),
        (200, "text/plain", "{\"id\":\"a\",\"input\":1}", Empty::Unreadable),
        (200, "application/json", "not json", Empty::Unreadable),
        (202, "application/json", "{\"id\":\"a\",\"input\":1}", Empty::Unreadable),
    ] {
        let outcome = taken(move |_, wire| answer(wire, status, &[("Content-Type", kind)], body.as_bytes())).await;
        assert_eq!(outcome.expect("no error").empty, Some(why), "{status} {body}");
    }
}

#[tokio::test]
async fn a_take_tells_what_can_be_waited_for_from_what_cannot() {
    for status in [401, 403, 404, 410] {
        assert_eq!(taken(move |_, wire| json(wire, status, "{}")).await.err(), Some(SourceError::Refused(status)));
    }
    for status in [408, 500, 502, 503] {
        let outcome = taken(move |_, wire| answer(wire, status, &[("Content-Type", "text/html")], b"<html>")).await;
        assert!(is_unreachable(&outcome), "{status}: {outcome:?}");
    }
    for (told, expected) in [("7", Some(7)), ("Fri, 31 Dec 1999 23:59:59 GMT", None), ("99999999999", Some(3600))] {
        let outcome = taken(move |_, wire| answer(wire, 429, &[("Retry-After", told)], b"")).await;
        let retry_after = expected.map(Duration::from_secs);
        assert_eq!(outcome.err(), Some(SourceError::Throttled { retry_after }), "{told}");
    }
}

#[tokio::test]
async fn a_connection_that_fails_is_unreachable() {
    assert!(is_unreachable(&taken(|_, wire| cut(wire)).await));
    let half = b"{\"id\":\"secret-job\"".as_slice();
    let outcome = taken(move |_, wire| {
        answer(wire, 200, &[JSON, ("Content-Length", "4000")], half);
        cut(wire);
    });
    assert!(is_unreachable(&outcome.await));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    assert!(is_unreachable(&source_with(settings(closed)).take(1, false).await));
    let mut nowhere = settings(closed);
    nowhere.templates.take = "http://nowhere.invalid/job-take/$ID?x=1".into();
    assert!(is_unreachable(&source_with(nowhere).take(1, false).await));
}

#[tokio::test]
async fn an_answer_larger_than_any_job_is_not_read() {
    let outcome = taken(|_, wire| answer(wire, 200, &[JSON, ("Content-Length", "33554433")], b"[")).await;
    assert_eq!(outcome.err(), Some(SourceError::Unreachable("its answer has more than 33554432 bytes".into())));
}

#[tokio::test]
async fn a_poll_that_nobody_answers_ends_at_its_limit() {
    let server = Server::start(|_, _| {});
    let mut settings = settings(server.address);
    settings.poll = Duration::from_millis(50);
    assert_eq!(source_with(settings).take(1, false).await.expect("no error").empty, Some(Empty::Idle));
}

#[tokio::test]
async fn a_redirect_is_followed_and_another_host_does_not_get_the_key() {
    let mut other = Server::start(|_, wire| json(wire, 200, "{\"id\":\"far\",\"input\":{}}"));
    let to = format!("http://{}/elsewhere", other.address);
    let mut server = Server::start(move |request, wire| match request.target.as_str() {
        "/v2/ep/second" => answer(wire, 302, &[("Location", &to)], b""),
        _ => answer(wire, 301, &[("Location", "/v2/ep/second")], b""),
    });
    let taken = source(&server).take(1, false).await.expect("a job");
    assert_eq!(taken.jobs[0].id.as_str(), "far");
    for _ in 0..2 {
        assert_eq!(server.next().await.header("authorization"), Some("key-of-the-worker"));
    }
    let far = other.next().await;
    assert_eq!((far.target.as_str(), far.header("authorization")), ("/elsewhere", None));
    let endless = self::taken(|_, wire| answer(wire, 302, &[("Location", "/v2/ep/again")], b"")).await;
    assert!(is_unreachable(&endless), "{endless:?}");
}

#[tokio::test]
async fn a_result_tells_a_refused_body_from_a_platform_that_is_away() {
    for status in [200, 202, 204] {
        assert_eq!(settled(move |_, wire| json(wire, status, "")).await, Ok(()));
    }
    for status in [400, 413] {
        assert_eq!(settled(move |_, wire| json(wire, status, "{}")).await, Err(SourceError::Rejected(status)));
    }
    for status in [401, 404, 301] {
        assert_eq!(settled(move |_, wire| json(wire, status, "{}")).await, Err(SourceError::Refused(status)));
    }
    let throttled = settled(|_, wire| answer(wire, 429, &[("Retry-After", "1")], b"")).await;
    assert_eq!(throttled, Err(SourceError::Throttled { retry_after: Some(Duration::from_secs(1)) }));
    assert!(is_unreachable(&settled(|_, wire| json(wire, 502, "")).await));
    assert!(is_unreachable(&settled(|_, wire| cut(wire)).await));
}

/// A place for the log's lines.
#[derive(Clone, Default)]
struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn nothing_of_an_answer_but_ids_is_logged_or_in_an_error() {
    let lines = Lines::default();
    let drain = std::sync::Mutex::new(slog_json::Json::default(lines.clone()));
    let log = Logger::root(slog::Fuse(drain), o!());
    for body in [
        r#"[{"id":"odd","other":"CANARY"},{"id":"CANARY/","input":1},"CANARY",{"input":"CANARY"}]"#,
        r#"{"id":"odd","input":"CANARY","s3Config":{"accessSecret":"CANARY"}}"#,
        r#"{"id":"CANARY" "input":1}"#,
        r#"{"jobsToStop":["CANARY/",{"CANARY":1}]}"#,
    ] {
        let server = Server::start(move |_, wire| json(wire, 200, body));
        let client = http::builder(&http::Tls::of_this_host().expect("TLS")).build().expect("a client");
        let source = RunPod::new(settings(server.address), client, log.clone()).expect("addresses");
        let taken = source.take(1, false).await;
        assert!(!format!("{taken:?}").contains("CANARY"), "{taken:?}");
        let _none = tokio::time::timeout(Duration::from_millis(100), source.stops()).await;
    }
    let lines = String::from_utf8(lines.0.lock().expect("no panic").clone()).expect("UTF-8");
    assert!(!lines.contains("CANARY"), "{lines}");
    for event in ["job.malformed", "job.bucket_unusable", "job.stop_malformed"] {
        assert!(lines.contains(event), "{event} in {lines}");
    }
}
