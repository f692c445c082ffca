//! The other routes, and what every answer has in common.

use actix_web::http::Method;

use super::harness::{BEARER, FakeStore, House, NOW, Plan, Scripts, Told, any_environment};
use crate::domain::environment::{Environment, EnvironmentStatus, Isolation, SetUpRequest};
use crate::domain::failure::FailureKind;
use crate::domain::id::EnvironmentId;
use crate::domain::tenant::TenantName;
use crate::domain::time::WallTime;
use crate::messages::sandbox_pool::DeleteError;

fn environment(number: u128, status: EnvironmentStatus) -> Environment {
    let request = SetUpRequest {
        main_module: "main.ts".into(),
        modules: [("main.ts".to_owned(), String::new())].into(),
        runtime: Default::default(),
        dependencies: Default::default(),
        permissions: Default::default(),
        secrets: Vec::new(),
        ttl_seconds: 60,
        limits: Default::default(),
        isolation: Isolation::default(),
    };
    let id = EnvironmentId(uuid::Uuid::from_u128(number));
    Environment { status, execution_count: 2, ..request.environment(id, TenantName::operator(), NOW) }
}

fn house_with(environments: Vec<Environment>) -> House {
    House::build(Plan { store: FakeStore { environments, ..FakeStore::default() }, ..Plan::default() })
}

fn broken_house() -> House {
    House::build(Plan { store: FakeStore { broken: true, ..FakeStore::default() }, ..Plan::default() })
}

#[actix_web::test]
async fn the_list_shows_what_can_be_executed_in_the_stores_order() {
    use EnvironmentStatus::{Deleting, Ready, SettingUp};
    let house = house_with(vec![
        environment(4, SettingUp),
        environment(3, Ready),
        environment(2, Deleting),
        environment(1, Ready),
    ]);
    let answer = house.ask(Method::GET, "/environments", "").await;
    let ids: Vec<u64> = answer.json().as_array().unwrap().iter().map(last_digit).collect();
    assert_eq!((answer.status.as_u16(), ids), (200, vec![3, 1]));
    assert_eq!(house_with(Vec::new()).ask(Method::GET, "/environments", "").await.text, "[]");
}

fn last_digit(environment: &serde_json::Value) -> u64 {
    environment["id"].as_str().unwrap().rsplit('0').next().unwrap().parse().unwrap()
}

#[actix_web::test]
async fn one_environment_is_shown_with_its_last_call() {
    let mut known = environment(7, EnvironmentStatus::Ready);
    known.last_executed_at = Some(WallTime(NOW.0 + 1000));
    let house = house_with(vec![known]);
    let path = format!("/environments/{}", any_environment());
    let answer = house.ask(Method::GET, &path, "").await;
    insta::assert_snapshot!(answer.text, @r#"{"id":"00000000-0000-0000-0000-000000000007","volumeName":"tee-env-00000000-0000-0000-0000-000000000007","mainModule":"main.ts","runtime":"deno","createdAt":"2023-11-14T22:13:20.123Z","lastExecutedAt":"2023-11-14T22:13:21.123Z","executionCount":2,"status":"ready","metadata":{"permissions":{},"moduleCount":1,"dependencyCount":0,"hasDependencies":false,"runtime":"deno"},"ttlSeconds":60,"revision":1}"#);
    let absent = house_with(Vec::new()).ask(Method::GET, &path, "").await;
    assert_eq!(absent.refusal(), format!("404 not_found: environment {} does not exist", any_environment()));
}

#[actix_web::test]
async fn a_store_that_fails_is_a_failed_query_whose_cause_is_logged_only() {
    let house = broken_house();
    for (path, said) in [
        ("/environments".to_owned(), "500 query_failed: the store cannot list the environments"),
        (format!("/environments/{}", any_environment()), "500 query_failed: the store cannot read the environment"),
    ] {
        assert_eq!(house.ask(Method::GET, &path, "").await.refusal(), said);
    }
    assert!(house.log.text().contains("the store cannot list the environments: disk I/O error"));
}

#[actix_web::test]
async fn a_deletion_is_told_and_answered_with_nothing() {
    let mut house = House::plain();
    let answer = house.ask(Method::DELETE, &format!("/environments/{}", any_environment()), "").await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
    assert!(matches!(house.heard().as_slice(), [Told::Delete(id)] if *id == any_environment()));
}

#[actix_web::test]
async fn a_deletion_that_fails_says_how() {
    let host = DeleteError::Host { doing: "removing the volume", cause: "busy".into(), kind: FailureKind::Permanent };
    for (error, status, code) in
        [(DeleteError::Absent(any_environment()), 404, "not_found"), (host, 500, "delete_failed")]
    {
        let house = House::with(Scripts { delete: Some(Box::new(move |_| Err(error.clone()))), ..Scripts::default() });
        let answer = house.ask(Method::DELETE, &format!("/environments/{}", any_environment()), "").await;
        assert_eq!((answer.status.as_u16(), answer.json()["code"].as_str()), (status, Some(code)));
    }
}

#[actix_web::test]
async fn ids_that_are_no_uuids_are_told() {
    let house = House::plain();
    for path in ["/environments/x", "/environments/..%2f..%2fetc", "/environments/%00"] {
        for method in [Method::GET, Method::DELETE] {
            assert_eq!(house.ask(method, path, "").await.json()["code"], "invalid_id", "{path}");
        }
    }
}

#[actix_web::test]
async fn unknown_routes_and_methods_are_told_in_json() {
    let house = House::plain();
    for path in ["/", "/nothing", "/environments/", "/environments/a/b/c", "/livez"] {
        assert_eq!(house.ask(Method::GET, path, "").await.refusal(), "404 not_found: there is no such route", "{path}");
    }
    for (method, path, allowed) in [
        (Method::PUT, "/environments", "GET"),
        (Method::GET, "/environments/setup", "POST"),
        (Method::PUT, "/environments/x", "GET, DELETE, PATCH"),
        (Method::POST, "/environments/x/modules", "PUT"),
        (Method::GET, "/environments/x/clone", "POST"),
        (Method::GET, "/environments/x/execute", "POST"),
        (Method::POST, "/health", "GET, HEAD"),
    ] {
        let answer = house.ask(method, path, "").await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, Some(allowed)));
        assert_eq!(answer.json()["code"], "method_not_allowed");
    }
}

