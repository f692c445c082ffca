//! Runtimes as images: how one is named, what of it is for this host, what of a layer may be written, and when a new one
//! takes the place of the one before it.
//!
//! ```text
//!   source ─► digest of the manifest ─► config and layers ─► root file system ─► trials ─► it serves
//! ```
//!
//! Everything that comes from outside is read strictly here, without I/O; `adapters::images` fetches and writes.

mod challenge;
mod config;
mod digest;
mod entry;
mod manifest;
mod reference;
mod rollout;

pub use challenge::Challenge;
pub use config::{ConfigError, ImageConfig};
pub use digest::Digest;
pub use entry::{EntryError, Name, link_target, name, plain_path};
pub use manifest::{Descriptor, Document, Manifest, ManifestError, choose};
pub use reference::{ImageSource, Reference, is_loopback};
pub use rollout::{Effect, Event, RolloutPicture, Rollouts};
