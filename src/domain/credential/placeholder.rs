//! What a sandbox sees instead of a value, and how the two are exchanged in a header.

use crate::domain::base64;

/// How every placeholder begins.
const PREFIX: &str = "cloister-secret-";
/// The scheme of `Authorization` that carries its words as base64 (RFC 7617).
const BASIC: &[u8] = b"basic ";

/// Stands for a value in one sandbox. It is worth nothing elsewhere: only that sandbox's way out knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placeholder(String);

impl Placeholder {
    /// `random`: fresh bits, so that no other sandbox's can be guessed.
    pub fn new(random: u128) -> Self {
        Self(format!("{PREFIX}{random:032x}"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there may be a placeholder in a header's value: then it is worth a look.
    pub fn may_be_in(value: &[u8]) -> bool {
        find(value, PREFIX.as_bytes()).is_some() || is_basic(value)
    }
}

/// The header's value with `value` wherever the placeholder stood; None where it stands nowhere.
pub fn put_in(header: &[u8], placeholder: &Placeholder, value: &[u8]) -> Option<Vec<u8>> {
    exchange(header, placeholder.0.as_bytes(), value)
}

/// The same for an `Authorization: Basic …`, in what its base64 stands for.
pub fn put_into_basic(header: &[u8], placeholder: &Placeholder, value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, words) = header.split_at_checked(BASIC.len()).filter(|_| is_basic(header))?;
    let words = base64::decode(std::str::from_utf8(words).ok()?.trim_matches(' ')).ok()?;
    let words = exchange(&words, placeholder.0.as_bytes(), value)?;
    Some([scheme, base64::encode(&words).as_bytes()].concat())
}

/// The header's value with the placeholder wherever `value` stood; None where it stands nowhere. Values of a few bytes
/// stand everywhere, and are left alone.
pub fn take_out(header: &[u8], placeholder: &Placeholder, value: &[u8]) -> Option<Vec<u8>> {
    const LEAST: usize = 8;
    if value.len() < LEAST { None } else { exchange(header, value, placeholder.0.as_bytes()) }
}

fn is_basic(header: &[u8]) -> bool {
    header.get(..BASIC.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(BASIC))
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn exchange(text: &[u8], from: &[u8], to: &[u8]) -> Option<Vec<u8>> {
    let mut rest = text;
    let mut made = Vec::new();
    while let Some(at) = find(rest, from) {
        made.extend_from_slice(rest.get(..at)?);
        made.extend_from_slice(to);
        rest = rest.get(at + from.len()..)?;
    }
    if rest.len() == text.len() {
        return None;
    }
    made.extend_from_slice(rest);
    Some(made)
}
