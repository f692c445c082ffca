//! Each call as the platform sees it.

use super::*;
use crate::adapters::doubles::{Server, json};
use crate::domain::job::{Answer, JobId};
use crate::domain::secret::Secret;
use crate::ports::job_source::{JobSource, Update};

fn id(text: &str) -> JobId {
    text.parse().expect("an id")
}

#[tokio::test]
async fn a_large_answer_arrives_whole_with_its_length_told() {
    let mut server = Server::start(|_, wire| json(wire, 200, "{}"));
    let source = source(&server);
    let output = format!("{{\"data\":\"{}\"}}", "x".repeat(12 << 20));
    let answer = Answer { output: Some(Secret::from(output.clone())), error: Some("half of it".into()) };
    source.settle(&id("a-u1"), &answer, true).await.expect("settled");
    let seen = server.next().await;
    let body = format!("{{\"output\":{output},\"error\":\"half of it\",\"stopPod\":true}}");
    assert!(seen.body == body.as_bytes(), "the body differs");
    assert_eq!(seen.header("content-length"), Some(body.len().to_string().as_str()));
    assert_eq!(seen.header("transfer-encoding"), None);
    assert_eq!(seen.header("x-request-id"), Some("a-u1"));
    assert_eq!(seen.target, "/v2/ep/job-done/pod0/a-u1?gpu=A+B&isStream=false");
}

#[tokio::test]
async fn calls_share_a_connection() {
    let connections = std::sync::Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
    let ports = std::sync::Arc::clone(&connections);
    let server = Server::start(move |_, wire| {
        ports.lock().expect("no panic").insert(wire.peer_addr().expect("a peer").port());
        json(wire, 200, "{\"ignored\":[1,2,3]}");
    });
    let source = source(&server);
    for _ in 0..3 {
        source.heartbeat(&[id("a")]).await.expect("told");
        source.update(&id("a"), &Update { output: Secret::from("1".to_owned()) }).await.expect("updated");
        source.settle(&id("a"), &Answer::failed("x"), false).await.expect("settled");
    }
    assert_eq!(connections.lock().expect("no panic").len(), 1);
}

#[tokio::test]
async fn without_a_key_a_name_or_an_address_there_are_no_heartbeats() {
    let mut server = Server::start(|_, wire| json(wire, 200, "{}"));
    let mut without = [settings(server.address), settings(server.address), settings(server.address)];
    without[0].api_key = None;
    without[1].pod_id = None;
    without[2].templates.ping = None;
    for settings in without {
        let source = source_with(settings);
        assert_eq!(source.heartbeat_every(), None);
        source.heartbeat(&[id("a")]).await.expect("nothing to do");
        source.report_unhealthy("comfy", "it does not start").await;
    }
    let source = source(&server);
    assert_eq!(source.heartbeat_every(), Some(Duration::from_secs(2)));
    source.heartbeat(&[]).await.expect("told");
    assert_eq!(server.next().await.target, "/v2/ep/ping/pod0?gpu=A+B&runpod_version=1.12.0");
}

#[tokio::test]
async fn a_platform_that_does_not_hold_the_poll_for_stops_is_not_asked_without_pause() {
    let mut server = Server::start(|_, wire| json(wire, 204, ""));
    let source = source(&server);
    let asked = async {
        for _ in 0..2 {
            server.next().await;
        }
    };
    let early = tokio::time::timeout(Duration::from_millis(900), async {
        tokio::select! { _ = source.stops() => panic!("nothing is to be stopped"), () = asked => () }
    });
    assert!(early.await.is_err(), "asked again within a second");
}

#[tokio::test]
async fn a_source_without_a_route_for_stops_waits_for_ever() {
    let mut given = settings("127.0.0.1:9".parse().expect("an address"));
    given.templates.take = "http://127.0.0.1:9/take/$ID?x=1".into();
    let source = source_with(given);
    assert!(tokio::time::timeout(Duration::from_millis(20), source.stops()).await.is_err());
}

#[tokio::test]
async fn the_limits_of_answers_go_by_the_kind_of_id() {
    let source = source_with(settings("127.0.0.1:9".parse().expect("an address")));
    assert_eq!(source.answer_limit(&id("a-u1")), 10_000_000);
    assert_eq!(source.answer_limit(&id("sync-a-u1")), 20_000_000);
}
