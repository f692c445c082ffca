//! The actors' typed contracts, one file for each actor.
//!
//! Imperative names are commands, past tense is a fact, `Get…` is a question. A command that changes state is sent
//! by a task of its own and not by the request that asked for it, since actix skips a message whose sender is gone.

pub mod call_desk;
pub mod child;
pub mod comfy_process;
pub mod crypto;
pub mod egress;
pub mod handle;
pub mod images;
pub mod queue_ingress;
pub mod reaper;
pub mod sandbox_pool;
pub mod supervisor;
