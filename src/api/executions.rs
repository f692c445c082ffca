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
use crate::api::dto::{ExecutionBody, LimitsBody, RecordBody, execution_json};
use crate::api::ears::Ears;
use crate::api::environments::{id_of, only, ready};
use crate::api::error::ApiError;
use crate::api::events::{self, Last};
use crate::api::{Doors, Handles, answer, envelope};
use crate::domain::execution::{Call, ExecutionReport, Follower, validate_env};
use crate::domain::id::ExecutionId;
use crate::domain::json::{Fields, Malformed};
use crate::messages::handle::HandleError;
use crate::messages::sandbox_pool::{CancelExecution, Execute, ExecuteError};
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
    let environment = ready(&doors, id_of(&request)?).await?;
    let records = doors.store.executions(environment.id, MOST_RECORDS).await?;
    let bodies: Vec<RecordBody> = records.into_iter().map(RecordBody::from).collect();
    Ok(answer::json(StatusCode::OK, &bodies))
}

async fn execute(doors: Data<Doors>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, ApiError> {
    let environment = id_of(&request)?;
    let body = body::read(request.headers(), payload, EXECUTE_BYTES, &doors.intake).await?;
    let wanted = parse(body.bytes())?;
    drop(body);
    validate_env(&wanted.env)?;
    let call = Call {
        execution: ExecutionId(Uuid::now_v7()),
        environment,
        request: envelope::request_id(&request),
        data: wanted.data,
        env: wanted.env,
        limits: doors.limits.resolve(wanted.limits.timeout_ms, wanted.limits.memory_mb),
    };
    // Dropped with this future, or with the stream: the caller's presence.
    let (caller, gone) = oneshot::channel::<()>();
    if events::are_wanted(request.headers()) {
        // The last that can be refused by its status.
        ready(&doors, environment).await?;
        let ears = Arc::new(Ears::default());
        let message = Execute { call, following: Some(Arc::clone(&ears) as Arc<dyn Follower>) };
        let told = actix_web::rt::spawn(run(doors.handles.clone(), message, gone));
        let ending = ending(told, Arc::clone(&doors.clock));
        return Ok(events::stream(ears, Box::pin(ending), caller, Arc::clone(&doors.clock)));
    }
    let told = actix_web::rt::spawn(run(doors.handles.clone(), Execute { call, following: None }, gone));
    let report = told.await.map_err(|_| ApiError::GivenUp)???;
    let outcome = report.outcome.as_str();
    let body = ExecutionBody::new(report, doors.clock.wall());
    Ok(answer::named(answer::json(StatusCode::OK, &body), outcome))
}

/// What the pool said.
type Told = Result<Result<ExecutionReport, ExecuteError>, HandleError>;

/// The last event of a call that is followed.
async fn ending(told: JoinHandle<Told>, clock: Arc<dyn Clock>) -> Last {
    let told = told.await.map_err(|_| ApiError::GivenUp);
    match told.and_then(|told| Ok(told??)) {
        Ok(report) => Last { name: "result", json: execution_json(report, clock.wall()) },
        Err(error) => Last { name: "error", json: serde_json::to_string(&error.body()).unwrap_or_default() },
    }
}

/// Asks for the call, and tells the pool when the caller is gone before the answer. Lives in a task of its own, so that
/// neither message is lost with the request.
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

struct Wanted {
    data: String,
    env: BTreeMap<String, String>,
    limits: LimitsBody,
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
    Ok(Wanted { data, env, limits })
}
