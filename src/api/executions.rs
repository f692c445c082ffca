//! The routes that call an environment's handler and list its calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::rt::task::JoinHandle;
use actix_web::web::{self, Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::future::{Either, select};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::api::body::{self, EXECUTE_BYTES};
use crate::api::dto::{LimitsBody, RecordBody};
use crate::api::ears::Ears;
use crate::api::ending::{Ending, Told};
use crate::api::environments::{id_of, only, ready};
use crate::api::error::ApiError;
use crate::api::keys::{self, Before, Once, Work};
use crate::api::{Doors, Handles, accepted, answer, envelope, events};
use crate::domain::desk::{ExecutionView, Subject};
use crate::domain::execution::{Call, FilesForm, Follower, Following, validate_env};
use crate::domain::id::ExecutionId;
use crate::domain::json::{Fields, Malformed};
use crate::domain::quota;
use crate::domain::tenant::TenantName;
use crate::domain::webhook::{Webhook, WebhookInvalid};
use crate::messages::call_desk::{AcceptCall, ClaimKey};
use crate::messages::sandbox_pool::{CancelExecution, Execute};
use crate::ports::clock::Clock;

/// The most calls that are listed.
const MOST_RECORDS: u32 = 100;

/// Adds the routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config.service(web::resource("/environments/{id}/execute").post(execute).default_service(only("POST")));
    config.service(web::resource("/environments/{id}/executions").get(list).default_service(only("GET")));
}

/// The environment's last calls, newest first.
async fn list(doors: Data<Doors>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let environment = ready(&doors, &request).await?;
    let records = doors.store.executions(environment.id, MOST_RECORDS).await?;
    let bodies: Vec<RecordBody> = records.into_iter().map(RecordBody::from).collect();
    Ok(answer::json(StatusCode::OK, &bodies))
}

