//! Small files that hold secrets: read without waiting, and with no copy left behind.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use nix::fcntl::OFlag;
use zeroize::Zeroizing;

/// Mode bits of strangers who can read.
pub const READ_BY_ALL: u32 = 0o004;
/// Mode bits of strangers who can do anything.
pub const OPEN_TO_ALL: u32 = 0o007;

/// Why such a file is not read.
#[derive(Debug)]
pub enum Unread {
    Failed(io::Error),
    /// It is no regular file, or larger than one with such a secret is.
    NotSmall,
    /// Its mode has a bit that it must not have.
    Public,
}

impl Unread {
    /// The error of one that is no small file, for who tells that as a failure to read.
    pub fn not_small() -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, "it is not a small regular file")
    }
}

/// A regular file of at most `most` bytes whose mode has none of the `closed` bits; 0 where its directory keeps strangers
/// out, whatever the file's own mode says.
///
/// # Errors
/// See [`Unread`].
pub fn read(path: &Path, most: u64, closed: u32) -> Result<Zeroizing<Vec<u8>>, Unread> {
    // A named pipe is opened at once, too, and refused below; else it would be waited for without an end.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let file = file.map_err(Unread::Failed)?;
    let found = file.metadata().map_err(Unread::Failed)?;
    if !found.is_file() || found.len() > most {
        return Err(Unread::NotSmall);
    }
    if found.permissions().mode() & closed != 0 {
        return Err(Unread::Public);
    }
    // Large enough from the start, so that no half of it is left behind by growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(most).unwrap_or(usize::MAX).saturating_add(1)));
    file.take(most).read_to_end(&mut bytes).map_err(Unread::Failed)?;
    Ok(bytes)
}

/// What was read, as text.
///
/// # Errors
/// `InvalidData` when it is none.
pub fn text(bytes: &[u8]) -> io::Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}
