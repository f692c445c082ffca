//! The key that secrets are sealed with: the daemon's own, in a file of its own, or one that it is given.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::Key;
use crate::domain::base64;
use crate::sys::guarded::{self, Unread};

/// What the credential is called below `$CREDENTIALS_DIRECTORY`.
const CREDENTIAL: &str = "secrets-key";
/// No file with a key is larger.
const MOST_BYTES: u64 = 1024;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the key of the secrets in {} cannot be read", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the key of the secrets in {} cannot be made", .path.display())]
    Unmade { path: PathBuf, source: io::Error },
    #[error("the key of the secrets in {} is gone: put it back, or remove the secrets and start anew", .0.display())]
    Gone(PathBuf),
    #[error("{} can be read by every user: chmod o= it, and change the secrets if others were on this host", .0.display())]
    Public(PathBuf),
    #[error("{} holds no key: it must be the padded base64 of 32 random bytes", .0.display())]
    NotAKey(PathBuf),
}

/// Where the key may be.
#[derive(Debug, Clone)]
pub struct KeySources {
    /// What the configuration names (`secrets.key_file`). It is never made.
    pub file: Option<PathBuf>,
    /// What systemd named by `CREDENTIALS_DIRECTORY`: asked for `secrets-key` where no file is named.
    pub credentials: Option<PathBuf>,
    /// Where the daemon makes one of its own.
    pub own: PathBuf,
}

impl KeySources {
    /// The file that holds the key, and whether its directory keeps strangers out by itself.
    pub fn place(&self) -> (PathBuf, bool) {
        if let Some(file) = &self.file {
            return (file.clone(), false);
        }
        let credential = self.credentials.as_ref().map(|directory| directory.join(CREDENTIAL));
        match credential.filter(|path| path.exists()) {
            Some(path) => (path, true),
            None => (self.own.clone(), false),
        }
    }
}

/// Where the key is; None where the daemon will make one. Nothing is made.
///
/// # Errors
/// When there is one that cannot be used, or none where one is named.
pub fn look(sources: &KeySources) -> Result<Option<PathBuf>, KeyError> {
    let (path, is_guarded) = sources.place();
    match read(&path, is_guarded) {
        Ok(_) => Ok(Some(path)),
        Err(KeyError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            if path == sources.own {
                Ok(None)
            } else {
                Err(KeyError::Gone(path))
            }
        }
        Err(problem) => Err(problem),
    }
}

/// `may_make`: there is nothing yet that a lost key could open.
pub(super) fn read_or_make(sources: &KeySources, may_make: bool) -> Result<Key, KeyError> {
    let (path, is_guarded) = sources.place();
    match read(&path, is_guarded) {
        Err(KeyError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            if path != sources.own || !may_make {
                return Err(KeyError::Gone(path));
            }
            make(&path).map_err(|source| KeyError::Unmade { path, source })
        }
        other => other,
    }
}

fn read(path: &Path, is_guarded: bool) -> Result<Key, KeyError> {
    let unreadable = |source| KeyError::Unreadable { path: path.to_owned(), source };
    let closed = if is_guarded { 0 } else { guarded::OPEN_TO_ALL };
    let bytes = guarded::read(path, MOST_BYTES, closed).map_err(|unread| match unread {
        Unread::Failed(source) => unreadable(source),
        Unread::NotSmall => KeyError::NotAKey(path.to_owned()),
        Unread::Public => KeyError::Public(path.to_owned()),
    })?;
    let text = guarded::text(&bytes).map_err(unreadable)?;
    let mut key = Key::zeroed();
    base64::decode_into(text.trim(), &mut key).map_err(|_| KeyError::NotAKey(path.to_owned()))?;
    Ok(key)
}

/// Whole or not at all, and nobody else's from the first moment on.
fn make(path: &Path) -> io::Result<Key> {
    let mut key = Key::zeroed();
    getrandom::fill(key.as_mut_slice()).map_err(io::Error::other)?;
    let text = Zeroizing::new(base64::encode(key.as_slice()));
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    writeln!(file, "{}", *text)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    // The name, too: what is sealed next must not outlive it.
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())?;
    Ok(key)
}
