//! Idempotency keys: who holds one, and who waits for it.

use std::sync::Arc;

use actix::prelude::*;
use slog::warn;
use tokio::sync::oneshot;

use super::{CallDesk, Deps, host};
use crate::domain::desk::{Answer, Claimed, Fingerprint, KeyId, Subject};
use crate::domain::id::ExecutionId;
use crate::domain::pool::Refusal;
use crate::messages::call_desk::{Claim, ClaimKey, DeskError, ReleaseKey, SettleKey};
use crate::ports::store::StoreError;
use crate::telemetry::error_chain;

/// The most requests that wait for a key that somebody else holds.
const MOST_WAITING: usize = 1000;
const WAIT: std::time::Duration = std::time::Duration::from_secs(1);

type Reply = oneshot::Sender<Result<Claim, DeskError>>;

/// A key that is held, or about to be.
pub(super) struct Claiming {
    fingerprint: Fingerprint,
    subject: Subject,
    waiting: Vec<Reply>,
}

impl Handler<ClaimKey> for CallDesk {
    type Result = ResponseFuture<Result<Claim, DeskError>>;

    fn handle(&mut self, message: ClaimKey, ctx: &mut Self::Context) -> Self::Result {
        let ClaimKey { key, fingerprint, subject } = message;
        let (reply, answer) = oneshot::channel();
        let waiting: usize = self.keys.values().map(|held| held.waiting.len()).sum();
        match self.keys.get_mut(&key) {
            _ if self.drained => drop(reply.send(Err(Refusal::Draining.into()))),
            Some(held) if held.fingerprint != fingerprint => drop(reply.send(Ok(Claim::Other))),
            Some(_) if waiting >= MOST_WAITING => {
                drop(reply.send(Err(Refusal::QueueFull { retry_after: WAIT }.into())));
            }
            Some(held) => held.waiting.push(reply),
            None => {
                let held = Claiming { fingerprint: fingerprint.clone(), subject, waiting: Vec::new() };
                self.keys.insert(key.clone(), held);
                let work = claim(self.deps.clone(), key.clone(), fingerprint, subject);
                self.spawn(ctx, work, move |desk, claimed, ctx| {
                    desk.note_claim(key, claimed, reply);
                    desk.leave_when_drained(ctx);
                });
            }
        }
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(stopped())) })
    }
}

impl CallDesk {
    fn note_claim(&mut self, key: KeyId, claimed: Result<Found, StoreError>, reply: Reply) {
        self.note(&claimed);
        let told = match claimed {
            Ok(Found::Held) => {
                drop(reply.send(Ok(Claim::Held)));
                return;
            }
            Ok(Found::Known(claim)) => Ok(claim),
            Ok(Found::Answered(execution, stored)) => Ok(match stored.or_else(|| self.answers.get(execution)) {
                Some(answer) => Claim::Answered(answer),
                None => Claim::Unkept(execution),
            }),
            Err(error) => Err(host("claiming the idempotency key", &error)),
        };
        self.tell_waiting(&key, &told);
        drop(reply.send(told));
    }

    /// Nobody holds the key any more.
    fn tell_waiting(&mut self, key: &KeyId, told: &Result<Claim, DeskError>) -> Option<Subject> {
        let held = self.keys.remove(key)?;
        for waiting in held.waiting {
            drop(waiting.send(told.clone()));
        }
        Some(held.subject)
    }
}

