//! How answers are put together.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use crate::domain::desk::Answer;

/// On answers that were given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What the access log calls an answer's outcome; travels in the response's extensions.
#[derive(Debug, Clone, Copy)]
pub struct OutcomeName(pub &'static str);

/// A JSON answer.
pub fn json<T: Serialize>(status: StatusCode, body: &T) -> HttpResponse {
    match serde_json::to_string(body) {
        Ok(text) => HttpResponse::build(status).content_type("application/json").body(text),
        // Our own types have string keys only, so this is not reached; a client still gets JSON.
        Err(_) => HttpResponse::InternalServerError()
            .content_type("application/json")
            .body(r#"{"error":"the answer could not be written","code":"internal_error"}"#),
    }
}

/// JSON that is text already.
pub fn raw(status: StatusCode, json: String) -> HttpResponse {
    HttpResponse::build(status).content_type("application/json").body(json)
}

/// What was answered to the first request under the same key.
pub fn again(kept: &Answer) -> HttpResponse {
    let status = StatusCode::from_u16(kept.status).unwrap_or(StatusCode::OK);
    replayed(named(raw(status, kept.body.to_string()), "again"))
}

/// Says that it was not done for this request.
pub fn replayed(mut response: HttpResponse) -> HttpResponse {
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// A plain text answer.
pub fn text(status: StatusCode, body: &'static str) -> HttpResponse {
    HttpResponse::build(status).content_type("text/plain; charset=utf-8").body(body)
}

/// Names the outcome for the access log.
pub fn named(mut response: HttpResponse, outcome: &'static str) -> HttpResponse {
    response.extensions_mut().insert(OutcomeName(outcome));
    response
}

/// What every answer carries: it is never guessed to be another type, and never kept.
pub fn harden(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}
