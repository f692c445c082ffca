//! `POST /environments/setup`.

use std::time::Duration;

use actix_web::http::Method;

use super::harness::{BEARER, House, Plan, Scripts, Told};
use crate::domain::environment::{Grant, Runtime, SourceFault};
use crate::domain::failure::FailureKind;
use crate::domain::pool::Refusal;
use crate::messages::sandbox_pool::SetUpError;

const PATH: &str = "/environments/setup";
const PLAIN: &str = r#"{"mainModule":"main.ts","modules":{"main.ts":"export const handler = () => 1"}}"#;

async fn refusal(body: &str) -> String {
    House::plain().ask(Method::POST, PATH, body).await.refusal()
}

async fn refusal_by(error: SetUpError) -> (String, Option<String>) {
    let house = House::with(Scripts { set_up: Some(Box::new(move |_| Err(error.clone()))), ..Scripts::default() });
    let answer = house.ask(Method::POST, PATH, PLAIN).await;
    (answer.refusal(), answer.header("retry-after").map(str::to_owned))
}

#[actix_web::test]
async fn an_environment_is_answered_with_the_first_systems_fields() {
    let answer = House::plain().ask(Method::POST, PATH, PLAIN).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, Some("application/json")));
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(id.as_bytes()[14], b'4', "a random id: {id}");
    insta::assert_snapshot!(answer.text.replace(&id, "<id>"), @r#"{"id":"<id>","volumeName":"tee-env-<id>","mainModule":"main.ts","runtime":"deno","createdAt":"2023-11-14T22:13:20.123Z","executionCount":0,"status":"ready","metadata":{"permissions":{},"moduleCount":1,"dependencyCount":0,"hasDependencies":false,"runtime":"deno"},"ttlSeconds":3600,"revision":1}"#);
}

#[actix_web::test]
async fn every_field_reaches_the_pool() {
    let mut house = House::plain();
    let body = r#"{"mainModule":"a.js","modules":{"a.js":"1","lib/b.js":"2"},"runtime":"bun","ttlSeconds":60,
        "permissions":{"allowNet":["example.org:443"],"allowEnv":true,"allowRead":[],"allowRun":false,"allowHrtime":true},
        "dependencies":{"npm":[],"deno":[]},"someNewField":{"of":"a later client"}}"#;
    assert_eq!(house.ask(Method::POST, PATH, body).await.status.as_u16(), 200);
    let heard = house.heard();
    let [Told::SetUp(request)] = heard.as_slice() else { panic!("one set-up is told") };
    assert_eq!((request.main_module.as_str(), request.modules.len(), request.runtime), ("a.js", 2, Runtime::Bun));
    assert_eq!(request.ttl_seconds, 60);
    assert_eq!(request.permissions.allow_net, Some(Grant::Only(vec!["example.org:443".into()])));
    assert_eq!(request.permissions.allow_env, Some(Grant::Switch(true)));
    assert_eq!(request.permissions.allow_hrtime, Some(true));
}

#[actix_web::test]
async fn what_the_first_system_took_for_absent_is_absent() {
    let mut house = House::plain();
    let body = r#"{"mainModule":"a.js","modules":{"a.js":"1"},"runtime":"","ttlSeconds":null,"permissions":null,
        "dependencies":null}"#;
    assert_eq!(house.ask(Method::POST, PATH, body).await.status.as_u16(), 200);
    let heard = house.heard();
    let [Told::SetUp(request)] = heard.as_slice() else { panic!("one set-up is told") };
    assert_eq!((request.runtime, request.ttl_seconds), (Runtime::Deno, 0));
}

