//! The list of hosts that images may come from.

/// Hosts by name: whole, or all below a domain (`*.example.com`, which is not `example.com` itself).
#[derive(Debug, Clone, Default)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// Takes the list over; case does not matter.
    pub fn new(entries: impl IntoIterator<Item = String>) -> Self {
        Self(entries.into_iter().map(|entry| entry.trim().to_ascii_lowercase()).filter(|e| !e.is_empty()).collect())
    }

    /// Nothing may be fetched.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `host` as a parsed URL has it: lower case, punycode.
    pub(super) fn admits(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        self.0.iter().any(|entry| match entry.strip_prefix("*.") {
            Some(domain) => host
                .strip_suffix(domain)
                .and_then(|before| before.strip_suffix('.'))
                .is_some_and(|label| !label.is_empty() && !domain.is_empty()),
            None => entry == host,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_named_whole_or_by_its_domain() {
        let hosts = Hosts::new(["Images.example.com".into(), "*.cdn.example".into(), " ".into(), "*.".into()]);
        for yes in ["images.example.com", "images.example.com.", "a.cdn.example", "a.b.cdn.example"] {
            assert!(hosts.admits(yes), "{yes}");
        }
        for no in ["example.com", "ximages.example.com", "cdn.example", ".cdn.example", "acdn.example", "a.", ""] {
            assert!(!hosts.admits(no), "{no}");
        }
        assert!(Hosts::new([String::new()]).is_empty());
    }
}
