//! What a set-up's `dependencies.deno` may name: modules of JSR, modules by address, and packages of npm.
//!
//! What is none of these never reaches the resolver: no file, no data URL, no user's name, no flag.

use std::collections::BTreeSet;

use crate::domain::egress::Destination;
use crate::domain::package::is_range;

/// The longest specifier.
const MOST_CHARS: usize = 500;
/// Specifiers that one environment may name.
const MOST: usize = 200;

/// An entry of `dependencies.deno` is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecifierError {
    #[error(
        "dependencies.deno has {0:?}, which is not jsr:@scope/name@range/export, https://host/path or npm:name@range"
    )]
    NotASpecifier(String),
    #[error("dependencies.deno names {0} modules: at most {MOST} are allowed")]
    TooMany(usize),
}

/// All that an environment names, sorted out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Specifiers {
    /// As `dependencies.npm` has them.
    pub npm: Vec<String>,
    pub jsr: BTreeSet<String>,
    /// Each with its host.
    pub urls: Vec<(String, Destination)>,
}

impl Specifiers {
    /// # Errors
    /// The first entry that is no specifier.
    pub fn read(entries: &[String]) -> Result<Self, SpecifierError> {
        if entries.len() > MOST {
            return Err(SpecifierError::TooMany(entries.len()));
        }
        let mut found = Self::default();
        for entry in entries {
            let none = || SpecifierError::NotASpecifier(entry.chars().take(80).collect());
            if let Some(package) = entry.strip_prefix("npm:") {
                found.npm.push(package.to_owned());
            } else if is_jsr(entry) {
                found.jsr.insert(entry.clone());
            } else {
                let to = destination(entry).ok_or_else(none)?;
                found.urls.push((entry.clone(), to));
            }
        }
        Ok(found)
    }
}

/// `jsr:@scope/name`, with a range and an export where there are some.
fn is_jsr(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("jsr:@").filter(|_| text.len() <= MOST_CHARS) else { return false };
    let mut parts = rest.splitn(3, '/');
    let word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    let named = |text: &str| match text.split_once('@') {
        Some((name, range)) => word(name) && is_range(range),
        None => word(text),
    };
    let export = |path: &str| path.split('/').all(is_segment);
    parts.next().is_some_and(word) && parts.next().is_some_and(named) && parts.next().is_none_or(export)
}

fn is_segment(segment: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+@".contains(&byte);
    !matches!(segment, "" | "." | "..") && segment.bytes().all(known)
}

/// Where a module with an address lies. A user's name and a fragment have no place in it.
fn destination(text: &str) -> Option<Destination> {
    let (rest, port) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (rest, 443),
        (None, Some(rest)) => (rest, 80),
        (None, None) => return None,
    };
    let plain =
        text.len() <= MOST_CHARS && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"#\"'\\<>`".contains(&byte));
    let (authority, path) = rest.split_once('/')?;
    let good = plain && !path.is_empty() && !path.split(['/', '?']).any(|segment| matches!(segment, "." | ".."));
    Destination::parse(authority, Some(port)).filter(|_| good)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Specifiers, SpecifierError> {
        Specifiers::read(&[text.to_owned()])
    }

    #[test]
    fn modules_are_sorted_by_where_they_come_from() {
        for text in ["jsr:@std/path", "jsr:@std/path@1", "jsr:@std/path@^1.0.2/posix", "jsr:@a-b/c1@1/x/y.ts"] {
            assert_eq!(read(text).unwrap().jsr.into_iter().collect::<Vec<_>>(), [text]);
        }
        for (text, to) in [
            ("https://deno.example/x@1.0.0/mod.ts", "deno.example:443"),
            ("http://[::1]:8080/mod.ts?v=1", "[::1]:8080"),
        ] {
            assert_eq!(read(text).unwrap().urls[0].1.to_string(), to);
        }
        assert_eq!(read("npm:@a/b@1").unwrap().npm, ["@a/b@1"]);
    }

    #[test]
    fn what_would_steer_the_resolver_is_no_specifier() {
        for text in [
            "",
            "--allow-all",
            "file:///etc/passwd",
            "data:text/javascript,1",
            "node:fs",
            "./mod.ts",
            "jsr:path",
            "jsr:@std",
            "jsr:@std/",
            "jsr:@Std/path",
            "jsr:@std/path@",
            "jsr:@std/path@https://x/",
            "jsr:@std/path/../x",
            "jsr:@std/path//x",
            "jsr:@std/path x",
            "https://deno.example",
            "https://deno.example/",
            "https://user:word@deno.example/x.ts",
            "https://deno.example/a/../x.ts",
            "https://deno.example/x.ts#y",
            "https://deno.example/x y",
            "https:///x.ts",
            "ftp://deno.example/x.ts",
        ] {
            assert!(matches!(read(text), Err(SpecifierError::NotASpecifier(_))), "{text}");
        }
        assert!(read(&format!("https://a.example/{}", "x".repeat(500))).is_err());
        assert_eq!(Specifiers::read(&vec!["jsr:@a/b".to_owned(); 201]), Err(SpecifierError::TooMany(201)));
    }
}