impl Handler<SettleKey> for CallDesk {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, message: SettleKey, ctx: &mut Self::Context) -> Self::Result {
        let SettleKey { key, answer } = message;
        let (now, keep_output) = (self.deps.clock.wall(), self.deps.settings.keep_output);
        // Kept in memory at once: whoever comes while it is being written may find the key settled.
        if let (Some(answer), Some(Subject::Call(_, execution))) =
            (&answer, self.keys.get(&key).map(|held| held.subject))
        {
            self.answers.put(execution, answer.clone(), now);
        }
        let (book, written) = (Arc::clone(&self.deps.book), answer.clone().filter(|_| keep_output));
        let (reply, told) = oneshot::channel();
        let work = async move {
            let stored = book.settle_key(&key, written.as_ref(), now).await;
            (key, stored)
        };
        self.spawn(ctx, work, move |desk, (key, stored), ctx| {
            desk.note(&stored);
            if let Err(error) = &stored {
                warn!(desk.deps.log, "desk.key_unsettled"; "error" => error_chain(error));
            }
            let subject = desk.keys.get(&key).map(|held| held.subject);
            let claim = match (subject, answer) {
                (Some(Subject::Call(..)), Some(answer)) => Some(Claim::Answered(answer)),
                (Some(Subject::Accepted(_, execution)), _) => Some(Claim::Accepted(execution)),
                (Some(Subject::SetUp(environment)), _) => Some(Claim::Made(environment)),
                _ => None,
            };
            if let Some(claim) = claim {
                desk.tell_waiting(&key, &Ok(claim));
            }
            let _ = reply.send(());
            desk.leave_when_drained(ctx);
        });
        Box::pin(async move { told.await.unwrap_or(()) })
    }
}

impl Handler<ReleaseKey> for CallDesk {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, message: ReleaseKey, ctx: &mut Self::Context) -> Self::Result {
        let ReleaseKey { key, answer } = message;
        let book = Arc::clone(&self.deps.book);
        let (reply, told) = oneshot::channel();
        let work = async move {
            let stored = book.release_key(&key).await;
            (key, stored)
        };
        self.spawn(ctx, work, move |desk, (key, stored), ctx| {
            desk.note(&stored);
            desk.tell_waiting(&key, &Ok(Claim::Answered(answer)));
            let _ = reply.send(());
            desk.leave_when_drained(ctx);
        });
        Box::pin(async move { told.await.unwrap_or(()) })
    }
}

/// What a look at the book found.
enum Found {
    Held,
    Known(Claim),
    /// The answer to this call, where the book has it.
    Answered(ExecutionId, Option<Answer>),
}

/// Claims the key; one that was cut off before anything began is claimed anew.
async fn claim(deps: Deps, key: KeyId, fingerprint: Fingerprint, subject: Subject) -> Result<Found, StoreError> {
    loop {
        let (now, most) = (deps.clock.wall(), deps.settings.keys);
        let known = match deps.book.claim_key(&key, &fingerprint, subject, now, most).await? {
            Claimed::New => return Ok(Found::Held),
            Claimed::Known { fingerprint: theirs, .. } if theirs != fingerprint => {
                return Ok(Found::Known(Claim::Other));
            }
            Claimed::Known { subject, settled, .. } => (subject, settled),
        };
        match known {
            (Subject::SetUp(environment), true) => return Ok(Found::Known(Claim::Made(environment))),
            (Subject::Accepted(_, execution), true) => return Ok(Found::Known(Claim::Accepted(execution))),
            (Subject::Call(_, execution), true) => {
                let view = deps.book.view(execution).await?;
                return Ok(Found::Answered(execution, view.and_then(|view| view.answer)));
            }
            // Nobody settled it, and nobody here holds it: an earlier life did. Whatever is recorded had begun.
            (Subject::SetUp(environment), false) if deps.book.is_ready(environment).await? => {
                return Ok(Found::Known(Claim::Made(environment)));
            }
            (Subject::SetUp(_), false) => {}
            (Subject::Call(_, execution) | Subject::Accepted(_, execution), false) => {
                match deps.book.view(execution).await? {
                    Some(view) if view.accepted_at.is_some() => return Ok(Found::Known(Claim::Accepted(execution))),
                    Some(_) => return Ok(Found::Known(Claim::CutOff(execution))),
                    None => {}
                }
            }
        }
        deps.book.release_key(&key).await?;
    }
}

fn stopped() -> DeskError {
    DeskError::Host { doing: "claiming the idempotency key", cause: "the desk was restarted under it".to_owned() }
}
