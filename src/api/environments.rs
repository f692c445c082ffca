//! Routes that make, show and delete environments, and the plain `GET /health`.

use std::collections::BTreeSet;

use actix_web::http::StatusCode;
use actix_web::web::{self, Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use uuid::Uuid;

use crate::api::body::{self, SET_UP_BYTES};
use crate::api::dto::EnvironmentBody;
use crate::api::error::ApiError;
use crate::api::keys::{self, Before, Once, Work};
use crate::api::{Doors, answer, envelope, revisions};
use crate::domain::credential::CredentialName;
use crate::domain::desk::Subject;
use crate::domain::environment::{Environment, Isolation, Runtime, SetUpInvalid, SetUpRequest};
use crate::domain::id::EnvironmentId;
use crate::domain::json::Fields;
use crate::domain::tenant::TenantName;
use crate::messages::sandbox_pool::{DeleteEnvironment, SetUp};

/// The route that needs no token.
pub const HEALTH: &str = "/health";

const PERMISSIONS: &str = "an object of allowNet, allowEnv, allowRead, allowWrite, allowRun, allowFfi (each true, false \
                           or a list of strings) and allowHrtime (true or false)";
const LIMITS: &str = "an object of concurrency (calls at once, 1 to 10000) and rate (perSecond, 0.001 to 10000, and burst, \
                      1 to 1000000)";

/// Adds the routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config
        .service(web::resource(HEALTH).get(health).route(web::head().to(health)).default_service(only("GET, HEAD")))
        .service(web::resource("/environments").get(list).default_service(only("GET")))
        .service(web::resource("/environments/setup").post(set_up).default_service(only("POST")))
        .service(
            web::resource("/environments/{id}")
                .get(show)
                .delete(delete)
                .patch(revisions::patch)
                .default_service(only("GET, DELETE, PATCH")),
        );
}

/// The answer to every method that a route does not know.
pub fn only(allowed: &'static str) -> actix_web::Route {
    web::to(move || async move { Err::<HttpResponse, ApiError>(ApiError::Method(allowed)) })
}

/// The environment that a request's path names.
pub fn id_of(request: &HttpRequest) -> Result<EnvironmentId, ApiError> {
    request.match_info().get("id").and_then(|id| id.parse().ok()).ok_or(ApiError::Id)
}

async fn health() -> HttpResponse {
    answer::text(StatusCode::OK, "OK")
}

