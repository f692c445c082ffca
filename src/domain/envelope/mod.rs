//! The envelope of an encrypted job: its fields, as they stand on the wire.

use std::fmt;

/// A Curve25519 public key.
pub type PublicKeyBytes = [u8; 32];
/// A NaCl box's nonce.
pub type NonceBytes = [u8; 24];

/// Names one of a server's keys: the first 16 hex digits of SHA-256 of the public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kid(pub [u8; 8]);

impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Which envelope a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvelopeVersion {
    V1,
    V2,
}

/// The outer part of a sealed request, parsed; not yet opened.
#[derive(Clone)]
pub struct Envelope {
    pub version: EnvelopeVersion,
    pub epk: PublicKeyBytes,
    pub nonce: NonceBytes,
    /// At least 16 bytes: the Poly1305 tag first.
    pub ciphertext: Vec<u8>,
    pub kid: Option<Kid>,
}

/// Recognises a request by what its box is made of: a hash of the derived key and the nonce, never of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplayTag(pub [u8; 32]);
