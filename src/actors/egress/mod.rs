//! Egress: the owner of the proxy that sandboxes reach the network by.
//!
//! ```text
//!   started ──► serve every gate, on this actor's thread ──┬─ Drain ──► every connection cut, gone
//!                                                          └─ it ends or panics ──► the next life serves the same gates
//! ```
//!
//! It keeps the secrets that the proxy puts in, too: a change of them is written before it is answered, and is in force for
//! the next request.
//!
//! Gates are opened and closed by the sandbox engine, with the slots that they belong to; what goes through them lives and
//! dies with this actor. It decides nothing: `domain::egress` does.

use std::sync::Arc;

use actix::prelude::*;
use slog::{Logger, info, warn};

use crate::actors::seat::Seat;
use crate::domain::credential::CredentialFacts;
use crate::domain::failure::FailureKind;
use crate::messages::child::Drain;
use crate::messages::egress::{CredentialRefused, GetCredentials, GetEgress, PutCredential, RemoveCredential};
use crate::ports::clock::Clock;
use crate::ports::credentials::{Credentials, CredentialsError};
use crate::ports::egress::EgressProxy;
use crate::telemetry::error_chain;

#[cfg(test)]
mod tests;

/// What it works with.
#[derive(Clone)]
pub struct Deps {
    pub proxy: Arc<dyn EgressProxy>,
    pub credentials: Arc<dyn Credentials>,
    pub clock: Arc<dyn Clock>,
    pub log: Logger,
}

/// The actor.
pub struct Egress {
    deps: Deps,
    seat: Seat,
}

impl Egress {
    /// One life of it.
    pub fn new(deps: Deps, seat: Seat) -> Self {
        Self { deps, seat }
    }

    fn beat(&mut self) {
        self.seat.beat(self.deps.credentials.trouble().into_iter().collect());
    }
}

impl Actor for Egress {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.beat();
        ctx.run_interval(self.seat.beat_every(), |egress, _| egress.beat());
        let proxy = Arc::clone(&self.deps.proxy);
        let served = async move { proxy.serve().await }.into_actor(self);
        ctx.spawn(served.map(|(), egress, ctx| {
            warn!(egress.deps.log, "egress.ended");
            ctx.stop();
        }));
    }
}

impl Handler<Drain> for Egress {
    type Result = ();

    fn handle(&mut self, _: Drain, ctx: &mut Self::Context) {
        // The sandboxes were drained before: nothing is under way.
        self.seat.leave();
        ctx.stop();
    }
}

impl Handler<GetEgress> for Egress {
    type Result = MessageResult<GetEgress>;

    fn handle(&mut self, _: GetEgress, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.deps.proxy.picture())
    }
}

impl Handler<PutCredential> for Egress {
    type Result = ResponseFuture<Result<CredentialFacts, CredentialRefused>>;

    fn handle(&mut self, message: PutCredential, _: &mut Self::Context) -> Self::Result {
        let Deps { credentials, clock, log, .. } = self.deps.clone();
        Box::pin(async move {
            let put = credentials.put(message.credential, clock.wall()).await;
            let facts = put.map_err(|error| refused("keeping the secret", &error))?;
            info!(log, "secret.put"; "secret" => facts.name.as_str(), "hosts" => facts.hosts.len());
            Ok(facts)
        })
    }
}

impl Handler<RemoveCredential> for Egress {
    type Result = ResponseFuture<Result<(), CredentialRefused>>;

    fn handle(&mut self, message: RemoveCredential, _: &mut Self::Context) -> Self::Result {
        let Deps { credentials, log, .. } = self.deps.clone();
        Box::pin(async move {
            let removed = credentials.remove(&message.name).await;
            if !removed.map_err(|error| refused("removing the secret", &error))? {
                return Err(CredentialRefused::Absent(message.name));
            }
            info!(log, "secret.removed"; "secret" => message.name.as_str());
            Ok(())
        })
    }
}

impl Handler<GetCredentials> for Egress {
    type Result = MessageResult<GetCredentials>;

    fn handle(&mut self, _: GetCredentials, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.deps.credentials.list())
    }
}

fn refused(doing: &'static str, error: &CredentialsError) -> CredentialRefused {
    let kind = match error {
        CredentialsError::Full(count) => return CredentialRefused::Full(*count),
        CredentialsError::NoKey(_) => FailureKind::Permanent,
        CredentialsError::Sealing | CredentialsError::Store(_) => FailureKind::Retryable,
    };
    CredentialRefused::Host { doing, cause: error_chain(error).to_string(), kind }
}