async fn set_up(doors: Data<Doors>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, ApiError> {
    let tenant = envelope::caller(&request)?.tenant;
    let key = keys::of(request.headers())?;
    let body = body::read(request.headers(), payload, SET_UP_BYTES, &doors.intake).await?;
    // Megabytes of JSON take tens of milliseconds, which the other connections of this worker need not wait.
    let id = EnvironmentId(Uuid::new_v4());
    let place = keys::place(&tenant, "setup");
    let read = move || {
        let claim = key.map(|key| keys::claim(&key, &place, "", body.bytes(), Subject::SetUp(id)));
        parse(body.bytes()).map(|wanted| (claim, wanted))
    };
    let (claim, wanted) = web::block(read).await.map_err(|_| ApiError::GivenUp)??;
    let message = SetUp { id, tenant: tenant.clone(), request: wanted };
    // In a task of its own: a caller who hangs up must not leave the command half told.
    let pool = doors.handles.set_up.clone();
    let work = async move { pool.ask(message).await.map_err(ApiError::from)?.map_err(ApiError::from) };
    let Some(claim) = claim else {
        let environment = actix_web::rt::spawn(work).await.map_err(|_| ApiError::GivenUp)??;
        return Ok(answer::json(StatusCode::OK, &EnvironmentBody::from(environment)));
    };
    let work = async move {
        match work.await {
            Ok(environment) => Work::Done { told: Ok(environment), answer: None },
            // Nothing half-made is left, so that it can be tried again.
            Err(error) => Work::Undone { answer: error.kept(), told: Err(error) },
        }
    };
    let once = actix_web::rt::spawn(keys::once(doors.handles.desk.clone(), claim, work));
    let made = |environment| answer::json(StatusCode::OK, &EnvironmentBody::from(environment));
    match once.await.map_err(|_| ApiError::GivenUp)?? {
        Once::Now(told) => told.map(made),
        Once::Before(Before::Made(id)) => Ok(answer::replayed(made(there(&doors, id, &tenant).await?))),
        Once::Before(Before::Answered(kept)) => Ok(answer::again(&kept)),
        Once::Before(Before::Accepted(_)) => Err(ApiError::KeyReused),
    }
}

fn parse(bytes: &[u8]) -> Result<SetUpRequest, ApiError> {
    let mut fields = Fields::of_body(bytes)?;
    let request = SetUpRequest {
        main_module: fields.read("mainModule", "a string")?.unwrap_or_default(),
        modules: fields.strings("modules", "an object of source texts by module name")?,
        runtime: runtime(fields.read("runtime", "a string")?)?,
        dependencies: fields
            .strict("dependencies", "an object of npm and deno, each a list of strings")?
            .unwrap_or_default(),
        permissions: fields.strict("permissions", PERMISSIONS)?.unwrap_or_default(),
        secrets: secrets(fields.read("secrets", "a list of the names of secrets")?)?,
        ttl_seconds: fields.read("ttlSeconds", "a whole number of seconds, 0 or more")?.unwrap_or_default(),
        limits: fields.strict("limits", LIMITS)?.unwrap_or_default(),
        isolation: isolation(fields.read("isolation", "a string")?)?,
    };
    Ok(request)
}

/// Each once, in one order.
fn secrets(names: Option<Vec<String>>) -> Result<Vec<CredentialName>, ApiError> {
    let named = names.unwrap_or_default().into_iter().map(|name| name.parse().map_err(SetUpInvalid::SecretName));
    let named: BTreeSet<CredentialName> = named.collect::<Result<_, _>>()?;
    Ok(named.into_iter().collect())
}

/// Absent and empty mean the default, as in the first system.
fn runtime(name: Option<String>) -> Result<Runtime, ApiError> {
    match name.as_deref() {
        None | Some("") => Ok(Runtime::default()),
        Some(name) => {
            name.parse().map_err(|_: SetUpInvalid| SetUpInvalid::UnknownRuntime(name.chars().take(32).collect()).into())
        }
    }
}

/// Absent and empty mean a sandbox for each call.
fn isolation(name: Option<String>) -> Result<Isolation, ApiError> {
    match name.as_deref() {
        None | Some("" | "call") => Ok(Isolation::Call),
        Some("environment") => Ok(Isolation::Environment),
        Some(name) => Err(SetUpInvalid::UnknownIsolation(name.chars().take(32).collect()).into()),
    }
}

async fn list(doors: Data<Doors>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let tenant = envelope::caller(&request)?.tenant;
    let environments = doors.store.environments_of(&tenant).await?;
    let now = doors.clock.wall();
    let ready = environments.into_iter().filter(|found| found.is_found_by(&tenant, now));
    let bodies: Vec<EnvironmentBody> = ready.map(EnvironmentBody::from).collect();
    Ok(answer::json(StatusCode::OK, &bodies))
}

async fn show(doors: Data<Doors>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    Ok(answer::json(StatusCode::OK, &EnvironmentBody::from(ready(&doors, &request).await?)))
}

/// The environment that a request's path names, if it can be executed. One that is being made or deleted, or whose time is over, does not exist
/// for a caller, nor does another tenant's.
pub async fn ready(doors: &Doors, request: &HttpRequest) -> Result<Environment, ApiError> {
    there(doors, id_of(request)?, &envelope::caller(request)?.tenant).await
}

/// The same for a tenant and an id that are known.
pub async fn there(doors: &Doors, id: EnvironmentId, tenant: &TenantName) -> Result<Environment, ApiError> {
    let found = doors.store.environment(id).await?;
    let now = doors.clock.wall();
    found.filter(|found| found.is_found_by(tenant, now)).ok_or(ApiError::Absent(id))
}

async fn delete(doors: Data<Doors>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let (id, tenant) = (id_of(&request)?, envelope::caller(&request)?.tenant);
    let pool = doors.handles.delete.clone();
    let told = actix_web::rt::spawn(async move { pool.ask(DeleteEnvironment { id, tenant }).await });
    told.await.map_err(|_| ApiError::GivenUp)???;
    Ok(HttpResponse::NoContent().finish())
}
