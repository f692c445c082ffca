//! `POST /environments/{id}/execute` with `Accept: text/event-stream`.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::Method;
use actix_web::test::{TestRequest, init_service, try_call_service};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::harness::{BEARER, FakeStore, House, NOW, Plan, Scripts, Told, any_environment, execute_path};
use crate::api::server;
use crate::domain::environment::{
    Dependencies, Environment, EnvironmentStatus, Isolation, Permissions, Runtime, SetUpRequest,
};
use crate::domain::execution::{LogEntry, Said};
use crate::domain::pool::Refusal;
use crate::domain::tenant::TenantName;
use crate::messages::sandbox_pool::ExecuteError;

const EVENTS: (&str, &str) = ("Accept", "text/event-stream");

fn environment() -> Environment {
    let request = SetUpRequest {
        main_module: "main.js".into(),
        modules: [("main.js".to_owned(), String::new())].into(),
        runtime: Runtime::Deno,
        dependencies: Dependencies::default(),
        permissions: Permissions::default(),
        secrets: Vec::new(),
        ttl_seconds: 0,
        limits: Default::default(),
        isolation: Isolation::default(),
    };
    Environment {
        status: EnvironmentStatus::Ready,
        ..request.environment(any_environment(), TenantName::operator(), NOW)
    }
}

fn house(scripts: Scripts) -> House {
    let store = FakeStore { environments: vec![environment()], ..FakeStore::default() };
    House::build(Plan { scripts, store, ..Plan::default() })
}

#[actix_web::test]
async fn a_followed_call_tells_what_it_says_and_ends_with_the_plain_answer() {
    let says = vec![
        Said::Log(LogEntry { level: "warn".into(), message: "a\nb".into(), timestamp: 1_700_000_000_000.0 }),
        Said::Stdout("out é\n".into()),
        Said::Stderr("err".into()),
    ];
    let house = house(Scripts { says, ..Scripts::default() });
    let answer = house.ask_with(Method::POST, &execute_path(), b"{}".to_vec(), &[BEARER, EVENTS]).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!((answer.header("x-accel-buffering"), answer.header("cache-control")), (Some("no"), Some("no-store")));
    let (said, result) = answer.text.split_once("id: 4\nevent: result\ndata: ").unwrap();
    insta::assert_snapshot!(said, @r#"
    id: 1
    event: log
    data: {"level":"warn","message":"a\nb","timestamp":"2023-11-14T22:13:20.000Z"}

    id: 2
    event: stdout
    data: {"text":"out é\n"}

    id: 3
    event: stderr
    data: {"text":"err"}
    "#);
    let plain = house.ask(Method::POST, &execute_path(), "{}").await.json();
    let mut result: serde_json::Value = serde_json::from_str(result).unwrap();
    result["id"] = plain["id"].clone();
    assert_eq!(result, plain);
}

#[actix_web::test]
async fn a_followed_call_that_is_refused_says_so_by_status_or_as_its_last_event() {
    let absent = House::plain().ask_with(Method::POST, &execute_path(), b"{}".to_vec(), &[BEARER, EVENTS]).await;
    assert_eq!(absent.status.as_u16(), 404);
    let full = |_| Err(ExecuteError::Refused(Refusal::QueueFull { retry_after: Duration::from_secs(3) }));
    let house = house(Scripts { execute: Some(Box::new(full)), ..Scripts::default() });
    let answer = house.ask_with(Method::POST, &execute_path(), b"{}".to_vec(), &[BEARER, EVENTS]).await;
    let said = r#"data: {"error":"the queue is full; try again in 3 s","code":"too_many_requests"}"#;
    assert_eq!(answer.text, format!("id: 1\nevent: error\n{said}\n\n"));
}

#[actix_web::test]
async fn a_follower_who_is_gone_cancels_the_call() {
    let mut house = house(Scripts { hold: Some(Arc::new(Notify::new())), ..Scripts::default() });
    let app = init_service(server::app(Arc::clone(&house.doors))).await;
    let request = TestRequest::post().uri(&execute_path()).insert_header(BEARER).insert_header(EVENTS);
    let response = try_call_service(&app, request.set_payload("{}").to_request()).await.unwrap();
    let told = timeout(Duration::from_secs(5), house.told.recv()).await.unwrap();
    let Some(Told::Execute(call)) = told else { panic!("a call is told first") };
    drop(response);
    let told = timeout(Duration::from_secs(5), house.told.recv()).await.unwrap();
    assert!(matches!(told, Some(Told::Cancel(id)) if id == call.execution));
}
