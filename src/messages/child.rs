//! What the Supervisor says to each of its children.

use actix::prelude::*;

/// Take nothing new, finish what was accepted, then stop. Ends with `ChildDown{Requested}` by way of the exit guard.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Drain {
    /// True: cancel what is running instead of finishing it.
    pub hurry: bool,
}
