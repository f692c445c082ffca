//! What goes back to a job's source.

use crate::domain::envelope::{Kid, NonceBytes};
use crate::domain::secret::Secret;

/// The final answer to a job, as a source posts it. RunPod's two fields: a body without `error` is a success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// JSON text of `output`.
    pub output: Option<Secret>,
    /// One plain text; never a JSON object, which RunPod would take for a success.
    pub error: Option<String>,
}

impl Answer {
    /// A success.
    pub fn done(output: Secret) -> Self {
        Self { output: Some(output), error: None }
    }

    /// A failure without more to say.
    pub fn failed(error: impl Into<String>) -> Self {
        Self { output: None, error: Some(error.into()) }
    }

    /// Bytes that it will take on the wire, about.
    pub fn size(&self) -> usize {
        self.output.as_ref().map_or(0, Secret::len) + self.error.as_ref().map_or(0, String::len) + 64
    }
}

/// A sealed text: the box from our key to the caller's.
#[derive(Clone)]
pub struct SealedPart {
    pub kid: Kid,
    pub nonce: NonceBytes,
    /// Poly1305 tag first.
    pub ciphertext: Vec<u8>,
}
