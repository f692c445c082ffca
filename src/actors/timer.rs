//! The one timer of an actor.

use std::time::Duration;

use actix::prelude::*;

use crate::domain::time::Moment;

/// It may be put forward, never back: whatever happens often would put it off for ever, and one that goes off too early
/// does no harm.
#[derive(Debug, Default)]
pub struct Timer(Option<(SpawnHandle, Moment)>);

impl Timer {
    /// Goes off in `wait` from `now`, unless it does so sooner. What it calls says [`Timer::went_off`] first.
    pub fn put_forward<A: Actor<Context = Context<A>>>(
        &mut self,
        now: Moment,
        wait: Duration,
        ctx: &mut Context<A>,
        ring: impl FnOnce(&mut A, &mut Context<A>) + 'static,
    ) {
        let due = now.after(wait);
        match self.0 {
            Some((_, armed)) if armed <= due => return,
            Some((later, _)) => drop(ctx.cancel_future(later)),
            None => {}
        }
        self.0 = Some((ctx.run_later(wait, ring), due));
    }

    pub fn went_off(&mut self) {
        self.0 = None;
    }
}
