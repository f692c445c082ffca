//! What a runtime's setting names: a place on this host, or an image at a registry.

use core::net::IpAddr;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::digest::Digest;
use crate::domain::egress::Destination;

/// The longest name of a repository, as the distribution specification has it.
const MOST_REPOSITORY: usize = 255;
/// The tag of a reference that names neither tag nor digest.
const USUAL_TAG: &str = "latest";
/// A registry whose name for people is not the host that answers, and keeps its official images in a folder.
const HUB: (&str, &str, &str) = ("docker.io", "registry-1.docker.io", "library/");

/// Where a runtime comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// A directory or an archive on this host.
    Place(PathBuf),
    Registry(Reference),
}

/// `host[:port]/repository[:tag][@sha256:…]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// As it was written: what credentials are found by.
    host: String,
    /// The host, and the port where one was named: what is connected to.
    authority: String,
    repository: String,
    tag: String,
    digest: Option<Digest>,
}

/// The text names no image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error(
        "this looks like an image's name without its registry: write host/name:tag, or the path of a directory or an archive"
    )]
    NoHost,
    #[error("a registry is named as host or host:port, without a user: credentials go into sandbox.images.auth_file")]
    Host,
    #[error("after the registry an image has a lower-case name such as folder/name, at most 255 characters")]
    Repository,
    #[error("a tag has at most 128 letters, digits, dots, dashes and underscores")]
    Tag,
    #[error("a digest is sha256: and 64 lower-case hexadecimal digits")]
    Digest,
}

impl FromStr for ImageSource {
    type Err = ReferenceError;

    /// `oci://` and `docker://` begin a reference whatever follows. Else a first segment with a dot or a colon in it, or
    /// `localhost`, is a registry's host, and all other texts are paths.
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if let Some(rest) = text.strip_prefix("oci://").or_else(|| text.strip_prefix("docker://")) {
            return rest.parse().map(Self::Registry);
        }
        if text.starts_with(['/', '.']) {
            return Ok(Self::Place(text.into()));
        }
        match text.split_once('/') {
            Some((host, _)) if host.contains(['.', ':', '@']) || host == "localhost" => {
                text.parse().map(Self::Registry)
            }
            _ if text.contains([':', '@']) => Err(ReferenceError::NoHost),
            _ => Ok(Self::Place(text.into())),
        }
    }
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageSource::Place(path) => path.display().fmt(f),
            ImageSource::Registry(reference) => reference.fmt(f),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (host, rest) = text.split_once('/').ok_or(ReferenceError::NoHost)?;
        Destination::parse(host, Some(443)).ok_or(ReferenceError::Host)?;
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| ReferenceError::Digest)?)),
            None => (rest, None),
        };
        let (repository, tag) = rest.split_once(':').unwrap_or((rest, USUAL_TAG));
        if !is_tag(tag) {
            return Err(ReferenceError::Tag);
        }
        let host = host.to_ascii_lowercase();
        let (named, answers, folder) = HUB;
        let is_hub = host == named;
        let repository =
            if is_hub && !repository.contains('/') { format!("{folder}{repository}") } else { repository.to_owned() };
        if !is_repository(&repository) {
            return Err(ReferenceError::Repository);
        }
        let authority = if is_hub { answers.to_owned() } else { host.clone() };
        Ok(Self { host, authority, repository, tag: tag.to_owned(), digest })
    }
}

impl Reference {
    /// The registry as it was written, in lower case.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The registry as it stands in an address.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// None: what the tag stands for may change.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The last segment of a manifest's address.
    pub fn manifest(&self) -> String {
        self.digest.as_ref().map_or_else(|| self.tag.clone(), ToString::to_string)
    }
}

/// True for `host` or `host:port` of this host itself.
pub fn is_loopback(authority: &str) -> bool {
    Destination::parse(authority, Some(443)).is_some_and(|to| {
        let address = to.host().parse::<IpAddr>();
        to.host() == "localhost" || address.is_ok_and(|address| address.is_loopback())
    })
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, repository, tag, digest, .. } = self;
        write!(f, "{host}/{repository}:{tag}")?;
        digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

