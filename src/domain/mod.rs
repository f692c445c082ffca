//! Types and decisions, with no I/O, no clock and no actor in them.
//!
//! Every machine here has the shape `step(&mut self, event, now) -> Vec<Effect>`: the actors perform the
//! effects, and the property tests drive the very same function.

pub mod admission;
pub mod base64;
pub mod bucket;
pub mod credential;
pub mod desk;
pub mod egress;
pub mod envelope;
pub mod environment;
pub mod execution;
pub mod failure;
pub mod garbage;
pub mod health;
pub mod id;
pub mod image;
pub mod instance;
pub mod job;
pub mod json;
pub mod layout;
pub mod lease;
pub mod module_name;
pub mod module_specifier;
pub mod package;
pub mod package_set;
pub mod placement;
pub mod pool;
pub mod quota;
pub mod redacted;
pub mod registry_token;
pub mod replay;
pub mod restart;
pub mod sandbox;
pub mod secret;
pub mod tenant;
pub mod time;
pub mod webhook;
