//! RunPod's client API on this host's own queue, for any name of an endpoint:
//!
//! ```text
//!   POST /v2/{endpoint}/run               {"id","status":"IN_QUEUE"}
//!   POST /v2/{endpoint}/runsync?wait=ms   the job when it has ended, or how it stands when the wait ends
//!   GET|POST …/status/{id}, …/status-sync/{id}?wait=ms, …/stream/{id}
//!   POST …/cancel/{id}                    GET …/health
//! ```
//!
//! A job is opened once at the door, so that a caller hears at once what is wrong with it, and again when it is taken.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::rt::time::timeout;
use actix_web::web::{self, Data, Payload, Query, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use uuid::Uuid;

use crate::api::body::{self, RUN_BYTES, RUNSYNC_BYTES};
use crate::api::dto::job::{QueueHealthBody, QueueJobs, QueueWorkers, TicketBody, job_body, stream_body};
use crate::api::environments::only;
use crate::api::error::ApiError;
use crate::api::pieces::Pieces;
use crate::api::{Doors, answer, envelope, health};
use crate::domain::bucket::{Bucket, S3Config};
use crate::domain::job::{Job, JobId, JobStatus, JobView, Request};
use crate::domain::json::Fields;
use crate::domain::quota::Work;
use crate::domain::secret::Secret;
use crate::domain::tenant::{Caller, Scope, TenantName};
use crate::messages::crypto::Open;
use crate::messages::queue_ingress::{CancelJob, GetIngress, SubmitJob};
use crate::ports::job_queue::JobQueue;

/// How long a caller waits who does not say, and the least and the most that he may say.
const WAIT: u64 = 90_000;
const WAITS: std::ops::RangeInclusive<u64> = 1_000..=300_000;

/// The pattern of the route that clients poll.
pub const STATUS: &str = "/v2/{endpoint}/status/{id}";

/// Adds the routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config.service(
        web::scope("/v2/{endpoint}")
            .service(web::resource("/run").post(run).default_service(only("POST")))
            .service(web::resource("/runsync").post(runsync).default_service(only("POST")))
            .service(web::resource("/status/{id}").get(status).post(status).default_service(only("GET, POST")))
            .service(
                web::resource("/status-sync/{id}")
                    .get(status_sync)
                    .post(status_sync)
                    .default_service(only("GET, POST")),
            )
            .service(web::resource("/stream/{id}").get(stream).post(stream).default_service(only("GET, POST")))
            .service(web::resource("/cancel/{id}").post(cancel).default_service(only("POST")))
            .service(web::resource("/health").get(queue_health).default_service(only("GET")))
            .default_service(web::to(crate::api::server::no_route)),
    );
}

#[derive(Deserialize)]
struct Patience {
    /// Milliseconds. A text, since a number that cannot be read is no reason to refuse a job.
    wait: Option<String>,
}

impl Patience {
    fn span(&self) -> Duration {
        let asked = self.wait.as_ref().and_then(|wait| wait.parse::<u64>().ok()).unwrap_or(WAIT);
        Duration::from_millis(asked.clamp(*WAITS.start(), *WAITS.end()))
    }
}

