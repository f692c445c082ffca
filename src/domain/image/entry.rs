//! The names in a layer's archive: which are written, which take away, and which are refused.
//!
//! A name that comes out of here is relative and has plain segments only: written beneath a root, it stays there.

/// The longest path, in bytes, and the longest target of a link.
const MOST_PATH: usize = 1024;
const MOST_TARGET: usize = 4095;
/// The longest segment, as file systems have it.
const MOST_SEGMENT: usize = 255;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Why a layer is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("a name in it leads upwards")]
    Upwards,
    #[error("a name in it is longer than {MOST_PATH} bytes, or has a segment of more than {MOST_SEGMENT}")]
    Long,
    #[error("a name in it holds a NUL")]
    Nul,
    #[error("a name in it takes away nothing")]
    Whiteout,
    #[error("a link in it leads nowhere, or has a target of more than {MOST_TARGET} bytes")]
    Target,
}

/// What a name in a layer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// The root itself.
    Root,
    /// Something to write.
    Path(Vec<u8>),
    /// What layers below have at this path is gone.
    Whiteout(Vec<u8>),
    /// What layers below have in this directory is gone; empty is the root.
    Opaque(Vec<u8>),
}

/// Reads a name as a layer has it. A leading slash counts for nothing.
///
/// # Errors
/// What leads out of the root, or is too long.
pub fn name(raw: &[u8]) -> Result<Name, EntryError> {
    let path = plain_path(raw)?;
    if path.is_empty() {
        return Ok(Name::Root);
    }
    let (folder, last) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (&[][..], path.as_slice()),
    };
    if last == OPAQUE {
        return Ok(Name::Opaque(folder.to_vec()));
    }
    match last.strip_prefix(WHITEOUT) {
        // What begins like this is kept for the format itself.
        Some(rest) if rest.starts_with(WHITEOUT) || matches!(rest, b"" | b"." | b"..") => Err(EntryError::Whiteout),
        Some(rest) if folder.is_empty() => Ok(Name::Whiteout(rest.to_vec())),
        Some(rest) => Ok(Name::Whiteout([folder, b"/", rest].concat())),
        None => Ok(Name::Path(path)),
    }
}

/// The path of plain segments that `raw` stands for, beneath a root; empty for the root itself. For a hard link's target,
/// too.
///
/// # Errors
/// What leads out of the root, or is too long.
pub fn plain_path(raw: &[u8]) -> Result<Vec<u8>, EntryError> {
    if raw.contains(&0) {
        return Err(EntryError::Nul);
    }
    let segments: Vec<&[u8]> =
        raw.split(|byte| *byte == b'/').filter(|segment| !segment.is_empty() && *segment != b".").collect();
    if segments.contains(&&b".."[..]) {
        return Err(EntryError::Upwards);
    }
    let path = segments.join(&b'/');
    if path.len() > MOST_PATH || segments.iter().any(|segment| segment.len() > MOST_SEGMENT) {
        return Err(EntryError::Long);
    }
    Ok(path)
}

/// A symbolic link's target, which may lead anywhere: it is followed inside the sandbox's own root only.
///
/// # Errors
/// One that no link can have.
pub fn link_target(raw: &[u8]) -> Result<&[u8], EntryError> {
    let fits = !raw.is_empty() && raw.len() <= MOST_TARGET && !raw.contains(&0);
    fits.then_some(raw).ok_or(EntryError::Target)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> Result<Name, EntryError> {
        Ok(Name::Path(text.into()))
    }

    #[test]
    fn names_lose_what_means_nothing() {
        assert_eq!(name(b"./usr//bin/./deno"), path("usr/bin/deno"));
        assert_eq!(name(b"/etc/passwd"), path("etc/passwd"));
        assert_eq!(name(b"a/"), path("a"));
        assert_eq!(name(b"..a/...b"), path("..a/...b"));
        for root in ["", "/", "./", ".//./"] {
            assert_eq!(name(root.as_bytes()), Ok(Name::Root));
        }
    }

    #[test]
    fn what_leads_out_is_refused() {
        for up in ["..", "../x", "a/../b", "/..", "a/.."] {
            assert_eq!(name(up.as_bytes()), Err(EntryError::Upwards), "{up}");
        }
        assert_eq!(name(b"a\0b"), Err(EntryError::Nul));
        assert_eq!(name(&[b'a'; 256]), Err(EntryError::Long));
        assert_eq!(name("ab/".repeat(400).as_bytes()), Err(EntryError::Long));
        assert_eq!(link_target(b""), Err(EntryError::Target));
        assert_eq!(link_target(b"/anywhere/../x"), Ok(&b"/anywhere/../x"[..]));
    }

    #[test]
    fn whiteouts_take_away_what_is_beside_them() {
        assert_eq!(name(b"a/.wh.b"), Ok(Name::Whiteout(b"a/b".to_vec())));
        assert_eq!(name(b".wh.b"), Ok(Name::Whiteout(b"b".to_vec())));
        assert_eq!(name(b"a/b/.wh..wh..opq"), Ok(Name::Opaque(b"a/b".to_vec())));
        assert_eq!(name(b".wh..wh..opq"), Ok(Name::Opaque(Vec::new())));
        for wrong in [".wh.", "a/.wh..", "a/.wh...", ".wh..wh.plnk"] {
            assert_eq!(name(wrong.as_bytes()), Err(EntryError::Whiteout), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_name_stays_beneath_its_root(raw in prop::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), Just(b'w'), Just(b'h'), any::<u8>()], 0..60)) {
            let (Ok(Name::Path(path) | Name::Whiteout(path)) | Ok(Name::Opaque(path))) = name(&raw) else { return Ok(()) };
            prop_assert!(path.len() <= MOST_PATH && !path.contains(&0));
            prop_assert!(path.is_empty() || path.split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b"..")));
        }
    }
}
