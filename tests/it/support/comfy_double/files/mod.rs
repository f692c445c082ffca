//! Small files that begin as files of their kind do.

pub mod media;
pub mod png;

/// A JPEG of 64 by 64 pixels.
pub const JPEG: &[u8] = include_bytes!("preview.jpg");