#[actix_web::test]
async fn the_first_systems_validation_texts_are_kept() {
    assert_eq!(refusal("{}").await, "400 validation_error: mainModule is required");
    assert_eq!(refusal(r#"{"mainModule":"a"}"#).await, "400 validation_error: modules cannot be empty");
    assert_eq!(
        refusal(r#"{"mainModule":"a","modules":{"b":""}}"#).await,
        "400 validation_error: mainModule must exist in modules map"
    );
}

#[actix_web::test]
async fn what_is_no_request_is_an_invalid_request() {
    let cases = [
        ("", "the body is not valid JSON (line 1, column 0)"),
        ("{", "the body is not valid JSON (line 1, column 1)"),
        ("{} {}", "the body is not valid JSON (line 1, column 4)"),
        ("[]", "the body must be an object"),
        (r#"{"mainModule":1}"#, "mainModule must be a string"),
        (r#"{"modules":[]}"#, "modules must be an object of source texts by module name"),
        (r#"{"modules":{"a":1}}"#, "modules must be an object of source texts by module name"),
        (r#"{"ttlSeconds":"60"}"#, "ttlSeconds must be a whole number of seconds, 0 or more"),
        (r#"{"ttlSeconds":-1}"#, "ttlSeconds must be a whole number of seconds, 0 or more"),
        (r#"{"ttlSeconds":1.5}"#, "ttlSeconds must be a whole number of seconds, 0 or more"),
        (r#"{"dependencies":{"pip":[]}}"#, "dependencies must be an object of npm and deno, each a list of strings"),
        (r#"{"mainModule":"a","mainModule":"b"}"#, r#"the body has the key "mainModule" twice"#),
        (r#"{"later":1,"later":2}"#, r#"the body has the key "later" twice"#),
        (r#"{"modules":{"a":"1","a":"2"}}"#, r#"modules has the key "a" twice"#),
        (r#"{"modules":{"a":"1","\u0061":"2"}}"#, r#"modules has the key "a" twice"#),
        (r#"{"permissions":{"allowNet":[],"allowNet":true}}"#, r#"permissions has the key "allowNet" twice"#),
        (r#"{"dependencies":{"npm":[],"npm":["x"]}}"#, r#"dependencies has the key "npm" twice"#),
    ];
    for (body, said) in cases {
        assert_eq!(refusal(body).await, format!("400 invalid_request: {said}"), "{body}");
    }
    for permissions in [r#"{"allowNet":"all"}"#, r#"{"allowHrtime":[]}"#, r#"{"allowAll":true}"#, "[]"] {
        let body = format!(r#"{{"permissions":{permissions}}}"#);
        let said = refusal(&body).await;
        assert!(said.starts_with("400 invalid_request: permissions must be an object"), "{permissions}: {said}");
    }
    let bytes = House::plain().ask_with(Method::POST, PATH, b"{\"mainModule\":\"\xff\"}".to_vec(), &[BEARER]).await;
    assert_eq!(bytes.refusal(), "400 invalid_request: the body is not UTF-8");
}

#[actix_web::test]
async fn an_unknown_runtime_is_named_but_not_at_any_length() {
    let body = format!(r#"{{"runtime":"{}"}}"#, "x".repeat(5000));
    let said = refusal(&body).await;
    assert!(said.starts_with("400 validation_error: runtime \"xxx") && said.len() < 140, "{said}");
}

#[actix_web::test]
async fn places_in_a_source_are_told_as_details() {
    let fault = SourceFault { module: "main.ts".into(), message: "';' expected".into(), line: Some(3), column: None };
    let error = SetUpError::Source(vec![fault]);
    let house = House::with(Scripts { set_up: Some(Box::new(move |_| Err(error.clone()))), ..Scripts::default() });
    let answer = house.ask(Method::POST, PATH, PLAIN).await;
    assert_eq!(answer.status.as_u16(), 400);
    insta::assert_snapshot!(answer.text, @r#"{"error":"main.ts could not be read as TypeScript","code":"validation_error","details":[{"line":3,"message":"';' expected","module":"main.ts"}]}"#);
}

#[actix_web::test]
async fn refusals_and_failures_of_the_pool_have_their_codes() {
    let full = Refusal::QueueFull { retry_after: Duration::from_millis(1500) };
    let waited = Refusal::WaitedTooLong { retry_after: Duration::ZERO };
    let host = |kind| SetUpError::Host { doing: "writing the volume", cause: "no space left".into(), kind };
    let cases = [
        (SetUpError::Refused(full), "429 too_many_requests: the queue is full; try again in 1 s", Some("2")),
        (
            SetUpError::Refused(waited),
            "429 too_many_requests: no sandbox came free in time; try again in 1 s",
            Some("1"),
        ),
        (SetUpError::Refused(Refusal::Draining), "503 shutting_down: the daemon is shutting down", Some("1")),
        (host(FailureKind::Permanent), "500 setup_failed: writing the volume failed: no space left", None),
        (host(FailureKind::Retryable), "500 setup_failed: writing the volume failed: no space left", Some("1")),
    ];
    for (error, said, wait) in cases {
        assert_eq!(refusal_by(error).await, (said.to_owned(), wait.map(str::to_owned)));
    }
}

#[actix_web::test]
async fn an_absent_pool_is_unavailable() {
    let house = House::build(Plan { nobody: true, ..Plan::default() });
    let answer = house.ask(Method::POST, PATH, PLAIN).await;
    assert_eq!(answer.refusal(), "503 unavailable: the actor is not running at the moment");
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[actix_web::test]
async fn what_a_client_of_ours_writes_is_what_the_door_reads() {
    use crate::api::dto::SetUpBody;
    use crate::domain::environment::{Dependencies, Permissions};
    let mut house = House::plain();
    let body = SetUpBody {
        main_module: "main.ts".into(),
        modules: [("main.ts".to_owned(), "1".to_owned())].into(),
        runtime: Runtime::Bun,
        dependencies: Some(Dependencies::default()),
        secrets: vec!["A_KEY".to_owned()],
        permissions: Some(Permissions { allow_read: Some(Grant::Switch(true)), ..Permissions::default() }),
        ttl_seconds: Some(5),
        limits: serde_json::from_str(r#"{"concurrency":2,"rate":{"perSecond":0.5}}"#).unwrap(),
        isolation: None,
    };
    let text = serde_json::to_string(&body).unwrap();
    assert_eq!(house.ask(Method::POST, PATH, &text).await.status.as_u16(), 200);
    let heard = house.heard();
    let [Told::SetUp(request)] = heard.as_slice() else { panic!("one set-up is told") };
    assert_eq!((request.runtime, request.ttl_seconds), (Runtime::Bun, 5));
    assert_eq!(request.permissions.allow_read, Some(Grant::Switch(true)));
    assert_eq!(request.limits, body.limits.unwrap());
}
