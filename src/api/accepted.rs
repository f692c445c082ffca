//! Calls that are answered later: how one is asked for, and the routes that show and cancel them.

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue, LOCATION};
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};

use crate::api::dto::CallBody;
use crate::api::environments::{only, there};
use crate::api::error::ApiError;
use crate::api::{Doors, answer, envelope};
use crate::domain::desk::ExecutionView;
use crate::domain::id::{EnvironmentId, ExecutionId};
use crate::domain::tenant::TenantName;
use crate::messages::call_desk::{CancelCall, GetExecution, GetExecutions};

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const RESPOND_ASYNC: &str = "respond-async";
/// The route that is asked again and again until a call is done.
pub const ONE: &str = "/executions/{id}";
/// The most calls that are listed.
const MOST_CALLS: u32 = 100;

/// Adds the routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config
        .service(web::resource("/executions").get(list).default_service(only("GET")))
        .service(web::resource(ONE).get(show).delete(cancel).default_service(only("GET, DELETE")));
}

/// Whether a caller wants his answer later (RFC 7240's `respond-async`, or `?async=true`).
pub fn is_wanted(request: &HttpRequest) -> bool {
    prefers(request.headers()) || of_query(request, "async").is_some_and(|value| matches!(value, "true" | "1"))
}

fn prefers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(PREFER).filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split(',')).filter_map(|entry| entry.split(';').next());
    preferences.any(|preference| preference.trim().eq_ignore_ascii_case(RESPOND_ASYNC))
}

fn of_query<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    request
        .query_string()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, v)| v)
}

/// The answer to a call that was accepted.
pub fn accepted(view: ExecutionView) -> HttpResponse {
    let location = format!("/executions/{}", view.execution);
    let mut response = answer::named(answer::json(StatusCode::ACCEPTED, &CallBody::from(view)), "accepted");
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response.headers_mut().insert(PREFERENCE_APPLIED, HeaderValue::from_static(RESPOND_ASYNC));
    response
}

/// How a call stands. Another tenant's is none.
pub async fn view(doors: &Doors, execution: ExecutionId, tenant: TenantName) -> Result<ExecutionView, ApiError> {
    doors.handles.desk.execution.ask(GetExecution { execution, tenant }).await??.ok_or(ApiError::NoCall)
}

async fn show(doors: Data<Doors>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let view = view(&doors, id_of(&request)?, envelope::caller(&request)?.tenant).await?;
    Ok(answer::json(StatusCode::OK, &CallBody::from(view)))
}

async fn list(doors: Data<Doors>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let tenant = envelope::caller(&request)?.tenant;
    let environment = match of_query(&request, "environment") {
        None => None,
        Some(text) => {
            let id: EnvironmentId = text.parse().map_err(|_| ApiError::Id)?;
            Some(there(&doors, id, &tenant).await?.id)
        }
    };
    let question = GetExecutions { tenant, environment, limit: MOST_CALLS };
    let views = doors.handles.desk.executions.ask(question).await??;
    let bodies: Vec<CallBody> = views.into_iter().map(CallBody::from).collect();
    Ok(answer::json(StatusCode::OK, &bodies))
}

async fn cancel(doors: Data<Doors>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let (execution, tenant) = (id_of(&request)?, envelope::caller(&request)?.tenant);
    let cancel = doors.handles.desk.cancel.clone();
    let told = actix_web::rt::spawn(async move { cancel.ask(CancelCall { execution, tenant }).await });
    if told.await.map_err(|_| ApiError::GivenUp)??? {
        Ok(HttpResponse::NoContent().finish())
    } else {
        Err(ApiError::NoCall)
    }
}

fn id_of(request: &HttpRequest) -> Result<ExecutionId, ApiError> {
    request.match_info().get("id").and_then(|id| id.parse().ok()).ok_or(ApiError::CallId)
}
