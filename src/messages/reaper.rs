//! The Reaper's contract.

use actix::prelude::*;

use crate::domain::garbage::ReaperPicture;

/// Look over everything now, instead of at the next turn. Answers when it is done.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "ReaperPicture")]
pub struct Reconcile;

/// What has been collected so far?
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "ReaperPicture")]
pub struct GetReaper;
