//! The Images actor's contract.

use actix::prelude::*;

use crate::domain::image::RolloutPicture;

/// Look again what the runtimes' settings stand for: a tag may have moved, an archive may be another.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct CheckImages;

/// How does each runtime's image stand?
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<RolloutPicture>")]
pub struct GetImages;
