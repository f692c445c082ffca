//! What the core needs from the world, each as a trait with its contract in prose.
//!
//! Requests are plain values, and what is privileged (sandboxes, processes, cgroups) is asked for by id and by
//! passed descriptors, so that those adapters can move into a small root helper.

pub mod bucket;
pub mod call_book;
pub mod cgroup;
pub mod clock;
pub mod comfy;
pub mod credentials;
pub mod egress;
pub mod fetch;
pub mod gpu;
pub mod images;
pub mod job_queue;
pub mod job_source;
pub mod notify;
pub mod packages;
pub mod process;
pub mod replay;
pub mod revisions;
pub mod sandbox;
pub mod store;
pub mod tenant_store;
pub mod tenants;
pub mod vault;
pub mod volumes;
pub mod webhook;
