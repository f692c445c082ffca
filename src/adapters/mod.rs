//! The foreign things, one folder each, behind the traits of `ports`.
pub mod runsc;
