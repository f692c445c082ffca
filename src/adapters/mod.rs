//! The world behind the ports, one folder for each foreign thing.

pub mod cgroup;
pub mod clock;
pub mod gpu;
pub mod process;
pub mod runsc;
pub mod sandboxes_off;
pub mod sqlite;
pub mod systemd;
pub mod volumes;
