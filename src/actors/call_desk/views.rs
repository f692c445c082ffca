//! How calls stand, for whoever asks.

use std::sync::Arc;

use actix::prelude::*;

use super::{CallDesk, host};
use crate::domain::desk::ExecutionView;
use crate::messages::call_desk::{DeskError, GetExecution, GetExecutions};

impl Handler<GetExecution> for CallDesk {
    type Result = ResponseFuture<Result<Option<ExecutionView>, DeskError>>;

    fn handle(&mut self, message: GetExecution, _: &mut Self::Context) -> Self::Result {
        let GetExecution { execution, tenant } = message;
        let (book, kept) = (Arc::clone(&self.deps.book), self.answers.get(execution));
        Box::pin(async move {
            let view = book.view(execution).await.map_err(|error| host("reading the call", &error))?;
            let view = view.filter(|view| view.tenant == tenant);
            // An answer is given when its end is recorded, and not before.
            Ok(view.map(|view| match view.ended_at {
                Some(_) => ExecutionView { answer: view.answer.or(kept), ..view },
                None => ExecutionView { answer: None, ..view },
            }))
        })
    }
}

impl Handler<GetExecutions> for CallDesk {
    type Result = ResponseFuture<Result<Vec<ExecutionView>, DeskError>>;

    fn handle(&mut self, message: GetExecutions, _: &mut Self::Context) -> Self::Result {
        let GetExecutions { tenant, environment, limit } = message;
        let book = Arc::clone(&self.deps.book);
        Box::pin(async move {
            let views = book.views(&tenant, environment, limit).await;
            views.map_err(|error| host("listing the calls", &error))
        })
    }
}
