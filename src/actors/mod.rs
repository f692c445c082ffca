//! The shells around the pure machines of `domain`: a handler turns a message into an event, steps, and performs
//! the effects.

pub mod call_desk;
pub mod comfy_process;
pub mod crypto;
#[cfg(test)]
pub mod doubles;
pub mod egress;
pub mod images;
pub mod queue_ingress;
pub mod reaper;
pub mod sandbox_pool;
pub mod seat;
pub mod supervisor;
pub mod timer;
