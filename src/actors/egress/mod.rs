//! Egress: the owner of the proxy that sandboxes reach the network by.
//!
//! ```text
//!   started ──► serve every gate, on this actor's thread ──┬─ Drain ──► every connection cut, gone
//!                                                          └─ it ends or panics ──► the next life serves the same gates
//! ```
//!
//! Gates are opened and closed by the sandbox engine, with the slots that they belong to; what goes through them lives and
//! dies with this actor. It decides nothing: `domain::egress` does.

use std::sync::Arc;

use actix::prelude::*;
use slog::{Logger, warn};

use crate::actors::seat::Seat;
use crate::messages::child::Drain;
use crate::messages::egress::GetEgress;
use crate::ports::egress::EgressProxy;

#[cfg(test)]
mod tests;

/// What it works with.
#[derive(Clone)]
pub struct Deps {
    pub proxy: Arc<dyn EgressProxy>,
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
}

impl Actor for Egress {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.seat.beat(Vec::new());
        ctx.run_interval(self.seat.beat_every(), |egress, _| egress.seat.beat(Vec::new()));
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
