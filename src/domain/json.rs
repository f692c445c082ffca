//! Strict reading of JSON that strangers send.
//!
//! serde_json keeps the last of two equal keys, has no depth limit below a `RawValue`, and quotes the input in its
//! messages. Here equal keys are refused in the objects that we define, depth is counted over the bytes before
//! anything else, and a message names a field or a place, never a value.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

/// The deepest nesting of arrays and objects that is read.
pub const MAX_DEPTH: usize = 128;
/// The most keys of one object that are read, above every limit of the domain.
const MAX_KEYS: usize = 10_000;

/// Why a text is not a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the body is not UTF-8")]
    NotUtf8,
    #[error("the body is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("the body is not valid JSON (line {line}, column {column})")]
    Syntax { line: usize, column: usize },
    #[error("{field} must be {expected}")]
    Type { field: String, expected: &'static str },
    #[error("{field} has the key {key:?} twice")]
    DuplicateKey { field: String, key: String },
}

/// An object's fields, each once, not yet read.
#[derive(Debug)]
pub struct Fields<'a> {
    prefix: &'static str,
    fields: BTreeMap<String, &'a RawValue>,
}

impl<'a> Fields<'a> {
    /// Reads a whole body, which must be an object.
    pub fn of_body(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(bytes).map_err(|_| Malformed::NotUtf8)?;
        if is_deeper_than(bytes, MAX_DEPTH) {
            return Err(Malformed::TooDeep);
        }
        Self::of_text(text, "the body", "")
    }

    /// Reads a value that stands in a text whose depth was counted already.
    pub fn of_value(value: &'a RawValue, name: &'static str) -> Result<Self, Malformed> {
        Self::of_text(value.get(), name, name)
    }

    /// Whether a field is there, and is not `null`.
    pub fn has(&self, name: &str) -> bool {
        self.fields.get(name).is_some_and(|raw| raw.get() != "null")
    }

    fn of_text(text: &'a str, name: &str, prefix: &'static str) -> Result<Self, Malformed> {
        Ok(Self { prefix, fields: pairs::<&RawValue>(text, name, "an object")? })
    }

    /// Takes a field out. Absent and `null` are the same, as they were in the first system.
    pub fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        self.fields.remove(name).filter(|raw| raw.get() != "null")
    }

    /// Takes a field of a plain type.
    pub fn read<T: DeserializeOwned>(&mut self, name: &str, expected: &'static str) -> Result<Option<T>, Malformed> {
        let Some(raw) = self.take(name) else { return Ok(None) };
        let wrong = |_| Malformed::Type { field: self.full(name), expected };
        serde_json::from_str(raw.get()).map(Some).map_err(wrong)
    }

    /// Takes a field that maps names to strings.
    pub fn strings(&mut self, name: &str, expected: &'static str) -> Result<BTreeMap<String, String>, Malformed> {
        match self.take(name) {
            None => Ok(BTreeMap::new()),
            Some(raw) => pairs(raw.get(), &self.full(name), expected),
        }
    }

    /// Takes a field that is an object whose keys are all known.
    pub fn strict<T: DeserializeOwned>(
        &mut self,
        name: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, Malformed> {
        let Some(raw) = self.take(name) else { return Ok(None) };
        Fields::of_text(raw.get(), &self.full(name), name)?;
        let wrong = |_| Malformed::Type { field: self.full(name), expected };
        serde_json::from_str(raw.get()).map(Some).map_err(wrong)
    }

    /// Takes a field that is an object of ours; keys that are not known are left alone.
    pub fn object(&mut self, name: &'static str) -> Result<Option<Fields<'a>>, Malformed> {
        let Some(raw) = self.take(name) else { return Ok(None) };
        Fields::of_text(raw.get(), &self.full(name), name).map(Some)
    }

    fn full(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }
}

/// The text of a JSON string, borrowed where nothing in it is escaped; none for any other value.
pub fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    let quoted = value.get();
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(quoted).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// True when arrays and objects in `text` are nested deeper than `limit`. Counts brackets outside of strings, so it
/// needs no stack and may count a text that is no JSON at all.
pub fn is_deeper_than(text: &[u8], limit: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut rest = text;
    loop {
        if in_string && !escaped {
            rest = past_plain(rest);
        }
        let Some((byte, after)) = rest.split_first() else { return false };
        rest = after;
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > limit {
            return true;
        }
    }
}

/// Skips what neither ends nor escapes a string, by blocks that the compiler looks at all at once: a sealed request is
/// one string of megabytes.
fn past_plain(text: &[u8]) -> &[u8] {
    let (blocks, _) = text.as_chunks::<64>();
    let is_plain = |block: &[u8; 64]| !block.iter().fold(false, |found, byte| found | matches!(byte, b'"' | b'\\'));
    let plain = blocks.iter().take_while(|block| is_plain(block)).count();
    text.get(plain * 64..).unwrap_or_default()
}

fn pairs<'a, T: Deserialize<'a>>(
    text: &'a str,
    field: &str,
    expected: &'static str,
) -> Result<BTreeMap<String, T>, Malformed> {
    let pairs: Pairs<T> = serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Data => Malformed::Type { field: field.to_owned(), expected },
        Category::Syntax | Category::Eof | Category::Io => {
            Malformed::Syntax { line: error.line(), column: error.column() }
        }
    })?;
    match pairs.twice {
        Some(key) => Err(Malformed::DuplicateKey { field: field.to_owned(), key: key.chars().take(64).collect() }),
        None => Ok(pairs.found),
    }
}

struct Pairs<T> {
    found: BTreeMap<String, T>,
    twice: Option<String>,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor(PhantomData))
    }
}

struct PairsVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for PairsVisitor<T> {
    type Value = Pairs<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<T>, A::Error> {
        let mut pairs = Pairs { found: BTreeMap::new(), twice: None };
        while let Some((key, value)) = map.next_entry::<String, T>()? {
            if pairs.found.len() >= MAX_KEYS {
                return Err(A::Error::custom("too many keys"));
            }
            match pairs.found.entry(key) {
                Entry::Vacant(place) => {
                    place.insert(value);
                }
                Entry::Occupied(known) => {
                    pairs.twice.get_or_insert_with(|| known.key().clone());
                }
            }
        }
        Ok(pairs)
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
