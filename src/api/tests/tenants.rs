//! Tenants at the doors: what a token opens, what is somebody else's, and who may make tokens.

use std::sync::Arc;

use actix_web::http::Method;
use actix_web::test::{TestRequest, call_service, init_service};
use actix_web::{App, web};

use super::harness::{Answer, BEARER, FakeStore, House, NOW, Plan, Scripts, Told, any_environment, report};
use crate::adapters::clock::SystemClock;
use crate::adapters::local_queue::{Bounds, LocalQueue};
use crate::adapters::tenants::TenantRegistry;
use crate::adapters::tenants::tests::registry;
use crate::api::desk;
use crate::domain::environment::{Environment, EnvironmentStatus, Isolation, SetUpRequest};
use crate::domain::id::EnvironmentId;
use crate::domain::quota::{Allowance, Exceeded, Quota};
use crate::domain::tenant::{TenantName, TokenOrder};
use crate::messages::sandbox_pool::{ExecuteError, SetUpError};
use crate::ports::tenants::TenantDesk as _;

/// A registry with tokens of two tenants, each with these scopes.
async fn two(scopes: [&str; 2]) -> (Arc<TenantRegistry>, [String; 2]) {
    let registry = registry(Default::default(), Default::default());
    let mut headers = Vec::new();
    for (name, scopes) in ["acme", "umbrella"].into_iter().zip(scopes) {
        let tenant: TenantName = name.parse().unwrap();
        registry.set_tenant(tenant.clone(), Allowance::default(), false).await.unwrap();
        let order = TokenOrder { tenant, scopes: scopes.parse().unwrap(), lives: None };
        headers.push(format!("Bearer {}", registry.make_token(order).await.unwrap().text));
    }
    (Arc::new(registry), headers.try_into().unwrap())
}

fn environment(number: u128, tenant: &str) -> Environment {
    let request = SetUpRequest {
        secrets: Vec::new(),
        main_module: "main.ts".into(),
        modules: [("main.ts".to_owned(), String::new())].into(),
        runtime: Default::default(),
        dependencies: Default::default(),
        permissions: Default::default(),
        ttl_seconds: 60,
        limits: Default::default(),
        isolation: Isolation::default(),
    };
    let made = request.environment(EnvironmentId(uuid::Uuid::from_u128(number)), tenant.parse().unwrap(), NOW);
    Environment { status: EnvironmentStatus::Ready, ..made }
}

fn store() -> FakeStore {
    FakeStore { environments: vec![environment(7, "acme"), environment(8, "umbrella")], ..FakeStore::default() }
}

async fn ask(house: &House, method: Method, path: &str, body: &str, authorization: &str) -> Answer {
    let headers = [("Authorization", authorization), ("X-Request-ID", "same")];
    house.ask_with(method, path, body.as_bytes().to_vec(), &headers).await
}

