//! `POST /environments/{id}/execute`.

use std::time::Duration;

use actix_web::http::Method;

use super::harness::{BEARER, House, Scripts, Told, any_environment, execute_path, thrown};
use crate::domain::execution::{Captured, Outcome, Phase};
use crate::domain::failure::FailureKind;
use crate::domain::pool::Refusal;
use crate::messages::sandbox_pool::ExecuteError;

async fn refusal(body: &str) -> String {
    House::plain().ask(Method::POST, &execute_path(), body).await.refusal()
}

#[actix_web::test]
async fn a_call_is_answered_with_the_first_systems_five_fields_and_ours() {
    let answer = House::plain().ask(Method::POST, &execute_path(), r#"{"data":{"a":1}}"#).await;
    assert_eq!(answer.status.as_u16(), 200);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(id.as_bytes()[14], b'7', "an id in order of time: {id}");
    insta::assert_snapshot!(answer.text.replace(&id, "<id>"), @r#"{"id":"<id>","exitCode":0,"stdout":"{\"sum\":3}","stderr":"","durationMs":214,"outcome":"ok","result":{"sum":3},"logs":[{"level":"log","message":"hello","timestamp":"2023-11-14T22:13:20.000Z"}],"timings":{"queueMs":0.5,"claimMs":210.25,"handlerMs":3.125,"totalMs":213.875},"peakMemoryMb":12.0,"cpuMs":4.2,"start":"cold","limits":{"timeoutMs":5000,"memoryMb":128}}"#);
}

#[actix_web::test]
async fn a_failed_call_is_a_200_with_its_outcome() {
    let execute = |call: crate::domain::execution::Call| {
        let stderr = Captured { text: "warming up".into(), dropped_bytes: 7 };
        let stdout = Captured { text: "half".into(), dropped_bytes: 0 };
        Ok(crate::domain::execution::ExecutionReport {
            outcome: Outcome::Timeout,
            phase: Some(Phase::Import),
            stderr,
            stdout,
            logs: Vec::new(),
            isolated: false,
            ..thrown(call.execution)
        })
    };
    let house = House::with(Scripts { execute: Some(Box::new(execute)), ..Scripts::default() });
    let answer = house.ask(Method::POST, &execute_path(), "{}").await;
    assert_eq!(answer.status.as_u16(), 200);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    insta::assert_snapshot!(answer.text.replace(&id, "<id>"), @r#"{"id":"<id>","exitCode":124,"stdout":"half","stderr":"warming up\n[truncated: 7 bytes dropped]\nTypeError: x is not a function","durationMs":214,"outcome":"timeout","phase":"import","error":{"name":"TypeError","message":"x is not a function","stack":""},"logs":[],"timings":{"queueMs":0.5,"claimMs":210.25,"handlerMs":3.125,"totalMs":213.875},"peakMemoryMb":12.0,"cpuMs":4.2,"start":"cold","limits":{"timeoutMs":5000,"memoryMb":128},"isolated":false,"warning":"this call ran without gVisor (DISABLE_GVISOR): for development only"}"#);
    assert!(house.log.text().contains(r#""outcome":"timeout""#), "{}", house.log.text());
}

#[actix_web::test]
async fn data_is_passed_on_as_it_was_written() {
    let mut house = House::plain();
    let written = r#"{ "b":1, "a" : [1e400, "\ud800"], "a":0.10 }"#;
    let body = format!(
        r#"{{"data":{written},"env":{{"API_KEY":"k"}},"limits":{{"timeoutMs":900000,"memoryMb":256,"later":1}}}}"#
    );
    let headers = [BEARER, ("X-Request-ID", "abc-123"), ("Content-Type", "application/json")];
    let answer = house.ask_with(Method::POST, &execute_path(), body.into_bytes(), &headers).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-request-id")), (200, Some("abc-123")));
    let heard = house.heard();
    let [Told::Execute(call)] = heard.as_slice() else { panic!("one call is told") };
    assert_eq!((call.data.as_str(), call.request.as_str()), (written, "abc-123"));
    assert_eq!((call.environment, call.env["API_KEY"].as_str()), (any_environment(), "k"));
    assert_eq!((call.limits.timeout, call.limits.memory_mb), (Duration::from_secs(60), 256), "held to the caps");
}

#[actix_web::test]
async fn no_data_is_null() {
    for body in ["{}", r#"{"data":null,"env":null,"limits":null}"#] {
        let mut house = House::plain();
        house.ask(Method::POST, &execute_path(), body).await;
        assert!(matches!(house.heard().as_slice(), [Told::Execute(call)] if call.data == "null"));
    }
}

#[actix_web::test]
async fn what_is_no_call_is_an_invalid_request() {
    let cases = [
        ("", "the body is not valid JSON (line 1, column 0)"),
        ("null", "the body must be an object"),
        (r#"{"data":{"a":}}"#, "the body is not valid JSON (line 1, column 14)"),
        (r#"{"env":{"A":1}}"#, "env must be an object of strings by name"),
        (r#"{"env":{"A":"1","A":"2"}}"#, r#"env has the key "A" twice"#),
        (r#"{"data":1,"data":2}"#, r#"the body has the key "data" twice"#),
        (r#"{"limits":[]}"#, "limits must be an object"),
        (r#"{"limits":{"timeoutMs":1,"timeoutMs":2}}"#, r#"limits has the key "timeoutMs" twice"#),
        (r#"{"limits":{"timeoutMs":"5000"}}"#, "limits.timeoutMs must be a whole number of milliseconds, 0 or more"),
        (r#"{"limits":{"memoryMb":-1}}"#, "limits.memoryMb must be a whole number of MiB, 0 or more"),
    ];
    for (body, said) in cases {
        assert_eq!(refusal(body).await, format!("400 invalid_request: {said}"), "{body}");
    }
}

#[actix_web::test]
async fn env_that_would_steer_the_runtime_is_refused() {
    for name in ["PATH", "LD_PRELOAD", "NODE_OPTIONS", "DENO_DIR", "BUN_INSTALL", "A B", ""] {
        let said = refusal(&format!(r#"{{"env":{{"{name}":"x"}}}}"#)).await;
        assert!(said.starts_with("400 validation_error: env name"), "{name}: {said}");
    }
    let said = refusal(r#"{"env":{"A":"secret\u0000value"}}"#).await;
    assert_eq!(said, r#"400 validation_error: env value of "A" holds a NUL or is longer than 32768 bytes"#);
}

#[actix_web::test]
async fn refusals_and_failures_of_the_pool_have_their_codes() {
    let queue = Refusal::QueueFull { retry_after: Duration::from_secs(3) };
    let host = ExecuteError::Host { doing: "starting runsc", cause: "exit 128".into(), kind: FailureKind::Retryable };
    let cases = [
        (ExecuteError::Absent(any_environment()), 404, "not_found", None),
        (ExecuteError::Refused(queue), 429, "too_many_requests", Some("3")),
        (ExecuteError::Refused(Refusal::Draining), 503, "shutting_down", Some("1")),
        (host, 500, "execution_failed", Some("1")),
    ];
    for (error, status, code, wait) in cases {
        let house = House::with(Scripts { execute: Some(Box::new(move |_| Err(error.clone()))), ..Scripts::default() });
        let answer = house.ask(Method::POST, &execute_path(), "{}").await;
        assert_eq!((answer.status.as_u16(), answer.json()["code"].as_str()), (status, Some(code)));
        assert_eq!(answer.header("retry-after"), wait);
    }
}

#[actix_web::test]
async fn an_id_that_is_no_uuid_is_told_before_the_body_is_read() {
    let answer = House::plain().ask(Method::POST, "/environments/not-a-uuid/execute", "nonsense").await;
    assert_eq!(answer.refusal(), "400 invalid_id: the environment id is not a UUID");
}

#[actix_web::test]
async fn what_needs_the_desk_says_so_when_there_is_none() {
    let house = House::plain();
    let key = ("Idempotency-Key", "k");
    let answer = house.ask_with(Method::POST, &execute_path(), b"{}".to_vec(), &[BEARER, key]).await;
    assert_eq!(answer.refusal(), "503 unavailable: the actor is not running at the moment");
    let answer =
        house.ask_with(Method::POST, &execute_path(), b"{}".to_vec(), &[BEARER, ("Idempotency-Key", "a b")]).await;
    assert_eq!(
        answer.refusal(),
        "400 validation_error: Idempotency-Key must be 1 to 255 visible ASCII characters, such as a UUID"
    );
    let answer = house.ask(Method::GET, "/executions/0b8e7c6a-5c1b-4f2e-9d3a-7a1f0e2d4c55", "").await;
    assert_eq!(answer.refusal(), "503 unavailable: the actor is not running at the moment");
    for (method, path) in [(Method::POST, "/executions"), (Method::PUT, "/executions/x")] {
        assert_eq!(house.ask(method, path, "").await.status.as_u16(), 405);
    }
}
