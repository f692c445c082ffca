//! What becomes of a call, and the three ways to say it: as an answer, as a last event, as what is kept for whoever
//! asks again.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError as _};

use crate::api::answer;
use crate::api::dto::execution_json;
use crate::api::error::ApiError;
use crate::api::events::Last;
use crate::domain::desk::Answer;
use crate::domain::execution::ExecutionReport;
use crate::domain::time::WallTime;
use crate::messages::handle::HandleError;
use crate::messages::sandbox_pool::ExecuteError;

/// What the pool said.
pub type Told = Result<Result<ExecutionReport, ExecuteError>, HandleError>;

/// A call's end, as it is told.
pub enum Ending {
    Report {
        outcome: &'static str,
        json: String,
    },
    Failed(ApiError),
    /// It was told before, under the same key.
    Again(Answer),
}

/// A call's answer as the desk keeps it.
pub fn rendered(result: &Result<ExecutionReport, ExecuteError>, now: WallTime) -> Answer {
    Ending::of(Ok(result.clone()), now).kept()
}

impl Ending {
    /// Of what the pool said; `now` stands in where the sandbox gave no usable time.
    pub fn of(told: Told, now: WallTime) -> Self {
        let told = told.map_err(ApiError::from).and_then(|told| told.map_err(ApiError::from));
        match told {
            Ok(report) => Ending::Report { outcome: report.outcome.as_str(), json: execution_json(report, now) },
            Err(error) => Ending::Failed(error),
        }
    }

    /// As the answer to the request.
    pub fn respond(self) -> Result<HttpResponse, ApiError> {
        match self {
            Ending::Report { outcome, json } => Ok(answer::named(answer::raw(StatusCode::OK, json), outcome)),
            Ending::Failed(error) => Err(error),
            Ending::Again(kept) => Ok(answer::again(&kept)),
        }
    }

    /// As the last event of a stream.
    pub fn last(self) -> Last {
        match self {
            Ending::Report { json, .. } => Last { name: "result", json },
            Ending::Failed(error) => Last { name: "error", json: error.json() },
            Ending::Again(kept) => {
                let name = if kept.status == StatusCode::OK.as_u16() { "result" } else { "error" };
                Last { name, json: kept.body.to_string() }
            }
        }
    }

    /// As it is kept.
    pub fn kept(&self) -> Answer {
        match self {
            Ending::Report { json, .. } => Answer { status: StatusCode::OK.as_u16(), body: json.as_str().into() },
            Ending::Failed(error) => error.kept(),
            Ending::Again(kept) => kept.clone(),
        }
    }

    /// Whether the handler may have run: then asking again under the same key must not run it again.
    pub fn may_have_run(&self) -> bool {
        match self {
            Ending::Report { .. } | Ending::Again(_) => true,
            Ending::Failed(ApiError::Execute(error)) => error.may_have_begun(),
            Ending::Failed(ApiError::Unanswered(error)) => *error == HandleError::Lost,
            Ending::Failed(_) => false,
        }
    }
}

impl ApiError {
    /// The body as JSON text.
    pub fn json(&self) -> String {
        // Strings at most: nothing of it can fail to be written.
        serde_json::to_string(&self.body()).unwrap_or_default()
    }

    /// As it is kept.
    pub fn kept(&self) -> Answer {
        Answer { status: self.status_code().as_u16(), body: self.json().into() }
    }
}
