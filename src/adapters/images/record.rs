//! What the store knows beside the images: which one serves for each runtime, and what each setting stood for last.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::domain::environment::Runtime;
use crate::domain::image::{Digest, ImageSource};

const FILE: &str = "record.json";
const VERSION: u32 = 1;

/// The record, as it lies in the store's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    pub(super) serving: BTreeMap<Runtime, Digest>,
    pub(super) known: BTreeMap<String, Digest>,
}

impl Default for Record {
    fn default() -> Self {
        Self { version: VERSION, serving: BTreeMap::new(), known: BTreeMap::new() }
    }
}

impl Record {
    /// The record of a store. One that is not there, or cannot be understood, is an empty one: images are then looked for
    /// anew, and the first one serves.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(super) fn load(dir: &Path) -> io::Result<Self> {
        match fs::read(dir.join(FILE)) {
            Ok(bytes) => {
                let read = serde_json::from_slice(&bytes).ok();
                Ok(read.filter(|record: &Self| record.version == VERSION).unwrap_or_default())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// What the source stood for when it was found last.
    pub(super) fn last(&self, source: &ImageSource) -> Option<&Digest> {
        self.known.iter().find(|(key, _)| is_of(key, source)).map(|(_, digest)| digest)
    }

    /// What the source stands for now, in the place of what it stood for before. `key`: its text, with a mark where it has
    /// one.
    pub(super) fn learn(&mut self, source: &ImageSource, key: String, digest: Digest) {
        self.known.retain(|known, _| !is_of(known, source));
        self.known.insert(key, digest);
    }

    /// Forgets all other sources.
    pub(super) fn keep<'a>(&mut self, sources: impl Iterator<Item = &'a ImageSource> + Clone) {
        self.known.retain(|key, _| sources.clone().any(|source| is_of(key, source)));
    }

    /// Writes it so that it is whole after a crash, the one before or this one.
    ///
    /// # Errors
    /// When it cannot be written; the one before stays.
    pub(super) fn save(&self, dir: &Path) -> io::Result<()> {
        let draft = dir.join(format!("{FILE}.draft"));
        let mut file = File::create(&draft)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        fs::rename(&draft, dir.join(FILE))?;
        File::open(dir)?.sync_all()
    }
}

/// A key is a source's own text, and a mark after a space.
fn is_of(key: &str, source: &ImageSource) -> bool {
    key.strip_prefix(&source.to_string()).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_nonsense_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::load(dir.path()).unwrap(), Record::default());
        let mut record = Record::default();
        record.serving.insert(Runtime::Bun, Digest::of_bytes(&[1; 32]));
        record.known.insert("registry.example/bun:1".into(), Digest::of_bytes(&[2; 32]));
        record.save(dir.path()).unwrap();
        assert_eq!(Record::load(dir.path()).unwrap(), record);
        let source: ImageSource = "/a/b.tar".parse().unwrap();
        record.learn(&source, "/a/b.tar 12 7 1.0".into(), Digest::of_bytes(&[3; 32]));
        record.learn(&source, "/a/b.tar 13 7 2.0".into(), Digest::of_bytes(&[4; 32]));
        assert_eq!((record.last(&source), record.known.len()), (Some(&Digest::of_bytes(&[4; 32])), 2));
        record.keep([source].iter());
        assert_eq!(record.known.len(), 1);
        for text in [
            "",
            "{",
            r#"{"version": 2, "serving": {}, "known": {}}"#,
            r#"{"version": 1, "serving": {"deno": "x"}, "known": {}}"#,
        ] {
            fs::write(dir.path().join(FILE), text).unwrap();
            assert_eq!(Record::load(dir.path()).unwrap(), Record::default(), "{text}");
        }
    }
}
