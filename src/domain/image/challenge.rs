//! How a registry asks for rights (RFC 9110 §11, and the distribution specification's token protocol).

/// The longest header that is read.
const MOST_BYTES: usize = 4096;

/// What a registry wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// A user's name and password with each request.
    Basic,
    /// A token, which `realm` gives out for `service` and `scope`.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// Reads the value of one `WWW-Authenticate` header. None where it asks for something else, or cannot be read.
    pub fn read(header: &str) -> Option<Self> {
        if header.len() > MOST_BYTES {
            return None;
        }
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        let mut rest = rest.trim_start();
        while !rest.is_empty() {
            let (name, after) = rest.split_once('=')?;
            let (value, after) = value(after.trim_start())?;
            match name.trim().to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                "scope" => scope = Some(value),
                _ => {}
            }
            rest = after.trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        }
        Some(Self::Bearer { realm: realm?, service, scope })
    }
}

/// A quoted string or a bare word, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        let (word, after) = text.split_at_checked(end)?;
        return (!word.is_empty()).then(|| (word.to_owned(), after));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, quoted.get(at + 1..)?)),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bearers_challenge_names_where_tokens_are_given_out() {
        let read = Challenge::read(
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#,
        );
        let wanted = Challenge::Bearer {
            realm: "https://auth.example/token".into(),
            service: Some("registry.example".into()),
            scope: Some("repository:a/b:pull,push".into()),
        };
        assert_eq!(read, Some(wanted));
        let loose = Challenge::read(r#"bearer error=x , realm="https://a/\"b" "#);
        assert_eq!(loose, Some(Challenge::Bearer { realm: "https://a/\"b".into(), service: None, scope: None }));
        assert_eq!(Challenge::read("Basic realm=\"x\""), Some(Challenge::Basic));
        for none in ["", "Bearer", "Negotiate", "Bearer service=\"x\"", "Bearer realm=\"x", "Bearer realm"] {
            assert_eq!(Challenge::read(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_to_its_end(text in "(Bearer )?[a-z=\", \\\\\u{e4}]{0,60}") {
            let _ = Challenge::read(&text);
        }
    }
}
