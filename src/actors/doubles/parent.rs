//! Stands where the Supervisor would.

use std::time::Duration;

use actix::prelude::*;

use crate::actors::seat::Seat;
use crate::domain::restart::{Exit, Generation};
use crate::messages::supervisor::{Beat, ChildDown};

/// What a child told its parent.
#[derive(Debug, Clone, Default)]
pub struct Parent {
    pub beats: usize,
    /// Of the last beat.
    pub complaints: Vec<String>,
    /// How its lives ended.
    pub exits: Vec<Exit>,
}

impl Actor for Parent {
    type Context = Context<Self>;
}

impl Handler<Beat> for Parent {
    type Result = ();

    fn handle(&mut self, beat: Beat, _: &mut Self::Context) {
        self.beats += 1;
        self.complaints = beat.complaints;
    }
}

impl Handler<ChildDown> for Parent {
    type Result = ();

    fn handle(&mut self, down: ChildDown, _: &mut Self::Context) {
        self.exits.push(down.exit);
    }
}

/// Asks for all that was told until now.
#[derive(Message)]
#[rtype(result = "Parent")]
pub struct Told;

impl Handler<Told> for Parent {
    type Result = MessageResult<Told>;

    fn handle(&mut self, _: Told, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.clone())
    }
}

/// A first life's seat under this parent.
pub fn seat(parent: &Addr<Parent>, name: &'static str) -> Seat {
    Seat::new(parent, name, Generation(1), Duration::from_secs(1))
}

/// A seat under a parent that nobody asks.
pub fn seat_alone() -> Seat {
    seat(&Parent::default().start(), "test")
}