async fn run(doors: Data<Doors>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, ApiError> {
    let id = JobId::local(Uuid::new_v4());
    submit(&doors, &request, payload, RUN_BYTES, id.clone()).await?;
    Ok(ticket(&id, JobStatus::InQueue))
}

async fn runsync(
    doors: Data<Doors>,
    request: HttpRequest,
    payload: Payload,
    patience: Query<Patience>,
) -> Result<HttpResponse, ApiError> {
    let id: JobId = format!("sync-{}", Uuid::new_v4()).parse().map_err(|_| ApiError::Defect)?;
    submit(&doors, &request, payload, RUNSYNC_BYTES, id.clone()).await?;
    settled(&doors, &id, patience.span()).await
}

/// Reads, opens and queues a job.
async fn submit(
    doors: &Data<Doors>,
    request: &HttpRequest,
    payload: Payload,
    cap: usize,
    id: JobId,
) -> Result<(), ApiError> {
    queue(doors)?;
    let Caller { tenant, scopes, .. } = envelope::caller(request)?;
    let body = body::read(request.headers(), payload, cap, &doors.intake).await?;
    let for_job = tenant.clone();
    let job = web::block(move || parse(body.bytes(), id, for_job)).await.map_err(|_| ApiError::GivenUp)??;
    // A request that is opened is remembered, and is then no use to whoever has to come again.
    queue(doors)?.admits(job.input.len())?;
    doors.tenants.admit(&tenant, Work::Job)?;
    let (open, submit) = (doors.handles.open.clone(), doors.handles.submit.clone());
    // In a task of its own: a caller who hangs up must not leave the command half told.
    let told = actix_web::rt::spawn(async move {
        // What it opens to is dropped here: the plaintext is not kept while the job waits.
        let opened = open.ask(Open { job: job.id.clone(), input: job.input.clone() }).await??;
        if matches!(opened, Request::Execute(_)) && !scopes.hold(Scope::Execute) {
            return Err(ApiError::Scope(Scope::Execute));
        }
        drop(opened);
        submit.ask(SubmitJob { job }).await??;
        Ok::<(), ApiError>(())
    });
    told.await.map_err(|_| ApiError::GivenUp)?
}

fn parse(bytes: &[u8], id: JobId, tenant: TenantName) -> Result<Job, ApiError> {
    let mut fields = Fields::of_body(bytes)?;
    let input = fields.take("input").ok_or(ApiError::Job("input is required"))?;
    if fields.take("webhook").is_some() || fields.take("webhookV2").is_some() {
        return Err(ApiError::Job("webhooks are not sent from this queue: ask /status-sync instead"));
    }
    let config: Option<S3Config> = fields.read("s3Config", "an object of accessId, accessSecret, …")?;
    let bucket = config.map(Bucket::from);
    Ok(Job { id, tenant, input: Secret::new(input.get().as_bytes().to_vec()), bucket })
}

async fn status(doors: Data<Doors>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    Ok(shown(&own(&doors, &request)?))
}

async fn status_sync(
    doors: Data<Doors>,
    request: HttpRequest,
    patience: Query<Patience>,
) -> Result<HttpResponse, ApiError> {
    let id = own(&doors, &request)?.id;
    settled(&doors, &id, patience.span()).await
}

async fn settled(doors: &Data<Doors>, id: &JobId, wait: Duration) -> Result<HttpResponse, ApiError> {
    Ok(shown(&queue(doors)?.settled(id, wait).await.ok_or(ApiError::NoJob)?))
}

async fn stream(doors: Data<Doors>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    // The status first: chunks that come in between belong to a job that still runs.
    let view = own(&doors, &request)?;
    let chunks = queue(&doors)?.chunks(&view.id).unwrap_or_default();
    Ok(raw(stream_body(view.status, &chunks)))
}

async fn cancel(doors: Data<Doors>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let job = own(&doors, &request)?.id;
    let handle = doors.handles.cancel_job.clone();
    let told = actix_web::rt::spawn(async move { handle.ask(CancelJob { job }).await });
    let view = told.await.map_err(|_| ApiError::GivenUp)??.ok_or(ApiError::NoJob)?;
    Ok(ticket(&view.id, view.status))
}

/// The tenant's own jobs, and the workers that all share.
async fn queue_health(doors: Data<Doors>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let counts = queue(&doors)?.counts(&envelope::caller(&request)?.tenant);
    let asked = timeout(health::ANSWER_WITHIN, doors.handles.ingress.ask(GetIngress)).await;
    let picture = asked.ok().and_then(Result::ok).unwrap_or_default();
    let jobs = QueueJobs {
        completed: counts.completed,
        failed: counts.failed,
        in_progress: counts.in_progress,
        in_queue: counts.in_queue,
        retried: 0,
    };
    let workers = QueueWorkers {
        idle: picture.instances_ready,
        initializing: picture.instances_starting,
        ready: picture.instances_ready + picture.instances_busy,
        running: picture.instances_busy,
        throttled: 0,
        unhealthy: picture.instances_unwell,
    };
    Ok(answer::json(StatusCode::OK, &QueueHealthBody { jobs, workers }))
}

fn queue(doors: &Data<Doors>) -> Result<&dyn JobQueue, ApiError> {
    doors.jobs.as_deref().ok_or(ApiError::NoQueue)
}

/// The job that a request's path names, as it stands. What is no id of a job is the id of no job, and another tenant's
/// job is none.
fn own(doors: &Data<Doors>, request: &HttpRequest) -> Result<JobView, ApiError> {
    let (queue, caller) = (queue(doors)?, envelope::caller(request)?);
    let id: Option<JobId> = request.match_info().get("id").and_then(|id| id.parse().ok());
    let view = id.and_then(|id| queue.view(&id));
    view.filter(|view| view.tenant == caller.tenant).ok_or(ApiError::NoJob)
}

fn ticket(id: &JobId, status: JobStatus) -> HttpResponse {
    answer::json(StatusCode::OK, &TicketBody { id: id.as_str(), status })
}

fn shown(view: &JobView) -> HttpResponse {
    raw(job_body(view))
}

fn raw(body: Pieces) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(body)
}
