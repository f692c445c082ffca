//! The entries of a layer's archive (tar, with the extensions of POSIX and GNU), one after the other, each bounded.

use std::io::Read;

use tar::{Archive, Entry, EntryType, PaxExtensions};

use super::layer::Unpacked;
use super::unpack::UnpackError;
use crate::domain::image::{Digest, Name, name};

/// The longest name or link that an extension may hold, in bytes, and the longest list of attributes.
const MOST_NAME: u64 = 4096;
const MOST_ATTRIBUTES: u64 = 1 << 20;

/// One entry.
pub(super) struct Item {
    pub(super) name: Name,
    pub(super) kind: EntryType,
    /// Where a link leads, as it stands there.
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
}

/// What an entry before another one says of it.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

/// Shows each entry with its content to `each`. Returns the digest of the whole layer, unpacked, and how many bytes more it
/// might have had.
///
/// # Errors
/// What `each` says, and whatever cannot be read.
pub(super) fn walk(
    layer: Unpacked,
    mut each: impl FnMut(Item, &mut dyn Read) -> Result<(), UnpackError>,
) -> Result<(Digest, u64), UnpackError> {
    let mut archive = Archive::new(layer);
    let mut extension = Extension::default();
    // Raw: what the crate would do for an extension is not bounded.
    for entry in archive.entries().map_err(UnpackError::Read)?.raw(true) {
        let mut entry = entry.map_err(UnpackError::Read)?;
        match entry.header().entry_type() {
            EntryType::GNULongName => extension.name = Some(text(&mut entry)?),
            EntryType::GNULongLink => extension.link = Some(text(&mut entry)?),
            EntryType::XHeader => attributes(&mut entry, &mut extension)?,
            EntryType::XGlobalHeader => {}
            kind => {
                let item = item(&entry, kind, std::mem::take(&mut extension))?;
                each(item, &mut entry)?;
            }
        }
    }
    archive.into_inner().finish().map_err(UnpackError::Read)
}

fn item(entry: &Entry<'_, Unpacked>, kind: EntryType, extension: Extension) -> Result<Item, UnpackError> {
    let header = entry.header();
    // Two sizes are two archives, one for us and one for whoever looked at it before.
    if extension.size.is_some_and(|size| header.entry_size().ok() != Some(size)) {
        return Err(UnpackError::Header);
    }
    let raw = extension.name.unwrap_or_else(|| header.path_bytes().into_owned());
    let link = extension.link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
    let mode = header.mode().map_err(UnpackError::Read)?;
    Ok(Item { name: name(&raw)?, kind, link: link.unwrap_or_default(), mode })
}

/// A name of its own, which a NUL ends.
fn text(entry: &mut Entry<'_, Unpacked>) -> Result<Vec<u8>, UnpackError> {
    let mut bytes = bounded(entry, MOST_NAME)?;
    while bytes.pop_if(|last| *last == 0).is_some() {}
    Ok(bytes)
}

/// Names and sizes of POSIX's attributes; all others, extended attributes of files among them, are left out.
fn attributes(entry: &mut Entry<'_, Unpacked>, extension: &mut Extension) -> Result<(), UnpackError> {
    let bytes = bounded(entry, MOST_ATTRIBUTES)?;
    for attribute in PaxExtensions::new(&bytes) {
        let attribute = attribute.map_err(UnpackError::Read)?;
        let value = attribute.value_bytes();
        match attribute.key_bytes() {
            b"path" => extension.name = Some(value.to_vec()),
            b"linkpath" => extension.link = Some(value.to_vec()),
            b"size" => {
                let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                extension.size = Some(size.ok_or(UnpackError::Header)?);
            }
            key if key.starts_with(b"GNU.sparse") => return Err(UnpackError::Kind('S')),
            _ => {}
        }
    }
    Ok(())
}

fn bounded(entry: &mut Entry<'_, Unpacked>, most: u64) -> Result<Vec<u8>, UnpackError> {
    if entry.header().entry_size().map_err(UnpackError::Read)? > most {
        return Err(UnpackError::Header);
    }
    let mut bytes = Vec::new();
    entry.take(most).read_to_end(&mut bytes).map_err(UnpackError::Read)?;
    Ok(bytes)
}
