//! The configuration file, with the line of each value.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use toml_edit::{Document, Item, TableLike};

use super::error::Fault;
use super::layer::{Given, Layer};
use super::origin::Origin;
use super::value::Raw;

/// The largest file that is read, in bytes: nobody writes such a configuration by hand.
const MAX_BYTES: u64 = 1 << 20;

/// Reads the file at `path`.
pub(super) fn read(path: &Path) -> Result<Layer, Fault> {
    let unreadable = |error: std::io::Error| Fault::in_file(path.display(), format!("it cannot be read: {error}"));
    let found = std::fs::metadata(path).map_err(unreadable)?;
    if !found.is_file() {
        return Err(Fault::in_file(path.display(), "it is not a regular file"));
    }
    if found.len() > MAX_BYTES {
        return Err(Fault::in_file(path.display(), "it is larger than 1 MiB and surely not a configuration"));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    parse(&text, path)
}

/// True when every user of the host can read the file.
pub(super) fn is_public(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

/// Reads TOML text; `path` names it in origins and errors. The parser's own excerpt of the text is not passed on: the
/// line may hold a token.
pub(super) fn parse(text: &str, path: &Path) -> Result<Layer, Fault> {
    let document = Document::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let (line, column) = position(text, at);
        Fault::in_file(
            format!("{}:{line}:{column}", path.display()),
            format!("not TOML: {}", one_line(error.message())),
        )
    })?;
    let mut walk = Walk { text, path: path.to_owned(), layer: Layer::default() };
    walk.table("", document.as_table());
    Ok(walk.layer)
}

struct Walk<'a> {
    text: &'a str,
    path: PathBuf,
    layer: Layer,
}

impl Walk<'_> {
    fn table(&mut self, prefix: &str, table: &dyn TableLike) {
        for (name, item) in table.iter() {
            let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
            let key_at = table.get_key_value(name).and_then(|(key, _)| key.span());
            let at = item.span().or(key_at).map_or(0, |span| span.start);
            match item.as_table_like() {
                Some(inner) if !inner.is_empty() => self.table(&key, inner),
                Some(_) => self.insert(key, Raw::Table, at),
                None => match item {
                    Item::Value(value) => self.insert(key, Raw::Toml(value.clone()), at),
                    _ => self.insert(key, Raw::Tables, at),
                },
            }
        }
    }

    fn insert(&mut self, key: String, raw: Raw, at: usize) {
        let (line, _) = position(self.text, at);
        let origin = Origin::File { path: self.path.clone(), line };
        self.layer.values.insert(key, Given { raw, origin });
    }
}

/// Line and column of a byte, both from 1.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
