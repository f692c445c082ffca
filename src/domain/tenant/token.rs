//! Tokens of tenants: what is kept of them, and how their text names them.
//!
//! ```text
//!   clo_3f09a1c2d4e5_Vb3…43 characters   clo_, the token's id, and 256 random bits in base64url
//! ```
//!
//! The id is no secret: it stands in lists and logs, and says which token to compare with. The whole text is kept as
//! its digest only.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{Scopes, TenantName};
use crate::domain::time::WallTime;

/// The beginning of every token, by which scanners of leaked secrets know one.
const PREFIX: &str = "clo_";
/// Hexadecimal digits of an id.
const ID_DIGITS: usize = 12;
/// The longest life that can be asked for: ten years.
pub const MAX_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A token's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(String);

/// A text that is no token's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token's id has {ID_DIGITS} hexadecimal digits, as `cloister tokens list` shows it")]
pub struct InvalidTokenId;

impl TokenId {
    /// An id of random bits; the lower 48 count.
    pub fn of_bits(bits: u64) -> Self {
        Self(format!("{:012x}", bits & 0xffff_ffff_ffff))
    }

    /// The id that a token's text names, if it is one. Says nothing about whether there is such a token.
    pub fn of_text(text: &str) -> Option<Self> {
        text.strip_prefix(PREFIX)?.split_once('_')?.0.parse().ok()
    }

    /// The token's text.
    pub fn text(&self, secret: &str) -> String {
        format!("{PREFIX}{}_{secret}", self.0)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenId {
    type Err = InvalidTokenId;

    fn from_str(text: &str) -> Result<Self, InvalidTokenId> {
        let fine = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_one = text.len() == ID_DIGITS && text.bytes().all(fine);
        if is_one { Ok(Self(text.to_owned())) } else { Err(InvalidTokenId) }
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A token, without its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub id: TokenId,
    pub tenant: TenantName,
    pub scopes: Scopes,
    pub created_at: WallTime,
    /// None: until it is revoked.
    pub expires_at: Option<WallTime>,
}

impl Token {
    /// Whether its time is over.
    pub fn is_over(&self, now: WallTime) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}

/// A token that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenOrder {
    pub tenant: TenantName,
    pub scopes: Scopes,
    /// None: it does not end by itself.
    pub lives: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokens_text_names_its_id() {
        let id = TokenId::of_bits(0x1_0000_0000_00ff);
        assert_eq!(id.as_str(), "0000000000ff");
        assert_eq!(TokenId::of_text(&id.text("se_cret-")), Some(id));
        for other in
            ["", "clo_", "clo__x", "clo_0000000000ff", "clo_0000000000fg_x", "0000000000ff_x", "CLO_0000000000ff_x"]
        {
            assert_eq!(TokenId::of_text(other), None, "{other}");
        }
    }

    #[test]
    fn a_token_ends_at_its_time_and_not_before() {
        let id = TokenId::of_bits(1);
        let token = |expires_at| Token {
            id: id.clone(),
            tenant: TenantName::operator(),
            scopes: Scopes::all(),
            created_at: WallTime(0),
            expires_at,
        };
        assert!(!token(None).is_over(WallTime(i64::MAX)));
        assert!(!token(Some(WallTime(10))).is_over(WallTime(9)));
        assert!(token(Some(WallTime(10))).is_over(WallTime(10)));
    }
}
