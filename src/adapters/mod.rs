//! The foreign things, one folder each, behind the traits of `ports`.
pub mod cgroup;
pub mod process;
pub mod runsc;
pub mod volumes;