#[actix_web::test]
async fn a_token_opens_what_its_scopes_name_and_a_missing_one_is_named() {
    let (tenants, [reader, caller]) = two(["environments:read", "execute"]).await;
    let mut house = House::build(Plan { tenants, store: store(), ..Plan::default() });
    let list = ask(&house, Method::GET, "/environments", "", &reader).await;
    assert_eq!((list.status.as_u16(), list.json().as_array().unwrap().len()), (200, 1));
    let execute = format!("/environments/{}/execute", any_environment());
    let refused = ask(&house, Method::POST, &execute, "{}", &reader).await;
    insta::assert_snapshot!(refused.text, @r#"{"error":"the token does not have the scope execute","code":"missing_scope","details":{"scope":"execute"}}"#);
    assert_eq!(refused.status.as_u16(), 403);
    assert!(house.heard().is_empty());
    assert_eq!(ask(&house, Method::POST, &execute, "{}", &caller).await.status.as_u16(), 200);
    let [Told::Execute(_)] = house.heard().as_slice() else { panic!("one call is told") };
    for (method, path, scope) in [
        (Method::GET, "/environments", "environments:read"),
        (Method::POST, "/environments/setup", "environments:write"),
        (Method::DELETE, "/environments/x", "environments:write"),
        (Method::PATCH, "/environments/x", "environments:write"),
        (Method::PUT, "/environments/x/modules", "environments:write"),
        (Method::POST, "/environments/x/clone", "environments:write"),
        (Method::POST, "/v2/any/run", "jobs:submit"),
        (Method::POST, "/v2/any/runsync", "jobs:submit"),
        (Method::POST, "/v2/any/cancel/x", "jobs:submit"),
        (Method::GET, "/v2/any/status/x", "jobs:read"),
        (Method::POST, "/v2/any/status-sync/x", "jobs:read"),
        (Method::GET, "/v2/any/stream/x", "jobs:read"),
        (Method::GET, "/v2/any/health", "jobs:read"),
    ] {
        let refused = ask(&house, method, path, "", &caller).await;
        assert_eq!((refused.status.as_u16(), &refused.json()["details"]["scope"]), (403, &scope.into()), "{path}");
    }
    for (method, path) in
        [(Method::GET, "/executions"), (Method::GET, "/executions/x"), (Method::DELETE, "/executions/x")]
    {
        let refused = ask(&house, method, path, "", &reader).await;
        assert_eq!((refused.status.as_u16(), &refused.json()["details"]["scope"]), (403, &"execute".into()), "{path}");
    }
    assert_eq!(ask(&house, Method::GET, "/no/such/route", "", &caller).await.status.as_u16(), 404);
    assert_eq!(ask(&house, Method::GET, "/health", "", &caller).await.status.as_u16(), 200);
    assert_eq!(ask(&house, Method::GET, "/environments", "", "Bearer clo_000000000000_x").await.status.as_u16(), 401);
    let log = house.log.text();
    assert!(log.contains(r#""msg":"access.forbidden""#) && log.contains(r#""tenant":"umbrella""#), "{log}");
    assert!(!log.contains(reader.trim_start_matches("Bearer ")), "a token is in the log");
}

#[actix_web::test]
async fn the_operators_token_has_every_scope_and_no_tenants_things() {
    let (tenants, _) = two(["all", "all"]).await;
    let house = House::build(Plan { tenants, store: store(), ..Plan::default() });
    assert_eq!(house.ask(Method::GET, "/environments", "").await.text, "[]");
    let theirs = house.ask(Method::GET, &format!("/environments/{}", any_environment()), "").await;
    assert_eq!(theirs.status.as_u16(), 404);
}

#[actix_web::test]
async fn somebody_elses_environment_answers_as_one_that_never_was() {
    let (tenants, [_, stranger]) = two(["all", "all"]).await;
    let house = |environments: Vec<Environment>| {
        House::build(Plan {
            tenants: Arc::clone(&tenants),
            store: FakeStore { environments, ..FakeStore::default() },
            ..Plan::default()
        })
    };
    let (with, without) = (house(vec![environment(7, "acme")]), house(Vec::new()));
    let id = any_environment();
    let paths = ["", "/executions"].map(|path| format!("/environments/{id}{path}"));
    for path in paths.into_iter().chain([format!("/executions?environment={id}")]) {
        let theirs = ask(&with, Method::GET, &path, "", &stranger).await;
        let nobodys = ask(&without, Method::GET, &path, "", &stranger).await;
        assert_eq!(theirs.status.as_u16(), 404);
        assert_eq!((theirs.text, theirs.headers), (nobodys.text, nobodys.headers), "{path}");
    }
    assert_eq!(ask(&with, Method::GET, "/environments", "", &stranger).await.text, "[]");
}

fn queue() -> Arc<LocalQueue> {
    let bounds = Bounds {
        waiting: 9,
        waiting_bytes: 1 << 20,
        keep: std::time::Duration::from_secs(60),
        kept_bytes: 1 << 20,
        answer_bytes: 1 << 20,
    };
    Arc::new(LocalQueue::new(bounds, Arc::new(SystemClock::start())))
}

#[actix_web::test]
async fn somebody_elses_job_is_not_shown_waited_for_streamed_or_cancelled() {
    let (tenants, [owner, stranger]) = two(["all", "all"]).await;
    let house = House::build(Plan { tenants, jobs: Some(queue()), ..Plan::default() });
    let made = ask(&house, Method::POST, "/v2/any/run", r#"{"input":{}}"#, &owner).await;
    let id = made.json()["id"].as_str().unwrap().to_owned();
    for (method, route) in
        [(Method::GET, "status"), (Method::GET, "status-sync"), (Method::GET, "stream"), (Method::POST, "cancel")]
    {
        // To wait for it would take ninety seconds.
        let theirs = ask(&house, method.clone(), &format!("/v2/any/{route}/{id}"), "", &stranger).await;
        let nobodys = ask(&house, method, &format!("/v2/any/{route}/none"), "", &stranger).await;
        assert_eq!(theirs.status.as_u16(), 404, "{route}");
        assert_eq!((theirs.text, theirs.headers), (nobodys.text, nobodys.headers), "{route}");
    }
    let queued = |answer: Answer| answer.json()["jobs"]["inQueue"].as_u64();
    assert_eq!(queued(ask(&house, Method::GET, "/v2/any/health", "", &stranger).await), Some(0));
    assert_eq!(queued(ask(&house, Method::GET, "/v2/any/health", "", &owner).await), Some(1));
    let own = ask(&house, Method::GET, &format!("/v2/any/status/{id}"), "", &owner).await;
    assert_eq!(own.json()["status"], "IN_QUEUE");
}

#[actix_web::test]
async fn a_job_that_calls_a_handler_needs_the_scope_for_that_as_well() {
    let (tenants, [submits, both]) = two(["jobs:submit", "jobs:submit,execute"]).await;
    let house = House::build(Plan { tenants, jobs: Some(queue()), ..Plan::default() });
    let refused = ask(&house, Method::POST, "/v2/any/run", r#"{"input":{}}"#, &submits).await;
    assert_eq!(refused.refusal(), "403 missing_scope: the token does not have the scope execute");
    assert_eq!(ask(&house, Method::POST, "/v2/any/run", r#"{"input":{}}"#, &both).await.status.as_u16(), 200);
}

#[actix_web::test]
async fn a_quota_is_told_with_its_limit_its_use_and_when_to_come_again() {
    let exceeded = |quota, retry_after: Option<u64>| Exceeded {
        quota,
        limit: 2,
        used: 2,
        retry_after: retry_after.map(std::time::Duration::from_millis),
    };
    let house = House::with(Scripts {
        set_up: Some(Box::new(move |_| Err(SetUpError::Exceeded(exceeded(Quota::Environments, None))))),
        execute: Some(Box::new(move |call| match call.data.as_str() {
            "1" => Err(ExecuteError::Exceeded(exceeded(Quota::Cpu, Some(3_600_500)))),
            "2" => Err(ExecuteError::Exceeded(exceeded(Quota::EnvironmentRate, Some(1)))),
            _ => Ok(report(call.execution)),
        })),
        ..Scripts::default()
    });
    let full = house.ask(Method::POST, "/environments/setup", r#"{"mainModule":"a.js","modules":{"a.js":""}}"#).await;
    insta::assert_snapshot!(full.text, @r#"{"error":"the tenant has all environments that it may have, 2 of 2: delete some","code":"quota_exceeded","details":{"limit":2,"quota":"environments","used":2}}"#);
    assert_eq!((full.status.as_u16(), full.header("retry-after")), (403, None));
    let path = super::harness::execute_path();
    let spent = house.ask(Method::POST, &path, r#"{"data":1}"#).await;
    assert_eq!((spent.status.as_u16(), spent.header("retry-after")), (429, Some("3601")));
    let text = "429 quota_exceeded: the tenant's calls have used 2 of 2 s CPU time today (UTC); try again in 3601 s";
    assert_eq!(spent.refusal(), text);
    let often = house.ask(Method::POST, &path, r#"{"data":2}"#).await;
    assert_eq!((often.json()["code"].as_str(), often.header("retry-after")), (Some("rate_limited"), Some("1")));
}

#[actix_web::test]
async fn a_jobs_rate_is_its_tenants() {
    let (tenants, [owner, other]) = two(["all", "all"]).await;
    let given = Allowance { rate: Some(0.001), burst: Some(1), ..Allowance::default() };
    tenants.set_tenant("acme".parse().unwrap(), given, false).await.unwrap();
    let house = House::build(Plan { tenants, jobs: Some(queue()), ..Plan::default() });
    let run = |token: String| {
        let house = &house;
        async move { ask(house, Method::POST, "/v2/any/run", r#"{"input":{}}"#, &token).await }
    };
    assert_eq!(run(owner.clone()).await.status.as_u16(), 200);
    let refused = run(owner).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, Some("1000")));
    assert_eq!(run(other).await.status.as_u16(), 200);
}

#[actix_web::test]
async fn an_environments_limits_are_shown_where_there_are_any_and_checked() {
    let house = House::plain();
    let set_up = |limits: &str| format!(r#"{{"mainModule":"a.js","modules":{{"a.js":""}},"limits":{limits}}}"#);
    let path = "/environments/setup";
    let made = house.ask(Method::POST, path, &set_up(r#"{"concurrency":2,"rate":{"perSecond":5}}"#)).await;
    assert_eq!(made.json()["limits"].to_string(), r#"{"concurrency":2,"rate":{"burst":5,"perSecond":5.0}}"#);
    assert_eq!(house.ask(Method::POST, path, &set_up("{}")).await.json().get("limits"), None);
    for wrong in [r#"{"concurrency":0}"#, r#"{"rate":{"perSecond":0}}"#, r#"{"concurency":1}"#, "3", r#"{"rate":5}"#] {
        assert_eq!(house.ask(Method::POST, path, &set_up(wrong)).await.status.as_u16(), 400, "{wrong}");
    }
}

#[actix_web::test]
async fn without_the_kernels_word_for_who_asks_there_is_no_desk() {
    let house = House::plain();
    let app = App::new().app_data(web::Data::from(Arc::clone(&house.doors))).app_data(desk::Owner(0));
    let app = init_service(app.configure(desk::routes)).await;
    for (method, path) in [
        (Method::GET, "/tenants"),
        (Method::PUT, "/tenants/a"),
        (Method::PATCH, "/tenants/a"),
        (Method::GET, "/tokens"),
        (Method::POST, "/tokens"),
        (Method::DELETE, "/tokens/0123456789ab"),
    ] {
        let request = TestRequest::default().method(method).uri(path).insert_header(BEARER).to_request();
        assert_eq!(call_service(&app, request).await.status().as_u16(), 403, "{path}");
    }
}
