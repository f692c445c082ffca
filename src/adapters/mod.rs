//! The world as it really is: one module for each foreign thing, each behind a port. No adapter knows another.

pub mod clock;
pub mod sqlite;
pub mod systemd;