/// Segments of lower-case letters and digits, with dots, dashes and underscores between them.
fn is_repository(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    let outer = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
    let segment = |segment: &str| {
        segment.starts_with(outer) && segment.ends_with(outer) && segment.bytes().all(inner) && !segment.contains("..")
    };
    name.len() <= MOST_REPOSITORY && name.split('/').all(segment)
}

fn is_tag(tag: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=128).contains(&tag.len()) && tag.bytes().all(known) && !tag.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn reference(text: &str) -> Reference {
        match text.parse() {
            Ok(ImageSource::Registry(reference)) => reference,
            other => panic!("{text} is {other:?}"),
        }
    }

    #[test]
    fn a_reference_is_told_from_a_path_by_its_host() {
        for (text, host, repository, last) in [
            ("registry.example/deno", "registry.example", "deno", "latest"),
            ("registry.example:5000/a/b_c:2.1", "registry.example:5000", "a/b_c", "2.1"),
            ("localhost/bun:1", "localhost", "bun", "1"),
            ("[::1]:5000/bun:1", "[::1]:5000", "bun", "1"),
            ("docker://Registry.example/deno", "registry.example", "deno", "latest"),
            ("oci://host/deno:x", "host", "deno", "x"),
            ("docker.io/alpine:3", "registry-1.docker.io", "library/alpine", "3"),
            ("docker.io/owner/deno", "registry-1.docker.io", "owner/deno", "latest"),
        ] {
            let read = reference(text);
            assert_eq!((read.authority(), read.repository(), read.manifest().as_str()), (host, repository, last));
        }
        let pinned = reference(&format!("registry.example/deno:2@sha256:{HEX}"));
        assert_eq!(pinned.manifest(), format!("sha256:{HEX}"));
        assert_eq!(pinned.to_string(), format!("registry.example/deno:2@sha256:{HEX}"));
        for path in ["/var/lib/x", "./a:b", "../registry.example/deno", "runtimes/deno", "deno", "/a.b/c:d"] {
            assert_eq!(path.parse(), Ok(ImageSource::Place(path.into())), "{path}");
        }
    }

    #[test]
    fn what_is_no_reference_is_refused_with_its_reason() {
        let error = |text: &str| text.parse::<ImageSource>().expect_err(text);
        assert_eq!(error("denoland/deno:2"), ReferenceError::NoHost);
        assert_eq!(error("deno:2"), ReferenceError::NoHost);
        assert_eq!(error("user:secret@registry.example/deno"), ReferenceError::Host);
        assert_eq!(error("oci:///deno"), ReferenceError::Host);
        for wrong in ["registry.example/", "registry.example/A", "registry.example/../x", "registry.example/a//b"] {
            assert_eq!(error(wrong), ReferenceError::Repository, "{wrong}");
        }
        assert_eq!(error("registry.example/a:"), ReferenceError::Tag);
        assert_eq!(error("registry.example/a:b/c"), ReferenceError::Tag);
        assert_eq!(error("registry.example/a@sha256:12"), ReferenceError::Digest);
    }

    #[test]
    fn loopback_is_this_host_and_nothing_that_begins_like_it() {
        for (text, loopback) in [
            ("localhost:5000/a", true),
            ("127.0.0.1:5000/a", true),
            ("[::1]/a", true),
            ("127.0.0.1.example/a", false),
            ("localhost.example/a", false),
            ("10.0.0.1:5000/a", false),
        ] {
            assert_eq!(is_loopback(reference(text).authority()), loopback, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(text in "(oci://)?[a-z.:0-9]{1,12}/[a-zA-Z0-9/._:@-]{0,40}") {
            if let Ok(ImageSource::Registry(read)) = text.parse::<ImageSource>() {
                let again: ImageSource = format!("oci://{read}").parse().expect("its own text");
                prop_assert_eq!(again, ImageSource::Registry(read.clone()));
                let plain = |text: &str| text.split('/').all(|part| !matches!(part, "" | "." | ".."));
                prop_assert!(plain(read.repository()) && plain(&read.manifest()));
            }
        }
    }
}
