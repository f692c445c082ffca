//! Webhooks: told when a call has ended, again after a failure, until they are given up.

use std::sync::Arc;

use actix::prelude::*;
use slog::{info, warn};

use super::CallDesk;
use crate::domain::desk::HookState;
use crate::domain::time::WallTime;
use crate::domain::time::whole_millis;
use crate::domain::webhook::wait_after;
use crate::ports::call_book::DueHook;
use crate::ports::webhook::WebhookError;

/// Webhooks that are told at once.
const AT_ONCE: usize = 8;

impl CallDesk {
    /// Begins to tell what is due. Asked with every beat, and when a call has ended.
    pub(super) fn tell_due(&mut self, ctx: &mut Context<Self>) {
        if self.telling.len() >= AT_ONCE {
            return;
        }
        let (book, now) = (Arc::clone(&self.deps.book), self.deps.clock.wall());
        // As many again as are being told: those are due, too, until that is over.
        let limit = u32::try_from(2 * AT_ONCE).unwrap_or(u32::MAX);
        self.spawn(ctx, async move { book.due_hooks(now, limit).await }, |desk, due, ctx| {
            // A book that cannot be read is asked again with the next beat.
            for hook in due.unwrap_or_default() {
                if desk.telling.len() < AT_ONCE && desk.telling.insert(hook.execution) {
                    desk.tell(hook, ctx);
                }
            }
        });
    }

    fn tell(&mut self, hook: DueHook, ctx: &mut Context<Self>) {
        let DueHook { execution, webhook, attempts } = hook;
        let (book, teller, clock) =
            (Arc::clone(&self.deps.book), Arc::clone(&self.deps.teller), Arc::clone(&self.deps.clock));
        let (show, kept) = (self.deps.show, self.answers.get(execution));
        let most = self.deps.settings.webhook_attempts;
        let work = async move {
            // The call went with its environment: nobody is told of it.
            let mut view = book.view(execution).await.ok()??;
            let told_at = view.ended_at.unwrap_or(clock.wall());
            view.answer = view.answer.or(kept);
            let body = message(told_at, &show(view));
            let told = teller.tell(&webhook, &format!("msg_{execution}"), body, clock.wall()).await;
            let attempts = attempts + 1;
            let (state, again) = match &told {
                Ok(()) => (HookState::Delivered, None),
                Err(error) if error.may_pass() && attempts < most => {
                    let wait = i64::try_from(whole_millis(wait_after(attempts))).unwrap_or(i64::MAX);
                    (HookState::Owed, Some(WallTime(clock.wall().0.saturating_add(wait))))
                }
                Err(_) => (HookState::Failed, None),
            };
            let stored = book.note_hook(execution, attempts, state, again).await;
            Some((told, state, attempts, stored))
        };
        self.spawn(ctx, work, move |desk, done, ctx| {
            desk.telling.remove(&execution);
            let Some((told, state, attempts, stored)) = done else { return };
            desk.note(&stored);
            desk.log_telling(execution, told, state, attempts);
            desk.tell_due(ctx);
        });
    }

    fn log_telling(
        &self,
        execution: crate::domain::id::ExecutionId,
        told: Result<(), WebhookError>,
        state: HookState,
        attempts: u32,
    ) {
        let log = &self.deps.log;
        match told {
            Ok(()) => info!(log, "webhook.delivered"; "execution" => %execution, "attempts" => attempts),
            Err(error) if state == HookState::Failed => {
                warn!(log, "webhook.given_up"; "execution" => %execution, "attempts" => attempts, "error" => %error);
            }
            Err(error) => {
                info!(log, "webhook.failed"; "execution" => %execution, "attempts" => attempts, "error" => %error);
            }
        }
    }
}

/// The message of a call's end, after Standard Webhooks: a type, a time, the data.
fn message(at: WallTime, data: &str) -> String {
    format!(r#"{{"type":"execution.done","timestamp":"{}","data":{data}}}"#, at.to_rfc3339())
}
