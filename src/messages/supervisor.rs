//! The Supervisor's contract.

use actix::prelude::*;

use crate::domain::health::HealthPicture;
use crate::domain::restart::{ChildName, Exit, Generation};

/// A child is making progress. A child that does not beat within its deadline counts as hung.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Beat {
    pub child: ChildName,
    pub generation: Generation,
    /// What is wrong in the child's own eyes; empty when all is well. Named in readiness.
    pub complaints: Vec<String>,
}

/// A child has ended, told by its exit guard.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct ChildDown {
    pub child: ChildName,
    pub generation: Generation,
    pub exit: Exit,
}

/// How is everything?
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "HealthPicture")]
pub struct GetHealth;

/// Stop everything in order. A second one hurries.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Shutdown {
    pub hurry: bool,
}

/// This host can do nothing more for whoever gives it work: stop everything in order, then end with exit code 1, so
/// that whatever started the daemon puts another in its place.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Abandon {
    pub reason: String,
}
