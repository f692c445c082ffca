//! The file that docker, podman and Kubernetes keep credentials for registries in.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use reqwest::header::{HeaderMap, HeaderValue};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::domain::base64;
use crate::domain::image::Reference;

/// The largest file.
const MOST: u64 = 1 << 20;
/// How that file names a registry whose host has another name.
const HUB: (&str, &str) = ("docker.io", "https://index.docker.io/v1/");

/// Why there are none. Quotes nothing of the file.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("{0} cannot be read: give another with sandbox.images.auth_file")]
    Unreadable(PathBuf, #[source] std::io::Error),
    #[error("{0} can be read by everybody: chmod o= it")]
    Public(PathBuf),
    #[error(
        "{0} is no list of credentials such as {{\"auths\": {{\"registry.example\": {{\"auth\": \"<base64 of user:password>\"}}}}}}"
    )]
    Malformed(PathBuf),
}

/// A user's name and password, as a request shows them. It has no `Debug`.
pub struct Credentials(Zeroizing<String>);

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    /// The process's allocator wipes what is freed.
    #[serde(default)]
    auth: String,
}

impl Credentials {
    /// Those for the reference's registry, or for the longest part of its name that there are some for. None: it is asked
    /// without.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub(in super::super) fn find(file: &Path, reference: &Reference) -> Result<Option<Self>, CredentialsError> {
        let unreadable = |source| CredentialsError::Unreadable(file.to_owned(), source);
        if fs::metadata(file).map_err(unreadable)?.mode() & 0o007 != 0 {
            return Err(CredentialsError::Public(file.to_owned()));
        }
        let mut text = Zeroizing::new(Vec::new());
        File::open(file).and_then(|opened| opened.take(MOST).read_to_end(&mut text)).map_err(unreadable)?;
        let malformed = || CredentialsError::Malformed(file.to_owned());
        // The reader's own message would quote what it found.
        let Listed { auths } = serde_json::from_slice(&text).map_err(|_| malformed())?;
        let name = format!("{}/{}", reference.host(), reference.repository());
        let entry = auths
            .iter()
            .filter(|(key, _)| is_for(key, &name))
            .max_by_key(|(key, _)| key.len())
            .map(|(_, entry)| entry.auth.as_str());
        match entry {
            None | Some("") => Ok(None),
            Some(auth) => {
                let decoded = Zeroizing::new(base64::decode(auth).map_err(|_| malformed())?);
                let is_pair = decoded.contains(&b':') && decoded.iter().all(|byte| (0x20..0x7f).contains(byte));
                is_pair.then(|| Some(Self(Zeroizing::new(auth.to_owned())))).ok_or_else(malformed)
            }
        }
    }

    /// Shows them to whoever gets the request.
    pub(super) fn show(&self, headers: &mut HeaderMap) {
        let text = Zeroizing::new(format!("Basic {}", self.0.as_str()));
        if let Ok(mut value) = HeaderValue::from_str(&text) {
            value.set_sensitive(true);
            headers.insert(reqwest::header::AUTHORIZATION, value);
        }
    }
}

/// `name`: the host and the repository.
fn is_for(key: &str, name: &str) -> bool {
    let (named, elsewhere) = HUB;
    let key = if key == elsewhere { named } else { key };
    let key = key.trim_start_matches("https://").trim_end_matches('/');
    name.strip_prefix(key).is_some_and(|rest| rest.starts_with('/') || rest.is_empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::domain::image::ImageSource;

    fn shown(text: &str, mode: u32, reference: &str) -> Result<Option<String>, CredentialsError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let Ok(ImageSource::Registry(reference)) = reference.parse() else { panic!("{reference}") };
        Credentials::find(&path, &reference).map(|found| {
            found.map(|found| {
                let mut headers = HeaderMap::new();
                found.show(&mut headers);
                assert!(!format!("{headers:?}").contains(found.0.as_str()), "a secret in a debug print");
                headers[reqwest::header::AUTHORIZATION].to_str().unwrap().to_owned()
            })
        })
    }

    #[test]
    fn the_longest_name_that_fits_has_the_credentials() {
        let auths = r#"{"auths": {"registry.example": {"auth": "YTpi"}, "registry.example/team": {"auth": "YzpkOmU="},
            "https://index.docker.io/v1/": {"auth": "aDpp"}, "other.example:5000": {}}, "credsStore": "x"}"#;
        for (reference, wanted) in [
            ("registry.example/deno", Some("Basic YTpi")),
            ("registry.example/team/deno", Some("Basic YzpkOmU=")),
            ("registry.example/teammate/deno", Some("Basic YTpi")),
            ("registry.example.org/deno", None),
            ("registry.example:5000/deno", None),
            ("docker.io/owner/deno", Some("Basic aDpp")),
            ("other.example:5000/deno", None),
        ] {
            assert_eq!(shown(auths, 0o600, reference).unwrap().as_deref(), wanted, "{reference}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_and_not_quoted() {
        let reference = "registry.example/deno";
        assert!(matches!(shown("{}", 0o644, reference), Err(CredentialsError::Public(_))));
        for text in [
            "secret",
            r#"{"auths": {"registry.example": {"auth": "secret"}}}"#,
            r#"{"auths": {"registry.example": {"auth": "YTpiCg=="}}}"#,
            r#"{"auths": ["secret"]}"#,
        ] {
            let error = crate::telemetry::error_chain(&shown(text, 0o600, reference).unwrap_err()).to_string();
            assert!(error.contains("auth.json") && !error.contains("secret"), "{error}");
        }
    }
}
