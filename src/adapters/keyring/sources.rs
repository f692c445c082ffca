//! Where private keys come from: a file, a credential of systemd, or the value that `WORKER_PRIVATE_KEY_B64` had.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::sealed::{NotAKey, SecretKey};
use crate::sys::guarded::{self, Unread};

/// What the credential is called below `$CREDENTIALS_DIRECTORY`.
const CREDENTIAL: &str = "worker-private-key";
/// The variable, and what may stand before the key in a file.
const VARIABLE: &str = "WORKER_PRIVATE_KEY_B64";
/// No file with a key is larger.
const MOST_BYTES: u64 = 4096;

/// Why there is no ring, or no new one.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    #[error("cannot read the private key in {}", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} can be read by every user: chmod o= it, and make a new key if others were on this host", .0.display())]
    Public(PathBuf),
    #[error("{place} holds no private key (`cloister keygen` makes one)")]
    NotAKey { place: String, source: NotAKey },
    #[error("crypto.private_key_file and {VARIABLE} are both set, to different keys: unset one")]
    TwoKeys,
    #[error("there is no source of a private key any more; the ring stays as it is")]
    Gone,
}

/// The keys that are only opened with.
type Former = Vec<Arc<SecretKey>>;

/// The sources. They are read anew at each reload, but for the variable's value, which was taken once.
#[derive(Default)]
pub struct Sources {
    file: Option<PathBuf>,
    former: Vec<PathBuf>,
    credentials: Option<PathBuf>,
    given: Option<Arc<SecretKey>>,
}

impl Sources {
    /// `file`, `former`: files with padded base64, or with the line that `cloister keygen` writes. `credentials`: what
    /// systemd named by `CREDENTIALS_DIRECTORY`; asked when neither `file` nor `given` is there. `given`: the value
    /// that `WORKER_PRIVATE_KEY_B64` had.
    ///
    /// # Errors
    /// `NotAKey` for a given value that is none.
    pub fn new(
        file: Option<PathBuf>,
        former: Vec<PathBuf>,
        credentials: Option<PathBuf>,
        given: Option<Zeroizing<String>>,
    ) -> Result<Self, KeyringError> {
        let given = given.filter(|text| !text.trim().is_empty()).map(|text| key_in(&text, VARIABLE)).transpose()?;
        Ok(Self { file, former, credentials, given })
    }

    /// The current key, and the former ones.
    pub(super) fn read(&self) -> Result<(Option<Arc<SecretKey>>, Former), KeyringError> {
        let file = self.file.as_deref().map(|path| read(path, false)).transpose()?;
        if let (Some(file), Some(given)) = (&file, &self.given)
            && file.public_key() != given.public_key()
        {
            return Err(KeyringError::TwoKeys);
        }
        let current = match file.or_else(|| self.given.clone()) {
            Some(key) => Some(key),
            None => self.credential()?,
        };
        let former = self.former.iter().map(|path| read(path, false)).collect::<Result<_, _>>()?;
        Ok((current, former))
    }

    fn credential(&self) -> Result<Option<Arc<SecretKey>>, KeyringError> {
        let Some(path) = self.credentials.as_ref().map(|directory| directory.join(CREDENTIAL)) else { return Ok(None) };
        match read(&path, true) {
            Err(KeyringError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }
}

/// `is_guarded`: its directory keeps strangers out, whatever the file's own mode says.
fn read(path: &Path, is_guarded: bool) -> Result<Arc<SecretKey>, KeyringError> {
    let closed = if is_guarded { 0 } else { guarded::READ_BY_ALL };
    let bytes = guarded::read(path, MOST_BYTES, closed).map_err(|unread| match unread {
        Unread::Failed(source) => KeyringError::Unreadable { path: path.to_owned(), source },
        Unread::NotSmall => KeyringError::Unreadable { path: path.to_owned(), source: Unread::not_small() },
        Unread::Public => KeyringError::Public(path.to_owned()),
    })?;
    let place = path.display().to_string();
    let text =
        std::str::from_utf8(&bytes).map_err(|_| KeyringError::NotAKey { place: place.clone(), source: NotAKey })?;
    key_in(text, &place)
}

/// The key in a text: the text itself, or the line of it that sets the variable.
fn key_in(text: &str, place: &str) -> Result<Arc<SecretKey>, KeyringError> {
    let set = |line: &str| line.trim().strip_prefix(VARIABLE).is_some_and(|rest| rest.starts_with('='));
    let line = text.lines().find(|line| set(line)).map_or(text, |line| line.trim());
    let key = line.strip_prefix(VARIABLE).and_then(|rest| rest.strip_prefix('=')).unwrap_or(line);
    let key = SecretKey::from_base64(key.trim());
    key.map(Arc::new).map_err(|source| KeyringError::NotAKey { place: place.to_owned(), source })
}
