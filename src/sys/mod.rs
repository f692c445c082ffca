//! Safe wrappers of system calls: the only room with `unsafe` in it.
pub mod beneath;
pub mod children;
pub mod environ;
pub mod guarded;
pub mod in_root;
pub mod marked;
pub mod mounts;
pub mod pidfd;
pub mod salsa;
pub mod scheduling;
pub mod secret;
pub mod spawn;
pub mod tree;
pub mod watch;
pub mod wipe;
