//! The envelope of an encrypted job, and what stands in it: how a job's `input` is read, strictly.
//!
//! ```text
//!   input ─read_input─┬─ Sealed (Envelope) ─► ports::vault ─► plaintext ─read_plaintext─┐
//!                     │                                                                 ├─► Order ─► Request
//!                     └─ Plain ─────────────────────────────────────────────────────────┘
//! ```
//!
//! What holds:
//! * one spelling: canonical base64, exact lengths, no key twice, and nothing in clear beside a sealed request;
//! * which of the two a request is says its own text, and what is neither is refused;
//! * no message of a parser leaves: the texts are ours, and quote nothing.

mod execute;
mod images;
mod input;
mod names;
mod options;
mod order;
mod plaintext;
mod prompt;

pub use input::{Input, Rules, read_input};
pub use names::{Envelope, EnvelopeVersion, Kid, NonceBytes, PublicKeyBytes, ReplayTag};
pub use plaintext::read_plaintext;

#[cfg(test)]
mod tests;
