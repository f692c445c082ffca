//! Where the tokens of private registries come from: a file, or a credential of systemd. Read once, at the daemon's start.

use std::io;
use std::path::{Path, PathBuf};

use crate::domain::egress::HostHeader;
use crate::domain::registry_token::{self, NotATokenLine};
use crate::sys::guarded::{self, Unread};

/// What the credential is called below `$CREDENTIALS_DIRECTORY`.
const CREDENTIAL: &str = "registry-tokens";
/// No file with tokens is larger.
const MOST_BYTES: u64 = 64 * 1024;

/// Why the tokens cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    #[error("the registries' tokens in {} cannot be read", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} can be read by every user: chmod o= it, and change the tokens if others were on this host", .0.display())]
    Public(PathBuf),
    #[error("{} is no list of tokens", .path.display())]
    Malformed { path: PathBuf, source: NotATokenLine },
}

/// The tokens in `file`; else in the credential, where systemd gave one; else none.
///
/// # Errors
/// When there are some that cannot be used.
pub fn registry_tokens(file: Option<&Path>, credentials: Option<&Path>) -> Result<Vec<HostHeader>, TokensError> {
    let credential = credentials.map(|directory| directory.join(CREDENTIAL)).filter(|path| path.exists());
    match (file, credential) {
        (Some(file), _) => read(file, false),
        (None, Some(credential)) => read(&credential, true),
        (None, None) => Ok(Vec::new()),
    }
}

/// `is_guarded`: its directory keeps strangers out, whatever the file's own mode says.
fn read(path: &Path, is_guarded: bool) -> Result<Vec<HostHeader>, TokensError> {
    let unreadable = |source| TokensError::Unreadable { path: path.to_owned(), source };
    let closed = if is_guarded { 0 } else { guarded::READ_BY_ALL };
    let bytes = guarded::read(path, MOST_BYTES, closed).map_err(|unread| match unread {
        Unread::Failed(source) => unreadable(source),
        Unread::NotSmall => unreadable(Unread::not_small()),
        Unread::Public => TokensError::Public(path.to_owned()),
    })?;
    let text = guarded::text(&bytes).map_err(unreadable)?;
    registry_token::read(text).map_err(|source| TokensError::Malformed { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn holding(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CREDENTIAL);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    #[test]
    fn a_file_closed_to_others_is_read_and_a_credential_where_there_is_none() {
        let (folder, path) = holding("https://r.example/ abc\n", 0o640);
        assert_eq!(registry_tokens(Some(&path), None).unwrap().len(), 1);
        assert_eq!(registry_tokens(None, Some(folder.path())).unwrap().len(), 1);
        assert!(registry_tokens(None, Some(Path::new("/nowhere"))).unwrap().is_empty());
        assert!(registry_tokens(None, None).unwrap().is_empty());
    }

    #[test]
    fn what_everybody_may_read_is_missing_or_says_something_else_is_an_error() {
        let (folder, path) = holding("https://r.example/ abc\n", 0o644);
        assert!(matches!(registry_tokens(Some(&path), None), Err(TokensError::Public(_))));
        assert!(matches!(registry_tokens(Some(folder.path()), None), Err(TokensError::Unreadable { .. })));
        assert!(matches!(registry_tokens(Some(Path::new("/nowhere")), None), Err(TokensError::Unreadable { .. })));
        let (_folder, path) = holding("abc\n", 0o600);
        assert!(matches!(registry_tokens(Some(&path), None), Err(TokensError::Malformed { .. })));
    }
}
