//! The envelope's fields, as they stand on the wire.

use std::fmt;
use std::str::FromStr;

/// A Curve25519 public key.
pub type PublicKeyBytes = [u8; 32];
/// A NaCl box's nonce.
pub type NonceBytes = [u8; 24];

/// Names one of a server's keys: the first 16 hex digits of SHA-256 of the public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kid(pub [u8; 8]);

/// A text that names no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a kid has 16 hexadecimal digits in lower case")]
pub struct NotAKid;

impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Kid {
    type Err = NotAKid;

    fn from_str(text: &str) -> Result<Self, NotAKid> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 16 || !text.bytes().all(is_digit) {
            return Err(NotAKid);
        }
        u64::from_str_radix(text, 16).map(|number| Self(number.to_be_bytes())).map_err(|_| NotAKid)
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
