//! The packages that a set-up names, and the registries that they come from.
//!
//! What is not a name and a range of versions never reaches the installer: no URL, no path, no repository, no flag.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::domain::egress::{Destination, Rule};

/// The longest name of a package, and the longest range of versions.
const MOST_NAME: usize = 214;
const MOST_RANGE: usize = 64;
/// Packages that one environment may name.
const MOST: usize = 200;

/// A package of npm: its name, and the versions that are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    pub name: String,
    /// `latest` where none was named.
    pub range: String,
}

/// An entry of `dependencies.npm` is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackageError {
    #[error("dependencies.npm has {0:?}, which is not name@version (no URL, path, repository or alias)")]
    NotAPackage(String),
    #[error("dependencies.npm names {0} twice")]
    Twice(String),
    #[error("dependencies.npm names {0} packages: at most {MOST} are allowed")]
    TooMany(usize),
}

impl FromStr for Package {
    type Err = PackageError;

    fn from_str(text: &str) -> Result<Self, PackageError> {
        let none = || PackageError::NotAPackage(text.chars().take(80).collect());
        let scope = usize::from(text.starts_with('@'));
        let (name, range) = match text.get(scope..).and_then(|rest| rest.find('@')) {
            Some(at) => text.split_at_checked(at + scope).ok_or_else(none)?,
            None => (text, "@latest"),
        };
        let range = range.get(1..).ok_or_else(none)?;
        if is_name(name) && is_range(range) {
            Ok(Self { name: name.to_owned(), range: range.to_owned() })
        } else {
            Err(none())
        }
    }
}

fn is_name(name: &str) -> bool {
    let segment = |segment: &str| {
        segment.starts_with(|first: char| first.is_ascii_alphanumeric())
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    };
    let good = match name.strip_prefix('@') {
        Some(scoped) => scoped.split_once('/').is_some_and(|(scope, name)| segment(scope) && segment(name)),
        None => segment(name),
    };
    good && name.len() <= MOST_NAME && !matches!(name, "node_modules" | "favicon.ico")
}

/// A version, a range or a tag: none of these holds a colon, a slash or a hash, and all other things that npm takes do.
pub(super) fn is_range(range: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-+^~<>=|* _".contains(&byte);
    (1..=MOST_RANGE).contains(&range.len()) && range.bytes().all(known) && !range.starts_with('-')
}

/// All that an environment names, by name.
///
/// # Errors
/// The first entry that is no package, or one that is named twice.
pub fn packages(entries: &[String]) -> Result<BTreeMap<String, String>, PackageError> {
    if entries.len() > MOST {
        return Err(PackageError::TooMany(entries.len()));
    }
    let mut found = BTreeMap::new();
    for entry in entries {
        let Package { name, range } = entry.parse()?;
        if found.insert(name.clone(), range).is_some() {
            return Err(PackageError::Twice(name));
        }
    }
    Ok(found)
}

/// A registry that set-ups may install from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    pub url: String,
    /// The host and the port of it.
    pub rule: Rule,
}

/// The text is no registry's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address such as https://registry.example/ (no user, no query)")]
pub struct RegistryError;

impl FromStr for Registry {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, RegistryError> {
        let (rest, port) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (rest, 443),
            (None, Some(rest)) => (rest, 80),
            (None, None) => return Err(RegistryError),
        };
        let authority = rest.split('/').next().unwrap_or_default();
        let plain = rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"'\\".contains(&byte));
        let to = Destination::parse(authority, Some(port)).filter(|_| plain).ok_or(RegistryError)?;
        let rule = to.to_string().parse().map_err(|_| RegistryError)?;
        Ok(Self { url: text.to_owned(), rule })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(String, String)> {
        text.parse::<Package>().ok().map(|package| (package.name, package.range))
    }

    #[test]
    fn a_package_is_a_name_and_a_range() {
        for (text, name, range) in [
            ("left-pad", "left-pad", "latest"),
            ("left-pad@1.3.0", "left-pad", "1.3.0"),
            ("@scope/name", "@scope/name", "latest"),
            ("@scope/name@^1.2 || >=3", "@scope/name", "^1.2 || >=3"),
            ("JSONStream@next", "JSONStream", "next"),
        ] {
            assert_eq!(read(text), Some((name.into(), range.into())), "{text}");
        }
    }

    #[test]
    fn what_would_steer_the_installer_is_no_package() {
        for text in [
            "",
            "@",
            "@1.0",
            "--registry",
            "-g",
            "a@",
            "a@-1",
            "../a",
            "/a",
            ".a",
            "_a",
            "a/b",
            "@a",
            "@a/",
            "@/a",
            "@a/b/c",
            "a@git+ssh://host/x",
            "a@github:u/r",
            "a@u/r",
            "a@file:../x",
            "a@link:x",
            "a@https://host/x.tgz",
            "a@npm:b@1",
            "a@workspace:*",
            "https://host/x.tgz",
            "a b",
            "a@1\n",
            "node_modules",
            "a@1#x",
            "\u{e4}",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        let long = format!("a@{}", "1".repeat(65));
        assert_eq!(read(&long), None);
    }

    #[test]
    fn a_package_is_named_once() {
        let entries = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(packages(&entries(&["a@1", "b"])).map(|found| found.len()), Ok(2));
        assert_eq!(packages(&entries(&["a@1", "a@2"])), Err(PackageError::Twice("a".into())));
        assert_eq!(packages(&vec!["a".to_owned(); 201]), Err(PackageError::TooMany(201)));
    }

    #[test]
    fn a_registry_is_a_host_of_the_web() {
        let rule = |text: &str| text.parse::<Registry>().map(|registry| registry.rule.to_string());
        assert_eq!(rule("https://registry.example/npm/").as_deref(), Ok("registry.example:443"));
        assert_eq!(rule("http://127.0.0.1:4873").as_deref(), Ok("127.0.0.1:4873"));
        for wrong in ["registry.example", "ftp://a/", "https://u:p@a/", "https://", "https://a/?x", "https://a b/"] {
            assert_eq!(rule(wrong), Err(RegistryError), "{wrong}");
        }
    }
}
