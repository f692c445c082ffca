//! Base64 in its one canonical form: the standard alphabet, padded, without spaces, unused bits zero.
//!
//! A sealed job must have one spelling only. What decodes two ways can be told apart by one part and not by another, and
//! a replay that is keyed by text would pass.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// The text is not the canonical padded base64 of as many bytes as are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not canonical padded base64 of the wanted length")]
pub struct NotBase64;

/// The bytes that `text` stands for.
///
/// # Errors
/// Text in any other spelling than [`encode`] has for those bytes.
pub fn decode(text: &str) -> Result<Vec<u8>, NotBase64> {
    STANDARD.decode(text).map_err(|_| NotBase64)
}

/// The `N` bytes that `text` stands for, written to `bytes`; nothing is kept elsewhere.
///
/// # Errors
/// Text in any other spelling than [`encode`] has, or of another number of bytes. `bytes` may be half written then.
pub fn decode_into<const N: usize>(text: &str, bytes: &mut [u8; N]) -> Result<(), NotBase64> {
    let length = STANDARD.decode_slice(text, bytes).map_err(|_| NotBase64)?;
    if length == N { Ok(()) } else { Err(NotBase64) }
}

/// The canonical text of `bytes`.
pub fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The text of `bytes` in the alphabet that stands in an address unchanged, without padding. It is written only, and
/// never read back.
pub fn url_safe(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_text_only_stands_for_some_bytes() {
        assert_eq!(decode("AQ=="), Ok(vec![1]));
        assert_eq!(decode(""), Ok(vec![]));
        for other in ["AQ", "AQ=", "AR==", "AQ==\n", " AQ==", "A Q==", "AQ===", "AQ==AQ==", "-_8=", "@@@@", "AQ\u{0}="]
        {
            assert_eq!(decode(other), Err(NotBase64), "{other:?}");
        }
    }

    #[test]
    fn the_length_must_be_exact() {
        let mut bytes = [0; 4];
        assert_eq!(decode_into("AAECAw==", &mut bytes), Ok(()));
        assert_eq!(bytes, [0, 1, 2, 3]);
        for other in ["AAEC", "AAECAwQ=", "AAECAwQFBgc="] {
            assert_eq!(decode_into(other, &mut bytes), Err(NotBase64), "{other}");
        }
    }

    proptest! {
        #[test]
        fn what_decodes_encodes_to_the_same_text(text in "[A-Za-z0-9+/]{0,7}={0,2}") {
            if let Ok(bytes) = decode(&text) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
