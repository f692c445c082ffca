//! How calls stand, for whoever asks.

use std::sync::Arc;

use actix::prelude::*;

use super::{CallDesk, host};
use crate::domain::desk::ExecutionView;
use crate::messages::call_desk::{DeskError, GetExecution, GetExecutions};

impl Handler<GetExecution> for CallDesk {
    type Result = ResponseActFuture<Self, Result<Option<ExecutionView>, DeskError>>;

    fn handle(&mut self, message: GetExecution, _: &mut Self::Context) -> Self::Result {
        let GetExecution { execution, tenant } = message;
        let book = Arc::clone(&self.deps.book);
        let read = async move { book.view(execution).await }.into_actor(self);
        Box::pin(read.map(move |view, desk, _| {
            let view = view.map_err(|error| host("reading the call", &error))?;
            let view = view.filter(|view| view.tenant == tenant);
            // An answer is given when its end is recorded, and not before. Memory has it since before that: it is looked
            // at last, for the call may have ended while its row was read.
            Ok(view.map(|view| match view.ended_at {
                Some(_) => ExecutionView { answer: view.answer.or_else(|| desk.answers.get(execution)), ..view },
                None => ExecutionView { answer: None, ..view },
            }))
        }))
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
