//! A child's tie to its Supervisor: it beats while the child lives, and tells of the end whatever way it comes.

use std::time::Duration;

use actix::prelude::*;

use crate::domain::restart::{ChildName, Exit, Generation};
use crate::messages::supervisor::{Beat, ChildDown};

/// Owned by the child actor. Dropping it is the child's end: the guard inside then tells the Supervisor, also while
/// a panic unwinds. actix's own supervisor does not restart an actor whose handler panicked, so this is what does.
pub struct Seat {
    beats: Recipient<Beat>,
    guard: ExitGuard,
    beat_every: Duration,
}

struct ExitGuard {
    parent: Recipient<ChildDown>,
    child: ChildName,
    generation: Generation,
    exit: Exit,
}

impl Seat {
    /// A seat for one life of a child.
    pub fn new<S>(supervisor: &Addr<S>, child: ChildName, generation: Generation, beat_every: Duration) -> Self
    where
        S: Actor<Context = Context<S>> + Handler<Beat> + Handler<ChildDown>,
    {
        let parent = supervisor.clone().recipient();
        let guard = ExitGuard { parent, child, generation, exit: Exit::Crashed };
        Self { beats: supervisor.clone().recipient(), guard, beat_every }
    }

    /// How often to beat.
    pub fn beat_every(&self) -> Duration {
        self.beat_every
    }

    /// Tells the Supervisor that the child makes progress, and what is wrong in its eyes.
    ///
    /// A beat that finds the mailbox full is lost; the deadline allows for several.
    pub fn beat(&self, complaints: Vec<String>) {
        let Self { guard, beats, .. } = self;
        drop(beats.try_send(Beat { child: guard.child, generation: guard.generation, complaints }));
    }

    /// From now on the child's end is one that was asked for.
    pub fn leave(&mut self) {
        self.guard.exit = Exit::Requested;
    }

    /// From now on the child's end is one that it chose, to be started anew at once.
    pub fn recycle(&mut self) {
        self.guard.exit = Exit::Recycled;
    }
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        // Should the mailbox be full, the missing beats will tell.
        drop(self.parent.try_send(ChildDown { child: self.child, generation: self.generation, exit: self.exit }));
    }
}
