//! NaCl boxes: keys, who may have one, and how it is opened and sealed. Pure computation.
//!
//!     epk ──Epk::admit──► Epk ─┐
//!                              ├─SecretKey::agree──► BoxKey ──open, seal, replay_tag
//!     server's SecretKey ──────┘
//!
//! What holds:
//! * on every key that is admitted, the derived key is libsodium's, bit by bit;
//! * a box is opened and sealed in the buffer it came in: the text exists once;
//! * a box that does not open leaves its buffer as it was, and says nothing but that;
//! * keys are wiped when they are dropped, and no `Debug` shows one.

mod agreement;
mod boxes;
mod epk;
mod keys;
mod stream;

pub use boxes::{BoxKey, NONCE_BYTES, Nonce, TAG_BYTES};
pub use epk::{Epk, Inadmissible};
pub use keys::{KEY_BYTES, NotAKey, PublicKey, SecretKey};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors_tests;
