//! What the core needs from the world, each as a trait with its contract in prose.
//!
//! Requests are plain values, and what is privileged (sandboxes, processes, cgroups) is asked for by id and by
//! passed descriptors, so that those adapters can move into a small root helper.

pub mod cgroup;
pub mod clock;
pub mod notify;
pub mod process;
pub mod sandbox;
pub mod store;
pub mod volumes;
