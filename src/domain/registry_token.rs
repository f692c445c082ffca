//! Tokens of private registries, as an operator writes them down: what the proxy puts on the requests to each.

use crate::domain::egress::HostHeader;
use crate::domain::package::Registry;
use crate::domain::secret::Secret;

/// The longest token.
const MOST_TOKEN: usize = 4096;

/// A line is none. Its text is not told: it may hold the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {0} is not an address and a token, such as `https://registry.example/ TOKEN` (or `… Basic WORD`)")]
pub struct NotATokenLine(pub usize);

/// One header for each line with an address and a token: `Bearer`, unless a scheme stands before it. Empty lines, and lines
/// that begin with `#`, say nothing. A token goes where its address is, port and all; in clear only where that says http.
///
/// # Errors
/// The number of the first line that is something else.
pub fn read(text: &str) -> Result<Vec<HostHeader>, NotATokenLine> {
    let lines = (1..).zip(text.lines().map(str::trim));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines.map(|(number, line)| header(line).ok_or(NotATokenLine(number))).collect()
}

fn header(line: &str) -> Option<HostHeader> {
    let (address, token) = line.split_once(char::is_whitespace)?;
    let registry: Registry = address.parse().ok()?;
    let (scheme, token) = token.trim().split_once(' ').unwrap_or(("Bearer", token.trim()));
    let token = token.trim();
    let plain = |text: &str| !text.is_empty() && text.len() <= MOST_TOKEN && text.bytes().all(|b| b.is_ascii_graphic());
    let value = Secret::from(format!("{scheme} {token}"));
    let in_clear = address.starts_with("http://");
    let good = plain(token) && matches!(scheme, "Bearer" | "Basic");
    good.then(|| HostHeader { rule: registry.rule, name: "authorization".to_owned(), value, in_clear })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_token_for_one_host() {
        let text =
            "# of ours\n\nhttps://r.example/npm/ abc\n http://10.0.0.1:4873\tBasic dTpw \nhttps://s.example Bearer x\n";
        let shown: Vec<_> = read(text)
            .unwrap()
            .into_iter()
            .map(|header| (header.rule.to_string(), header.value.text().unwrap().to_owned(), header.in_clear))
            .collect();
        let expected = [
            ("r.example:443", "Bearer abc", false),
            ("10.0.0.1:4873", "Basic dTpw", true),
            ("s.example:443", "Bearer x", false),
        ];
        assert_eq!(shown, expected.map(|(rule, value, in_clear)| (rule.to_owned(), value.to_owned(), in_clear)));
    }

    #[test]
    fn what_is_no_token_is_told_by_its_line_and_never_by_its_text() {
        for line in [
            "secret-word",
            "https://r.example/",
            "r.example secret-word",
            "https://r.example/ Digest x",
            "https://r.example/ a b c",
            "https://r.example/ a\u{e4}",
        ] {
            let refused = read(&format!("https://r.example/ abc\n{line}\n")).unwrap_err();
            assert_eq!(refused, NotATokenLine(2), "{line}");
            assert!(!refused.to_string().contains("secret-word"));
        }
    }
}
