//! Bodies that are too large, too deep or of the wrong kind.

use std::time::Duration;

use actix_web::http::Method;

use super::harness::{BEARER, House, Plan, execute_path};
use crate::api::Intake;

const SET_UP: &str = "/environments/setup";

#[actix_web::test]
async fn a_body_above_the_cap_is_refused_by_its_length_and_by_its_bytes() {
    for (path, cap) in [(SET_UP.to_owned(), 10 << 20), (execute_path(), 1 << 20)] {
        let house = House::plain();
        let announced = (cap + 1).to_string();
        let headers = [BEARER, ("Content-Length", announced.as_str())];
        let said = format!("413 request_too_large: the body is larger than {cap} bytes");
        assert_eq!(
            house
                .ask_with(Method::POST, &path, Vec::new(), &headers)
                .await
                .refusal(),
            said
        );
        // Without a length, as a chunked body has none.
        let read = house
            .ask_with(Method::POST, &path, vec![b' '; cap + 1], &[BEARER])
            .await;
        assert_eq!(read.refusal(), said);
        // At the cap it is read, and found to be no JSON.
        let fits = house.ask_with(Method::POST, &path, vec![b' '; cap], &[BEARER]).await;
        assert_eq!(fits.json()["code"], "invalid_request");
    }
}

#[actix_web::test]
async fn bodies_of_another_type_or_encoding_are_refused() {
    let house = House::plain();
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "",
    ] {
        let headers = [BEARER, ("Content-Type", kind)];
        let answer = house
            .ask_with(Method::POST, &execute_path(), b"{}".to_vec(), &headers)
            .await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()["code"].as_str()),
            (415, Some("unsupported_media_type"))
        );
    }
    for kind in [
        "application/json",
        "application/json; charset=utf-8",
        "text/json",
        "application/vnd.x+json",
    ] {
        let headers = [BEARER, ("Content-Type", kind)];
        let answer = house
            .ask_with(Method::POST, &execute_path(), b"{}".to_vec(), &headers)
            .await;
        assert_eq!(answer.status.as_u16(), 200, "{kind}");
    }
    for (encoding, status) in [("gzip", 415), ("br", 415), ("gzip, identity", 415), ("identity", 200)] {
        let headers = [BEARER, ("Content-Encoding", encoding)];
        let answer = house
            .ask_with(Method::POST, &execute_path(), b"{}".to_vec(), &headers)
            .await;
        assert_eq!(answer.status.as_u16(), status, "{encoding}");
    }
}

#[actix_web::test]
async fn json_deeper_than_the_limit_is_refused_wherever_it_is() {
    let house = House::plain();
    let deep = |levels: usize| format!(r#"{{"data":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    assert_eq!(
        house
            .ask(Method::POST, &execute_path(), &deep(127))
            .await
            .status
            .as_u16(),
        200
    );
    let said = "400 invalid_request: the body is nested deeper than 128 levels";
    assert_eq!(
        house.ask(Method::POST, &execute_path(), &deep(128)).await.refusal(),
        said
    );
    assert_eq!(
        house.ask(Method::POST, &execute_path(), &deep(100_000)).await.refusal(),
        said
    );
    let objects = format!(r#"{{"later":{}1{}}}"#, r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    assert_eq!(house.ask(Method::POST, SET_UP, &objects).await.refusal(), said);
    let brackets_in_text = format!(r#"{{"data":"{}"}}"#, r#"\"[{"#.repeat(1000));
    assert_eq!(
        house
            .ask(Method::POST, &execute_path(), &brackets_in_text)
            .await
            .status
            .as_u16(),
        200
    );
}

#[actix_web::test]
async fn bodies_that_are_held_at_once_have_a_common_limit() {
    let house = House::build(Plan {
        intake: Intake::new(Duration::from_secs(5), 100),
        ..Plan::default()
    });
    let large = format!(r#"{{"data":"{}"}}"#, "x".repeat(200));
    let answer = house.ask(Method::POST, &execute_path(), &large).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, Some("1")));
    assert_eq!(
        house.ask(Method::POST, &execute_path(), "{}").await.status.as_u16(),
        200,
        "it was given back"
    );
}