#[actix_web::test]
async fn health_needs_no_token_and_all_else_does() {
    let house = House::plain();
    let health = house.ask_with(Method::GET, "/health", Vec::new(), &[]).await;
    assert_eq!((health.status.as_u16(), health.text.as_str()), (200, "OK"));
    assert_eq!(health.header("content-type"), Some("text/plain; charset=utf-8"));
    for path in ["/environments", "/nothing", "/health/", "/Health", "/environments/setup"] {
        for headers in [&[][..], &[("Authorization", "Bearer wrong")], &[("Authorization", "Basic Y29ycmVjdA==")]] {
            let answer = house.ask_with(Method::GET, path, Vec::new(), headers).await;
            assert_eq!((answer.status.as_u16(), answer.text.as_str()), (401, "Unauthorized"), "{path}");
            assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
    }
    let open = House::build(Plan { open: true, ..Plan::default() });
    assert_eq!(open.ask_with(Method::GET, "/environments", Vec::new(), &[]).await.status.as_u16(), 200);
}

#[actix_web::test]
async fn every_answer_carries_its_request_id_and_is_neither_guessed_nor_kept() {
    let house = broken_house();
    let large = [BEARER, ("X-Request-ID", "mine"), ("Content-Length", "99999999")];
    let cases = [
        (Method::GET, "/health", &[("X-Request-ID", "mine")][..], 200),
        (Method::GET, "/environments", &[("X-Request-ID", "mine")], 401),
        (Method::GET, "/nothing", &[BEARER, ("X-Request-ID", "mine")], 404),
        (Method::PUT, "/health", &[BEARER, ("X-Request-ID", "mine")], 405),
        (Method::POST, "/environments/setup", &large, 413),
        (Method::GET, "/environments", &[BEARER, ("X-Request-ID", "mine")], 500),
    ];
    for (method, path, headers, status) in cases {
        let answer = house.ask_with(method, path, Vec::new(), headers).await;
        assert_eq!((answer.status.as_u16(), answer.header("x-request-id")), (status, Some("mine")));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
}

#[actix_web::test]
async fn a_request_without_a_usable_id_gets_one() {
    let house = House::plain();
    for headers in [&[][..], &[("X-Request-ID", "two words")], &[("X-Request-ID", "")]] {
        let answer = house.ask_with(Method::GET, "/health", Vec::new(), headers).await;
        let id: uuid::Uuid = answer.header("x-request-id").unwrap().parse().unwrap();
        assert_eq!(id.get_version_num(), 7);
    }
}

#[actix_web::test]
async fn the_access_log_has_one_line_for_each_request_and_nothing_of_its_content() {
    let house = House::plain();
    let path = format!("/environments/{}/execute?token=canary", any_environment());
    let headers = [BEARER, ("X-Request-ID", "r-1"), ("X-Canary", "canary")];
    let body = br#"{"data":"canary","env":{"A":"canary"}}"#.to_vec();
    house.ask_with(Method::POST, &path, body, &headers).await;
    house.ask_with(Method::GET, "/canary", Vec::new(), &[BEARER, ("X-Request-ID", "r-2")]).await;
    let log = house.log.text();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(!log.contains("canary") && !log.contains(super::harness::TOKEN), "{log}");
    let first = &lines[0];
    assert_eq!((first["msg"].as_str(), first["request_id"].as_str()), (Some("http request"), Some("r-1")));
    assert_eq!(first["route"].as_str(), Some("/environments/{id}/execute"));
    assert_eq!((first["method"].as_str(), first["outcome"].as_str()), (Some("POST"), Some("ok")));
    assert_eq!((first["status"].as_u64(), first["ms"].as_u64()), (Some(200), Some(0)));
    assert!(first["bytes"].as_u64() > Some(100));
    assert_eq!((lines[1]["route"].as_str(), lines[1]["outcome"].as_str()), (Some("(none)"), Some("not_found")));
}

#[actix_web::test]
async fn a_panic_in_a_route_is_a_500_that_says_no_more_than_its_id() {
    let store = FakeStore { panics: true, ..FakeStore::default() };
    let house = House::build(Plan { store, ..Plan::default() });
    let headers = [BEARER, ("X-Request-ID", "r-1")];
    let answer = house.ask_with(Method::GET, "/environments", Vec::new(), &headers).await;
    assert_eq!(
        answer.refusal(),
        "500 internal_error: the request met a defect of the daemon; its log names it under this request id"
    );
    assert_eq!((answer.header("x-request-id"), answer.header("cache-control")), (Some("r-1"), Some("no-store")));
    let log = house.log.text();
    assert!(log.contains("request panicked") && log.contains(r#""status":500"#) && !log.contains("canary"), "{log}");
    assert_eq!(house.ask(Method::GET, "/health", "").await.status.as_u16(), 200);
}
