//! What surrounds every HTTP request: its id, its token, a net for panics, and one line in the log. Callers without a
//! token part after one answer.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{HeaderName, HeaderValue, WWW_AUTHENTICATE};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _, HttpRequest, HttpResponse, ResponseError as _};
use futures_util::FutureExt as _;
use uuid::Uuid;

use crate::api::answer::{self, OutcomeName};
use crate::api::error::ApiError;
use crate::api::held::Held;
use crate::api::{Doors, accepted, environments, jobs, parting, scopes};
use crate::domain::id::RequestId;
use crate::domain::tenant::{Caller, TenantName, TokenId};
use crate::domain::time::{Moment, whole_millis};
use crate::ports::clock::Clock;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The status of a request whose caller hung up before its answer; nobody sees it but the log.
const HUNG_UP: u16 = 499;

/// The request's id, which the envelope has put there.
pub fn request_id(request: &HttpRequest) -> RequestId {
    request.extensions().get::<RequestId>().cloned().unwrap_or_else(|| RequestId::from_uuid(Uuid::now_v7()))
}

/// Who sent the request, which the envelope has put there.
///
/// # Errors
/// For a route that everybody may ask for; such a one has no business with tenants.
pub fn caller(request: &HttpRequest) -> Result<Caller, ApiError> {
    request.extensions().get::<Caller>().cloned().ok_or(ApiError::Defect)
}

/// Runs a request inside its envelope.
pub async fn wrap(
    doors: Arc<Doors>,
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if parting::is_late(&request) {
        return Ok(request.into_response(parting::cut().await));
    }
    let id = accept_or_make(&request);
    let held = Held::take(&mut request);
    let mut line = Line::begin(&doors, &request, id.clone());
    request.extensions_mut().insert(id.clone());

    let caller = doors.access.caller(request.headers(), &*doors.tenants);
    let stranger = caller.is_none();
    if stranger {
        parting::part(&request);
    }
    if stranger && !is_public(&request) {
        let mut response = request.into_response(unauthorized());
        seal(response.response_mut(), &id, stranger);
        line.answered(response.response());
        return Ok(response.map_body(|_, body| held.until_written(body)));
    }
    if let Some(caller) = caller {
        line.tenant = Some(caller.tenant.clone());
        let allowed = scopes::check(&caller, request.method(), request.match_pattern().as_deref());
        if let Err(refusal) = allowed {
            let token = caller.token.as_ref().map_or("-", TokenId::as_str);
            slog::info!(doors.log, "access.forbidden"; "tenant" => caller.tenant.as_str(), "token" => token,
                "route" => &line.route, "reason" => %refusal);
            let mut response = request.into_response(refusal.error_response());
            seal(response.response_mut(), &id, false);
            line.answered(response.response());
            return Ok(response.map_body(|_, body| held.until_written(body)));
        }
        request.extensions_mut().insert(caller);
    }
    // The request must not be cloned before its route is found: actix needs it to be the only one.
    match AssertUnwindSafe(next.call(request)).catch_unwind().await {
        Ok(answered) => {
            let mut response = answered?.map_into_boxed_body();
            seal(response.response_mut(), &id, stranger);
            line.answered(response.response());
            Ok(response.map_body(|_, body| held.until_written(body)))
        }
        Err(_) => {
            let mut response = ApiError::Defect.error_response();
            seal(&mut response, &id, stranger);
            line.answered(&response);
            // The panic's own text may hold user data; the panic hook decides what becomes of it.
            slog::error!(doors.log, "request panicked"; "request_id" => id.as_str(), "route" => &line.route);
            let response = response.map_body(|_, body| held.until_written(body));
            Err(InternalError::from_response("panic", response).into())
        }
    }
}

fn accept_or_make(request: &ServiceRequest) -> RequestId {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    given.and_then(RequestId::accept).unwrap_or_else(|| RequestId::from_uuid(Uuid::now_v7()))
}

fn is_public(request: &ServiceRequest) -> bool {
    request.path() == environments::HEALTH && (request.method() == Method::GET || request.method() == Method::HEAD)
}

fn unauthorized() -> HttpResponse {
    let mut response = answer::named(answer::text(StatusCode::UNAUTHORIZED, "Unauthorized"), "unauthorized");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn seal(response: &mut HttpResponse, id: &RequestId, last: bool) {
    if last {
        parting::say(response);
    }
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    answer::harden(response.headers_mut());
}

/// One line of the access log, written when it is dropped: also for a caller who hung up. It holds the route's
/// pattern and never its values, headers or bodies.
struct Line {
    log: slog::Logger,
    clock: Arc<dyn Clock>,
    began: Moment,
    id: RequestId,
    method: &'static str,
    route: String,
    tenant: Option<TenantName>,
    status: u16,
    bytes: u64,
    outcome: &'static str,
}

impl Line {
    fn begin(doors: &Doors, request: &ServiceRequest, id: RequestId) -> Self {
        Self {
            log: doors.log.clone(),
            clock: Arc::clone(&doors.clock),
            began: doors.clock.now(),
            id,
            method: known_method(request.method()),
            route: request.match_pattern().unwrap_or_else(|| "(none)".to_owned()),
            tenant: None,
            status: HUNG_UP,
            bytes: 0,
            outcome: "hung_up",
        }
    }

    /// A client's question how its job or its call stands, which comes each second.
    fn is_poll(&self) -> bool {
        let asks_again = self.route == jobs::STATUS || self.route == accepted::ONE;
        self.method == "GET" && self.status == StatusCode::OK.as_u16() && asks_again
    }

    fn answered(&mut self, response: &HttpResponse) {
        self.status = response.status().as_u16();
        self.outcome = match response.extensions().get::<OutcomeName>() {
            Some(name) => name.0,
            None if response.status().is_success() => "ok",
            None => "refused",
        };
        self.bytes = match response.body().size() {
            BodySize::Sized(bytes) => bytes,
            BodySize::None | BodySize::Stream => 0,
        };
        if response.status().is_server_error()
            && let Some(error) = response.error().and_then(|error| error.as_error::<ApiError>())
        {
            slog::warn!(self.log, "request failed";
                "request_id" => self.id.as_str(), "code" => error.code(), "cause" => chain(error));
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let took = whole_millis(self.clock.now().since(self.began));
        let line = slog::kv!(
            "request_id" => self.id.as_str(), "method" => self.method, "route" => &self.route,
            "tenant" => self.tenant.as_ref().map_or("-", TenantName::as_str), "status" => self.status, "bytes" => self.bytes, "ms" => took, "outcome" => self.outcome
        );
        if self.is_poll() {
            slog::debug!(self.log, "http request"; line);
        } else {
            slog::info!(self.log, "http request"; line);
        }
    }
}

fn known_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "(other)",
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
