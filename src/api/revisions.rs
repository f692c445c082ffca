//! Routes that change an environment: its time to live, its modules, and another one of the same.

use actix_web::http::StatusCode;
use actix_web::web::{self, Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use uuid::Uuid;

use crate::api::body::{self, EXECUTE_BYTES, SET_UP_BYTES};
use crate::api::dto::EnvironmentBody;
use crate::api::environments::{id_of, only};
use crate::api::error::ApiError;
use crate::api::{Doors, answer, envelope};
use crate::domain::environment::{DEFAULT_TTL_SECONDS, Environment, MAX_TTL_SECONDS, ModulesUpdate, SetUpInvalid};
use crate::domain::id::EnvironmentId;
use crate::domain::json::{Fields, Malformed};
use crate::messages::handle::HandleError;
use crate::messages::sandbox_pool::{CloneEnvironment, SetTtl, SetUpError, UpdateModules};

/// Adds the routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config
        .service(web::resource("/environments/{id}/clone").post(clone).default_service(only("POST")))
        .service(web::resource("/environments/{id}/modules").put(update).default_service(only("PUT")));
}

/// `PATCH /environments/{id}`.
pub async fn patch(doors: Data<Doors>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, ApiError> {
    let (id, tenant) = (id_of(&request)?, envelope::caller(&request)?.tenant);
    let body = body::read(request.headers(), payload, EXECUTE_BYTES, &doors.intake).await?;
    let seconds = ttl(body.bytes())?.ok_or_else(missing)?;
    let set_ttl = doors.handles.revisions.set_ttl.clone();
    changed(async move { set_ttl.ask(SetTtl { id, tenant, seconds }).await }).await
}

async fn clone(doors: Data<Doors>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, ApiError> {
    let (from, tenant) = (id_of(&request)?, envelope::caller(&request)?.tenant);
    let body = body::read(request.headers(), payload, EXECUTE_BYTES, &doors.intake).await?;
    let ttl_seconds = if body.bytes().is_empty() { None } else { ttl(body.bytes())? };
    let clone = doors.handles.revisions.clone.clone();
    let message = CloneEnvironment { id: EnvironmentId(Uuid::new_v4()), tenant, from, ttl_seconds };
    changed(async move { clone.ask(message).await }).await
}

async fn update(doors: Data<Doors>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, ApiError> {
    let (id, tenant) = (id_of(&request)?, envelope::caller(&request)?.tenant);
    let body = body::read(request.headers(), payload, SET_UP_BYTES, &doors.intake).await?;
    // As for a set-up: megabytes of JSON take their time.
    let update = web::block(move || parse(body.bytes())).await.map_err(|_| ApiError::GivenUp)??;
    let handle = doors.handles.revisions.update.clone();
    changed(async move { handle.ask(UpdateModules { id, tenant, update }).await }).await
}

fn parse(bytes: &[u8]) -> Result<ModulesUpdate, ApiError> {
    let mut fields = Fields::of_body(bytes)?;
    Ok(ModulesUpdate {
        main_module: fields.read("mainModule", "a string")?,
        modules: fields.strings("modules", "an object of source texts by module name")?,
        dependencies: fields.strict("dependencies", "an object of npm and deno, each a list of strings")?,
    })
}

/// 0 means the default, as in a set-up.
fn ttl(bytes: &[u8]) -> Result<Option<u64>, ApiError> {
    let asked: Option<u64> = Fields::of_body(bytes)?.read("ttlSeconds", "a whole number of seconds, 0 or more")?;
    match asked {
        Some(0) => Ok(Some(DEFAULT_TTL_SECONDS)),
        Some(seconds) if seconds > MAX_TTL_SECONDS => Err(SetUpInvalid::TtlTooLong(seconds).into()),
        asked => Ok(asked),
    }
}

fn missing() -> Malformed {
    Malformed::Type { field: "ttlSeconds".to_owned(), expected: "a whole number of seconds, 0 or more" }
}

/// Asks in a task of its own: a caller who hangs up must not leave the command half told.
async fn changed(
    asked: impl Future<Output = Result<Result<Environment, SetUpError>, HandleError>> + 'static,
) -> Result<HttpResponse, ApiError> {
    let environment = actix_web::rt::spawn(asked).await.map_err(|_| ApiError::GivenUp)???;
    Ok(answer::json(StatusCode::OK, &EnvironmentBody::from(environment)))
}
