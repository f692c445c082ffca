//! Everything a door can refuse, and the one place where a refusal gets its status and code.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, ResponseError};

use crate::api::answer;
use crate::api::body::BodyError;
use crate::api::dto::ErrorBody;
use crate::domain::credential::CredentialInvalid;
use crate::domain::desk::KeyInvalid;
use crate::domain::environment::SetUpInvalid;
use crate::domain::execution::EnvInvalid;
use crate::domain::failure::FailureKind;
use crate::domain::id::{EnvironmentId, ExecutionId};
use crate::domain::job::{OpenError, QueueRefusal};
use crate::domain::json::Malformed;
use crate::domain::pool::Refusal;
use crate::domain::quota::{Exceeded, Quota};
use crate::domain::tenant::{InvalidTenantName, Scope};
use crate::domain::webhook::WebhookInvalid;
use crate::messages::call_desk::DeskError;
use crate::messages::egress::CredentialRefused;
use crate::messages::handle::HandleError;
use crate::messages::sandbox_pool::{DeleteError, ExecuteError, SetUpError};
use crate::ports::store::StoreError;
use crate::ports::tenants::TenantsError;

/// Seconds that a caller is told to wait where nobody knows better.
const SOON: u64 = 1;

/// Why a request is not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    Json(#[from] Malformed),
    #[error("the environment id is not a UUID")]
    Id,
    #[error(transparent)]
    Env(#[from] EnvInvalid),
    #[error(transparent)]
    SetUpInvalid(#[from] SetUpInvalid),
    #[error(transparent)]
    SetUp(#[from] SetUpError),
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    #[error(transparent)]
    Delete(#[from] DeleteError),
    #[error(transparent)]
    SecretInvalid(#[from] CredentialInvalid),
    #[error(transparent)]
    Secret(#[from] CredentialRefused),
    #[error(transparent)]
    Query(#[from] StoreError),
    #[error("environment {0} does not exist")]
    Absent(EnvironmentId),
    #[error("the token does not have the scope {0}")]
    Scope(Scope),
    #[error("this route takes the operator's own token only")]
    NotTheOperator,
    #[error("only root and the daemon's own user may do that")]
    NotTheOwner,
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    #[error(transparent)]
    Tenants(#[from] TenantsError),
    #[error(transparent)]
    TenantName(InvalidTenantName),
    #[error("the body must be {0}")]
    NotA(&'static str),
    #[error("there is no such token")]
    NoToken,
    #[error("the call's id is not a UUID")]
    CallId,
    #[error("there is no such call, or it ended so long ago that it is forgotten")]
    NoCall,
    #[error(transparent)]
    Webhook(#[from] WebhookInvalid),
    #[error(transparent)]
    Key(#[from] KeyInvalid),
    #[error("this Idempotency-Key was used for another request: take a new key for a new request")]
    KeyReused,
    #[error("the first request under this Idempotency-Key was answered, and the answer is not kept any more")]
    AnswerNotKept(ExecutionId),
    #[error(
        "the daemon ended under the call of the first request, which may have run: look at it, then take a new key"
    )]
    CutOff(ExecutionId),
    #[error(transparent)]
    Desk(#[from] DeskError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Queue(#[from] QueueRefusal),
    /// A job's request that is none; the text names the field.
    #[error("{0}")]
    Job(&'static str),
    #[error("there is no such job, or it ended so long ago that it is forgotten")]
    NoJob,
    #[error("this host takes no jobs over HTTP")]
    NoQueue,
    #[error(transparent)]
    Unanswered(#[from] HandleError),
    #[error("the request was given up because the daemon is stopping")]
    GivenUp,
    #[error("there is no such route")]
    Route,
    #[error("this route does not know that method: use {0}")]
    Method(&'static str),
    #[error("the request met a defect of the daemon; its log names it under this request id")]
    Defect,
}

/// What a refusal looks like from outside.
#[derive(Debug)]
struct Look {
    status: StatusCode,
    code: &'static str,
    retry_after: Option<u64>,
}

impl Look {
    const fn plain(status: StatusCode, code: &'static str) -> Self {
        Self { status, code, retry_after: None }
    }

    const fn later(status: StatusCode, code: &'static str, seconds: u64) -> Self {
        Self { status, code, retry_after: Some(seconds) }
    }

    /// The first system answered every failure of the host with 500, and its clients look for that.
    fn of_failure(kind: FailureKind, code: &'static str) -> Self {
        match kind {
            FailureKind::Permanent => Self::plain(StatusCode::INTERNAL_SERVER_ERROR, code),
            FailureKind::Retryable => Self::later(StatusCode::INTERNAL_SERVER_ERROR, code, SOON),
        }
    }

    fn of_refusal(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Draining => Self::later(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", SOON),
            Refusal::QueueFull { retry_after } | Refusal::WaitedTooLong { retry_after } => {
                Self::later(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", whole_seconds(retry_after))
            }
        }
    }

    /// What passes with time is 429, what somebody has to make room for is 403.
    fn of_exceeded(exceeded: Exceeded) -> Self {
        let code = if exceeded.quota == Quota::EnvironmentRate { "rate_limited" } else { "quota_exceeded" };
        match exceeded.retry_after {
            Some(after) => Self::later(StatusCode::TOO_MANY_REQUESTS, code, whole_seconds(after)),
            None => Self::plain(StatusCode::FORBIDDEN, code),
        }
    }

    fn of_tenants(error: &TenantsError) -> Self {
        match error {
            TenantsError::NoTenant(_) => Self::plain(StatusCode::NOT_FOUND, "not_found"),
            TenantsError::TooManyTenants(_) | TenantsError::TooManyTokens(_) => {
                Self::plain(StatusCode::CONFLICT, "too_many")
            }
            TenantsError::LivesTooLong | TenantsError::Rate(_) => {
                Self::plain(StatusCode::BAD_REQUEST, "validation_error")
            }
            TenantsError::Random(_) | TenantsError::Store(_) => {
                Self::of_failure(FailureKind::Retryable, "change_failed")
            }
        }
    }

    /// A request that cannot be read is 400, one in clear that must not be 403, a replayed one 409, and one for another
    /// key or without a workflow 422.
    fn of_open(error: &OpenError) -> Self {
        match error {
            OpenError::Malformed(_) | OpenError::MissingFields | OpenError::Field(_) | OpenError::Execute(_) => {
                Self::plain(StatusCode::BAD_REQUEST, "invalid_request")
            }
            OpenError::Unopenable => Self::plain(StatusCode::BAD_REQUEST, "invalid_ciphertext"),
            OpenError::PlaintextRefused => Self::plain(StatusCode::FORBIDDEN, "encryption_required"),
            OpenError::Replayed => Self::plain(StatusCode::CONFLICT, "replayed"),
            OpenError::Stale(_) => Self::plain(StatusCode::CONFLICT, "stale"),
            OpenError::UnknownKey { .. } => Self::plain(StatusCode::UNPROCESSABLE_ENTITY, "unknown_kid"),
            OpenError::NoWorkflow { .. } => Self::plain(StatusCode::UNPROCESSABLE_ENTITY, "invalid_workflow"),
            OpenError::NoKey => Self::plain(StatusCode::SERVICE_UNAVAILABLE, "no_key"),
            OpenError::Host { .. } => Self::of_failure(FailureKind::Retryable, "open_failed"),
        }
    }

    fn of_queue(refusal: QueueRefusal) -> Self {
        match refusal {
            QueueRefusal::Full { retry_after } => {
                Self::later(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", whole_seconds(retry_after))
            }
            QueueRefusal::Draining => Self::later(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", SOON),
        }
    }

    fn of_body(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge { .. } => Self::plain(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large"),
            BodyError::TooSlow(_) => Self::plain(StatusCode::REQUEST_TIMEOUT, "request_timeout"),
            BodyError::Type | BodyError::Encoding => {
                Self::plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type")
            }
            BodyError::Broken => Self::plain(StatusCode::BAD_REQUEST, "invalid_request"),
            BodyError::Crowded => Self::later(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", SOON),
        }
    }
}

fn whole_seconds(span: Duration) -> u64 {
    let up = u64::from(span.subsec_nanos() > 0);
    span.as_secs().saturating_add(up).max(1)
}

impl ApiError {
    fn look(&self) -> Look {
        const INVALID: Look = Look::plain(StatusCode::BAD_REQUEST, "validation_error");
        const NOT_FOUND: Look = Look::plain(StatusCode::NOT_FOUND, "not_found");
        match self {
            ApiError::Body(error) => Look::of_body(*error),
            ApiError::Json(_) => Look::plain(StatusCode::BAD_REQUEST, "invalid_request"),
            ApiError::Id => Look::plain(StatusCode::BAD_REQUEST, "invalid_id"),
            ApiError::Env(_) | ApiError::SetUpInvalid(_) | ApiError::SecretInvalid(_) => INVALID,
            ApiError::Secret(CredentialRefused::Absent(_)) => NOT_FOUND,
            ApiError::Secret(CredentialRefused::Full(_)) => Look::plain(StatusCode::CONFLICT, "too_many_secrets"),
            ApiError::Secret(CredentialRefused::Host { kind, .. }) => Look::of_failure(*kind, "secret_failed"),
            ApiError::SetUp(SetUpError::Invalid(_) | SetUpError::Source(_)) => INVALID,
            ApiError::SetUp(SetUpError::Absent(_)) => NOT_FOUND,
            ApiError::SetUp(SetUpError::Busy(_)) => Look::later(StatusCode::CONFLICT, "update_in_progress", SOON),
            ApiError::SetUp(SetUpError::Refused(refusal)) | ApiError::Execute(ExecuteError::Refused(refusal)) => {
                Look::of_refusal(*refusal)
            }
            ApiError::SetUp(SetUpError::Exceeded(exceeded))
            | ApiError::Execute(ExecuteError::Exceeded(exceeded))
            | ApiError::Exceeded(exceeded) => Look::of_exceeded(*exceeded),
            ApiError::Scope(_) => Look::plain(StatusCode::FORBIDDEN, "missing_scope"),
            ApiError::NotTheOperator | ApiError::NotTheOwner => Look::plain(StatusCode::FORBIDDEN, "operator_only"),
            ApiError::Tenants(error) => Look::of_tenants(error),
            ApiError::TenantName(_) | ApiError::NotA(_) => INVALID,
            ApiError::NoToken => NOT_FOUND,
            ApiError::SetUp(SetUpError::Host { kind, .. }) => Look::of_failure(*kind, "setup_failed"),
            ApiError::Execute(ExecuteError::Host { kind, .. }) => Look::of_failure(*kind, "execution_failed"),
            ApiError::Delete(DeleteError::Host { kind, .. }) => Look::of_failure(*kind, "delete_failed"),
            ApiError::Query(_) => Look::of_failure(FailureKind::Permanent, "query_failed"),
            ApiError::Execute(ExecuteError::Absent(_)) | ApiError::Delete(DeleteError::Absent(_)) => NOT_FOUND,
            ApiError::Absent(_) | ApiError::Route | ApiError::NoJob | ApiError::NoCall => NOT_FOUND,
            ApiError::CallId => Look::plain(StatusCode::BAD_REQUEST, "invalid_id"),
            ApiError::Webhook(_) | ApiError::Key(_) => INVALID,
            ApiError::KeyReused => Look::plain(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused"),
            ApiError::AnswerNotKept(_) => Look::plain(StatusCode::CONFLICT, "answer_not_kept"),
            ApiError::CutOff(_) => Look::plain(StatusCode::CONFLICT, "call_cut_off"),
            ApiError::Desk(DeskError::Refused(refusal)) => Look::of_refusal(*refusal),
            ApiError::Desk(DeskError::Host { .. }) => Look::of_failure(FailureKind::Retryable, "desk_failed"),
            ApiError::Open(error) => Look::of_open(error),
            ApiError::Queue(refusal) => Look::of_queue(*refusal),
            ApiError::Job(_) => INVALID,
            ApiError::NoQueue => Look::plain(StatusCode::SERVICE_UNAVAILABLE, "no_queue"),
            ApiError::Unanswered(_) | ApiError::GivenUp => {
                Look::later(StatusCode::SERVICE_UNAVAILABLE, "unavailable", SOON)
            }
            ApiError::Method(_) => Look::plain(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            ApiError::Defect => Look::plain(StatusCode::INTERNAL_SERVER_ERROR, "internal_error"),
        }
    }

    /// The stable code of the error body.
    pub fn code(&self) -> &'static str {
        self.look().code
    }

    /// What a caller reads.
    pub fn body(&self) -> ErrorBody {
        ErrorBody { error: self.to_string(), code: Some(self.code().to_owned()), details: self.details() }
    }

    fn details(&self) -> Option<serde_json::Value> {
        match self {
            ApiError::SetUp(SetUpError::Source(faults)) => serde_json::to_value(faults).ok(),
            ApiError::AnswerNotKept(execution) | ApiError::CutOff(execution) => {
                Some(serde_json::json!({ "executionId": execution }))
            }
            ApiError::Open(OpenError::UnknownKey { current }) => {
                Some(serde_json::json!({ "kid": current.to_string() }))
            }
            ApiError::SetUp(SetUpError::Exceeded(exceeded))
            | ApiError::Execute(ExecuteError::Exceeded(exceeded))
            | ApiError::Exceeded(exceeded) => Some(serde_json::json!({
                "quota": exceeded.quota.as_str(), "limit": exceeded.limit, "used": exceeded.used
            })),
            ApiError::Scope(scope) => Some(serde_json::json!({ "scope": scope.as_str() })),
            _ => None,
        }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.look().status
    }

    fn error_response(&self) -> HttpResponse {
        let look = self.look();
        let mut response = answer::named(answer::json(look.status, &self.body()), look.code);
        if let Some(seconds) = look.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let ApiError::Method(allowed) = self {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_in_whole_seconds_and_never_as_none() {
        let seconds = [0, 1, 999, 1000, 1001, 2500].map(|millis| whole_seconds(Duration::from_millis(millis)));
        assert_eq!(seconds, [1, 1, 1, 1, 2, 3]);
    }
}
