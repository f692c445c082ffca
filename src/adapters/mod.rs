//! The world behind the ports, one folder for each foreign thing.

pub mod clock;
