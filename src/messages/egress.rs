//! The Egress actor's contract.

use actix::prelude::*;

use crate::domain::egress::EgressPicture;

/// What went out of the sandboxes so far?
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "EgressPicture")]
pub struct GetEgress;