async fn execute(doors: Data<Doors>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, ApiError> {
    let (environment, tenant) = (id_of(&request)?, envelope::caller(&request)?.tenant);
    let key = keys::of(request.headers())?;
    let (execution, later) = (ExecutionId(Uuid::now_v7()), accepted::is_wanted(&request));
    let body = body::read(request.headers(), payload, EXECUTE_BYTES, &doors.intake).await?;
    let wanted = parse(body.bytes())?;
    let (way, subject) = match later {
        true => ("later", Subject::Accepted(environment, execution)),
        false => ("now", Subject::Call(environment, execution)),
    };
    let place = keys::place(&tenant, &format!("execute {environment}"));
    let claim = key.map(|key| keys::claim(&key, &place, way, body.bytes(), subject));
    drop(body);
    validate_env(&wanted.env)?;
    let call = Call {
        execution,
        environment,
        request: envelope::request_id(&request),
        data: wanted.data,
        env: wanted.env,
        limits: doors.limits.resolve(wanted.limits.timeout_ms, wanted.limits.memory_mb),
        files: wanted.files,
    };
    let work = quota::Work::Call;
    match wanted.webhook {
        webhook if later => {
            webhook.as_ref().map_or(Ok(()), Webhook::validate)?;
            ready(&doors, &request).await?;
            accept(doors, AcceptCall { call, tenant, webhook }, claim).await
        }
        Some(_) => Err(WebhookInvalid::NotAsynchronous.into()),
        None if events::are_wanted(request.headers()) => {
            // The last that can be refused by its status.
            ready(&doors, &request).await?;
            let (ears, clock) = (Arc::new(Ears::default()), Arc::clone(&doors.clock));
            let following: Following = Some(Arc::clone(&ears) as Arc<dyn Follower>);
            let (told, caller) = begin(&doors, Execute { call, tenant, work, following }, claim);
            let last = async move {
                let told = told.await.map_err(|_| ApiError::GivenUp).and_then(|ended| ended);
                told.unwrap_or_else(Ending::Failed).last()
            };
            Ok(events::stream(ears, Box::pin(last), caller, clock))
        }
        None => {
            // Dropped with this future: the caller's presence.
            let (told, _caller) = begin(&doors, Execute { call, tenant, work, following: None }, claim);
            told.await.map_err(|_| ApiError::GivenUp)??.respond()
        }
    }
}

/// Makes the call, in a task of its own, so that no message is lost with the request. The caller is there until what
/// stands for him is dropped. A call with a key goes on without him: he may come back for its answer.
fn begin(
    doors: &Doors,
    message: Execute,
    claim: Option<ClaimKey>,
) -> (JoinHandle<Result<Ending, ApiError>>, oneshot::Sender<()>) {
    let (caller, gone) = oneshot::channel::<()>();
    let (handles, clock) = (doors.handles.clone(), Arc::clone(&doors.clock));
    let Some(claim) = claim else {
        let run = async move { Ok(Ending::of(run(handles, message, gone).await, clock.wall())) };
        return (actix_web::rt::spawn(run), caller);
    };
    let desk = handles.desk.clone();
    let work = async move {
        let told = Ending::of(handles.execute.ask(message).await, clock.wall());
        let answer = told.kept();
        if told.may_have_run() { Work::Done { told, answer: Some(answer) } } else { Work::Undone { told, answer } }
    };
    let run = async move {
        match keys::once(desk, claim, work).await? {
            Once::Now(ending) => Ok(ending),
            Once::Before(Before::Answered(answer)) => Ok(Ending::Again(answer)),
            Once::Before(Before::Accepted(_) | Before::Made(_)) => Err(ApiError::KeyReused),
        }
    };
    (actix_web::rt::spawn(run), caller)
}

/// Asks for the call, and tells the pool when the caller is gone before the answer.
async fn run(handles: Handles, message: Execute, gone: oneshot::Receiver<()>) -> Told {
    let execution = message.call.execution;
    let answer = Box::pin(handles.execute.ask(message));
    match select(answer, gone).await {
        Either::Left((report, _)) => report,
        Either::Right((_, answer)) => {
            // Nobody is left to hear that it failed; the call then ends by its own time limit.
            let _ = handles.cancel.ask(CancelExecution { execution }).await;
            answer.await
        }
    }
}

/// Takes the call on, to be answered later.
async fn accept(doors: Data<Doors>, message: AcceptCall, claim: Option<ClaimKey>) -> Result<HttpResponse, ApiError> {
    let (tenant, tenants) = (message.tenant.clone(), Arc::clone(&doors.tenants));
    let fresh = queued(&message.call, tenant.clone(), &*doors.clock);
    let desk = doors.handles.desk.clone();
    let (accepting, asks) = (desk.accept.clone(), tenant.clone());
    let work = async move {
        // It counts as a job does: its rate here and once, all else when it begins.
        tenants.admit(&asks, quota::Work::Job)?;
        accepting.ask(message).await.map_err(ApiError::from)?.map_err(ApiError::from)
    };
    let Some(claim) = claim else {
        actix_web::rt::spawn(work).await.map_err(|_| ApiError::GivenUp)??;
        return Ok(accepted::accepted(fresh));
    };
    let work = async move {
        match work.await {
            Ok(()) => Work::Done { told: Ok(()), answer: None },
            Err(error) => Work::Undone { answer: error.kept(), told: Err(error) },
        }
    };
    let once = actix_web::rt::spawn(keys::once(desk, claim, work)).await.map_err(|_| ApiError::GivenUp)??;
    match once {
        Once::Now(told) => told.map(|()| accepted::accepted(fresh)),
        Once::Before(Before::Accepted(execution)) => {
            Ok(answer::replayed(accepted::accepted(accepted::view(&doors, execution, tenant).await?)))
        }
        Once::Before(Before::Answered(kept)) => Ok(answer::again(&kept)),
        Once::Before(Before::Made(_)) => Err(ApiError::KeyReused),
    }
}

/// A call that was accepted just now.
fn queued(call: &Call, tenant: TenantName, clock: &dyn Clock) -> ExecutionView {
    ExecutionView {
        execution: call.execution,
        tenant,
        environment: call.environment,
        accepted_at: Some(clock.wall()),
        started_at: None,
        ended_at: None,
        outcome: None,
        answer: None,
        webhook: None,
    }
}

struct Wanted {
    data: String,
    env: BTreeMap<String, String>,
    limits: LimitsBody,
    files: FilesForm,
    webhook: Option<Webhook>,
}

fn parse(bytes: &[u8]) -> Result<Wanted, Malformed> {
    let mut fields = Fields::of_body(bytes)?;
    let data = fields.take("data").map_or_else(|| "null".to_owned(), |raw| raw.get().to_owned());
    let env = fields.strings("env", "an object of strings by name")?;
    let limits = match fields.object("limits")? {
        None => LimitsBody::default(),
        Some(mut limits) => LimitsBody {
            timeout_ms: limits.read("timeoutMs", "a whole number of milliseconds, 0 or more")?,
            memory_mb: limits.read("memoryMb", "a whole number of MiB, 0 or more")?,
        },
    };
    let files = fields.read("files", "true, false or \"tar\"")?.unwrap_or_default();
    let webhook = fields.strict("webhook", "an object of url and, to be signed, secret")?;
    Ok(Wanted { data, env, limits, files, webhook })
}
