//! Asks the layers for each key. The sections say which keys there are by asking for them; what nobody asked for is
//! unknown.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use super::error::Fault;
use super::layer::Layer;
use super::origin::Origin;
use super::suggest;
use super::value::{Raw, Rule, Value};
use crate::domain::image::ImageSource;

/// A key with the value that won.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "the property tests make values by it"))]
    pub(super) rule: Rule,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// Reads keys out of layers, from the weakest to the strongest, and gathers what is wrong.
pub(super) struct Reader<'a> {
    layers: &'a [Layer],
    pub(super) entries: Vec<Entry>,
    pub(super) faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(layers: &'a [Layer]) -> Self {
        Self { layers, entries: Vec::new(), faults: Vec::new() }
    }

    pub(super) fn text(&mut self, key: &'static str) -> String {
        match self.take(key, Rule::Text { may_be_empty: false }) {
            Value::Text(text) => text,
            _ => String::new(),
        }
    }

    /// An absolute path.
    pub(super) fn path(&mut self, key: &'static str) -> PathBuf {
        match self.take(key, Rule::Path { may_be_empty: false }) {
            Value::Path(path) => path,
            _ => PathBuf::new(),
        }
    }

    /// An absolute path, or none when it is left empty.
    pub(super) fn path_if_any(&mut self, key: &'static str) -> Option<PathBuf> {
        match self.take(key, Rule::Path { may_be_empty: true }) {
            Value::Path(path) if !path.as_os_str().is_empty() => Some(path),
            _ => None,
        }
    }

    /// An absolute path; when it is left empty, the one that follows from the key `from`.
    pub(super) fn path_or(&mut self, key: &'static str, from: &'static str, derived: &Path) -> PathBuf {
        if let Some(path) = self.path_if_any(key) {
            return path;
        }
        self.derive(key, from, Value::Path(derived.to_owned()));
        derived.to_owned()
    }

    /// Where an image comes from; when it is left empty, the directory that follows from the key `from`.
    pub(super) fn image_or(&mut self, key: &'static str, from: &'static str, derived: &Path) -> ImageSource {
        match self.take(key, Rule::Image) {
            Value::Path(path) if !path.as_os_str().is_empty() => ImageSource::Place(path),
            Value::Text(text) => text.parse().unwrap_or_else(|_| ImageSource::Place(derived.to_owned())),
            _ => {
                self.derive(key, from, Value::Path(derived.to_owned()));
                ImageSource::Place(derived.to_owned())
            }
        }
    }

    pub(super) fn address(&mut self, key: &'static str) -> IpAddr {
        match self.take(key, Rule::Address) {
            Value::Address(address) => address,
            _ => IpAddr::from([127, 0, 0, 1]),
        }
    }

    pub(super) fn switch(&mut self, key: &'static str) -> bool {
        matches!(self.take(key, Rule::Switch), Value::Switch(true))
    }

    /// A whole number within `range`, which must fit `T`.
    pub(super) fn whole<T: TryFrom<u64> + Default>(&mut self, key: &'static str, range: RangeInclusive<u64>) -> T {
        match self.take(key, Rule::Whole(range)) {
            Value::Whole(number) => T::try_from(number).unwrap_or_default(),
            _ => T::default(),
        }
    }

    pub(super) fn real(&mut self, key: &'static str, range: RangeInclusive<f64>) -> f64 {
        match self.take(key, Rule::Real(range)) {
            Value::Real(number) => number,
            _ => 0.0,
        }
    }

    pub(super) fn span(&mut self, key: &'static str, range: RangeInclusive<Duration>) -> Duration {
        match self.take(key, Rule::Span(range)) {
            Value::Span(span) => span,
            _ => Duration::ZERO,
        }
    }

    pub(super) fn choice(
        &mut self,
        key: &'static str,
        allowed: &'static [&'static str],
        also: &'static [(&'static str, &'static str)],
    ) -> String {
        match self.take(key, Rule::Choice { allowed, also }) {
            Value::Text(text) => text,
            _ => String::new(),
        }
    }

    pub(super) fn secrets(&mut self, key: &'static str) -> Vec<SecretString> {
        match self.take(key, Rule::Secrets) {
            Value::Secrets(tokens) => tokens,
            _ => Vec::new(),
        }
    }

    /// One secret, or none when it is left empty.
    pub(super) fn secret(&mut self, key: &'static str) -> Option<SecretString> {
        match self.take(key, Rule::Secret) {
            Value::Secret(secret) => secret,
            _ => None,
        }
    }

    /// A text that may be left empty.
    pub(super) fn text_if_any(&mut self, key: &'static str) -> Option<String> {
        match self.take(key, Rule::Text { may_be_empty: true }) {
            Value::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// An http or https address, or none when it is left empty.
    pub(super) fn url_if_any(&mut self, key: &'static str) -> Option<String> {
        match self.take(key, Rule::Url) {
            Value::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// Records that a key's value follows from somewhere else.
    pub(super) fn derive(&mut self, key: &'static str, from: &'static str, value: Value) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.key == key) {
            entry.value = value;
            entry.origin = Origin::Derived { from };
        }
    }

    /// Where the value of `key` came from. The key must have been read.
    pub(super) fn origin(&self, key: &str) -> Origin {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        entry.map_or(Origin::Default, |entry| entry.origin.clone())
    }

    /// Reports that the value of `key` cannot be.
    pub(super) fn refuse(&mut self, key: &str, text: &str) {
        self.faults.push(Fault::at(&self.origin(key), format!("{key}: {text}")));
    }

    /// Reports every key that no section asked for.
    pub(super) fn refuse_unknown(&mut self) {
        for layer in self.layers {
            for (key, given) in &layer.values {
                if let Some(text) = self.unknown(key, &given.raw) {
                    self.faults.push(Fault::at(&given.origin, text));
                }
            }
        }
    }

    /// What to say about a key that is not known; none when it is.
    fn unknown(&self, key: &str, raw: &Raw) -> Option<String> {
        let known = self.entries.iter().map(|entry| entry.key);
        let sections = known.clone().filter_map(|known| known.split('.').next());
        if known.clone().any(|known| known == key) {
            return None;
        }
        if sections.clone().any(|section| section == key) {
            let empty = matches!(raw, Raw::Table);
            return (!empty).then(|| format!("{key} is a section; write [{key}] once, and its keys below"));
        }
        if let Some(outer) =
            known.clone().find(|known| key.strip_prefix(*known).is_some_and(|rest| rest.starts_with('.')))
        {
            return Some(format!("{outer} is a value and has no keys of its own"));
        }
        let shown = key.escape_debug();
        let near = match key.contains('.') {
            true => suggest::nearest(key, known),
            false => suggest::nearest(key, sections.chain(known)),
        };
        Some(match near {
            Some(near) => format!("{shown} is not a key; did you mean {near}?"),
            None => format!("{shown} is not a key; see `cloister config show` for all keys"),
        })
    }

    /// Every layer's value is checked, also one that a stronger layer hides: it would surprise on the day that layer
    /// goes.
    fn take(&mut self, key: &'static str, rule: Rule) -> Value {
        let mut winner = None;
        for given in self.layers.iter().filter_map(|layer| layer.values.get(key)) {
            match rule.check(&given.raw) {
                Ok(value) => winner = Some((value, given.origin.clone())),
                Err(text) => self.faults.push(Fault::at(&given.origin, format!("{key}: {text}"))),
            }
        }
        let (value, origin) = winner.unwrap_or_else(|| (rule.stand_in(), Origin::Default));
        self.entries.push(Entry { key, rule, value: value.clone(), origin });
        value
    }
}
