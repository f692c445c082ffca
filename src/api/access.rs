//! Who may come in, and who he is: bearer tokens (RFC 6750), known only as their digests. The configuration's tokens are
//! the operator's; all others are looked up among the tenants'.

use actix_web::http::header::{self, HeaderMap};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::domain::tenant::Caller;
use crate::ports::tenants::Tenants;

/// Whether a token is asked for.
#[derive(Debug, Clone)]
pub enum Access {
    /// Everybody may come in, as the operator (`DISABLE_BEARER_TOKEN=true`).
    Open,
    Tokens(Tokens),
}

impl Access {
    /// Who sends a request with these headers; none when he may not come in.
    pub fn caller(&self, headers: &HeaderMap, tenants: &dyn Tenants) -> Option<Caller> {
        match self {
            Access::Open => Some(Caller::operator()),
            Access::Tokens(tokens) => {
                let token = bearer(headers)?;
                if tokens.hold(token) { Some(Caller::operator()) } else { tenants.caller(token) }
            }
        }
    }
}

/// The accepted tokens' SHA-256 digests. Several, so that one can be replaced without a gap.
#[derive(Clone)]
pub struct Tokens(Vec<[u8; 32]>);

impl Tokens {
    /// Keeps the tokens' digests. An empty token is left out: it would let in whoever sends none.
    pub fn new<T: AsRef<str>>(tokens: impl IntoIterator<Item = T>) -> Self {
        let digests = tokens.into_iter().filter(|token| !token.as_ref().is_empty()).map(|token| digest(token.as_ref()));
        Self(digests.collect())
    }

    /// Compares with every digest, in a time that depends on their number only.
    fn hold(&self, token: &str) -> bool {
        let presented = digest(token);
        let found = self.0.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&presented));
        found.into()
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokens({})", self.0.len())
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION);
    let value = values.next()?.to_str().ok()?;
    // Two headers would let a proxy and us read different ones.
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;
    use crate::adapters::tenants::tests::registry;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn admits(access: &Access, values: &[&str]) -> bool {
        let nobodys = registry(Default::default(), Default::default());
        access.caller(&headers(values), &nobodys).is_some_and(|caller| caller.is_operator())
    }

    #[test]
    fn any_of_the_tokens_opens_and_nothing_else_does() {
        let access = Access::Tokens(Tokens::new(["old-token", "new-token"]));
        for right in ["Bearer old-token", "Bearer new-token", "bearer new-token"] {
            assert!(admits(&access, &[right]), "{right}");
        }
        for wrong in ["Bearer new-toke", "Bearer new-token2", "Bearer ", "Bearer", "Basic new-token", "new-token"] {
            assert!(!admits(&access, &[wrong]), "{wrong}");
        }
        assert!(!admits(&access, &[]));
        assert!(!admits(&access, &["Bearer new-token", "Bearer old-token"]));
    }

    #[test]
    fn an_empty_token_is_never_accepted() {
        let access = Access::Tokens(Tokens::new([""]));
        assert!(!admits(&access, &["Bearer "]));
        assert!(!admits(&access, &[]));
    }

    #[test]
    fn tokens_cannot_be_printed() {
        assert_eq!(format!("{:?}", Tokens::new(["secret"])), "Tokens(1)");
    }
}
