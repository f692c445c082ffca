//! Bytes of a user, or of a key's reach, that move by handle and cannot be logged.

use std::fmt;
use std::sync::Arc;

/// Plaintext on its way through the house. Cloning shares the bytes; `Debug` shows their number only. The allocator
/// wipes them when the last handle is dropped.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Arc<Vec<u8>>);

impl Secret {
    /// Takes the bytes over, without a copy.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(bytes))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text, when they are UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The bytes themselves: moved out when this is the only handle, else copied.
    pub fn into_bytes(self) -> Vec<u8> {
        Arc::try_unwrap(self.0).unwrap_or_else(|shared| (*shared).clone())
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

impl AsRef<[u8]> for Secret {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[redacted {} bytes]", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_moved_without_a_copy_and_shown_by_its_length_only() {
        let bytes = b"hunter2".to_vec();
        let at = bytes.as_ptr();
        let secret = Secret::new(bytes);
        assert_eq!(format!("{secret:?}"), "[redacted 7 bytes]");
        let moved = secret.into_bytes();
        assert_eq!(moved.as_ptr(), at);
    }
}
