//! The world behind the ports, one folder for each foreign thing.

pub mod bucket;
pub mod cgroup;
pub mod clock;
pub mod comfy;
pub mod credentials;
#[cfg(test)]
pub mod doubles;
pub mod egress;
pub mod fetch;
pub mod gpu;
pub mod images;
pub mod keyring;
pub mod local_queue;
pub mod process;
#[cfg(test)]
pub mod replay_contract;
pub mod replay_log;
pub mod runpod;
pub mod runsc;
pub mod sandboxes_off;
pub mod sqlite;
pub mod systemd;
pub mod tenants;
pub mod volumes;
pub mod webhook;
