//! Raw values as the layers give them, the rule of each key, and the checked values that come out.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use toml_edit::Value as Toml;

use super::span;
use crate::domain::image::ImageSource;

/// A value as it was given. It has no `Debug`: it may be a token.
pub(super) enum Raw {
    /// Text from the environment or the command line, to be read by the key's rule.
    Text(String),
    /// The one member of a list, taken whole.
    One(String),
    Toml(Toml),
    /// An empty table, or one where a value belongs.
    Table,
    /// A list of tables (`[[name]]`).
    Tables,
}

/// What a key may hold.
#[derive(Debug, Clone)]
pub(super) enum Rule {
    Text {
        may_be_empty: bool,
    },
    /// A path; a relative one starts at the working directory.
    Path {
        may_be_empty: bool,
    },
    /// A path, which is made absolute, or an image at a registry; may be empty.
    Image,
    /// An http or https address, which may hold placeholders, or nothing.
    Url,
    Address,
    Switch,
    Whole(RangeInclusive<u64>),
    Real(RangeInclusive<f64>),
    Span(RangeInclusive<Duration>),
    Choice {
        allowed: &'static [&'static str],
        also: &'static [(&'static str, &'static str)],
    },
    /// Tokens: a list of texts that are never shown.
    Secrets,
    /// One text that is never shown; may be empty.
    Secret,
}

/// A value that keeps its key's rule.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    Path(PathBuf),
    Address(IpAddr),
    Switch(bool),
    Whole(u64),
    Real(f64),
    Span(Duration),
    Secrets(Vec<SecretString>),
    /// None when it is empty.
    Secret(Option<SecretString>),
}

impl Rule {
    /// Checks a value; the error says what is wrong with it, and quotes nothing of a secret.
    pub(super) fn check(&self, raw: &Raw) -> Result<Value, String> {
        match self {
            Rule::Secrets => return secrets(raw),
            Rule::Secret => return secret(raw),
            _ => {}
        }
        match (self, raw) {
            (_, Raw::Table | Raw::Tables | Raw::Toml(Toml::InlineTable(_))) => Err(self.wrong("a table")),
            (Rule::Switch, Raw::Toml(Toml::Boolean(on))) => Ok(Value::Switch(*on.value())),
            (Rule::Whole(range), Raw::Toml(Toml::Integer(number))) => whole(*number.value(), range),
            (Rule::Real(range), Raw::Toml(Toml::Float(number))) => real(*number.value(), range),
            (Rule::Real(range), Raw::Toml(Toml::Integer(number))) => real(*number.value() as f64, range),
            (Rule::Switch | Rule::Whole(_) | Rule::Real(_), Raw::Toml(Toml::String(_))) => {
                Err(self.wrong("a string; leave the quotes out"))
            }
            (_, Raw::Toml(Toml::String(text))) => self.read(text.value()),
            (_, Raw::Text(text) | Raw::One(text)) => self.read(text),
            (_, Raw::Toml(other)) => Err(self.wrong(&kind(other))),
        }
    }

    fn read(&self, text: &str) -> Result<Value, String> {
        let shown = || format!("{:?}", text.chars().take(60).collect::<String>());
        if text.chars().any(char::is_control) {
            return Err(format!("{} holds a control character", shown()));
        }
        match self {
            Rule::Text { may_be_empty } | Rule::Path { may_be_empty } if text.is_empty() && !may_be_empty => {
                Err("it must not be empty".to_owned())
            }
            Rule::Text { .. } => Ok(Value::Text(text.to_owned())),
            Rule::Image if text.is_empty() => Ok(Value::Path(PathBuf::new())),
            Rule::Image => match text.parse() {
                Ok(ImageSource::Place(_)) => Rule::Path { may_be_empty: false }.read(text),
                Ok(ImageSource::Registry(_)) => Ok(Value::Text(text.to_owned())),
                Err(error) => Err(error.to_string()),
            },
            Rule::Url if text.is_empty() || is_url(text) => Ok(Value::Text(text.to_owned())),
            Rule::Url => Err(format!("{} is not a URL such as https://example.com", shown())),
            Rule::Path { .. } if text.is_empty() => Ok(Value::Path(PathBuf::new())),
            Rule::Path { .. } => std::path::absolute(text)
                .map(Value::Path)
                .map_err(|_| format!("{} is relative, and there is no working directory", shown())),
            Rule::Address => {
                let parsed = text.parse().map(Value::Address);
                parsed.map_err(|_| format!("{} is not an IP address such as 0.0.0.0, 127.0.0.1 or ::", shown()))
            }
            Rule::Switch => match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Ok(Value::Switch(true)),
                "false" | "0" | "no" | "off" => Ok(Value::Switch(false)),
                _ => Err(format!("{} is neither true nor false", shown())),
            },
            Rule::Whole(range) => match text.trim().parse::<i64>() {
                Ok(number) => whole(number, range),
                Err(_) => Err(format!("{} is not a whole number", shown())),
            },
            Rule::Real(range) => match text.trim().parse::<f64>() {
                Ok(number) => real(number, range),
                Err(_) => Err(format!("{} is not a number", shown())),
            },
            Rule::Span(range) => match span::parse(text) {
                Some(span) if range.contains(&span) => Ok(Value::Span(span)),
                Some(_) => {
                    let (least, most) = (span::render(*range.start()), span::render(*range.end()));
                    Err(format!("{} is out of range: {least} to {most}", shown()))
                }
                None => Err(format!("{} is not a span of time such as \"500 ms\", \"30 s\" or \"5 min\"", shown())),
            },
            Rule::Choice { allowed, also } => {
                let lower = text.to_ascii_lowercase();
                let meant = also.iter().find(|(name, _)| *name == lower).map_or(lower.as_str(), |(_, meant)| meant);
                match allowed.iter().find(|name| **name == meant) {
                    Some(name) => Ok(Value::Text((*name).to_owned())),
                    None => Err(format!("{} is not one of {}", shown(), allowed.join(", "))),
                }
            }
            Rule::Secrets | Rule::Secret => Err("it is read by a rule of its own".to_owned()),
        }
    }

    fn wrong(&self, found: &str) -> String {
        let expected = match self {
            Rule::Text { .. } | Rule::Path { .. } | Rule::Image | Rule::Url | Rule::Address | Rule::Choice { .. } => {
                "a string"
            }
            Rule::Span(_) => "a string with a unit, such as \"30 s\"",
            Rule::Switch => "true or false",
            Rule::Whole(_) => "a whole number",
            Rule::Real(_) => "a number",
            Rule::Secrets => "a list of strings",
            Rule::Secret => "a string",
        };
        format!("expected {expected}, found {found}")
    }

    /// What stands for a value that could not be read, until the error is reported.
    pub(super) fn stand_in(&self) -> Value {
        match self {
            Rule::Text { .. } | Rule::Url | Rule::Choice { .. } => Value::Text(String::new()),
            Rule::Path { .. } | Rule::Image => Value::Path(PathBuf::new()),
            Rule::Address => Value::Address(IpAddr::from([127, 0, 0, 1])),
            Rule::Switch => Value::Switch(false),
            Rule::Whole(range) => Value::Whole(*range.start()),
            Rule::Real(range) => Value::Real(*range.start()),
            Rule::Span(range) => Value::Span(*range.start()),
            Rule::Secrets => Value::Secrets(Vec::new()),
            Rule::Secret => Value::Secret(None),
        }
    }
}

fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_alphanumeric() || first == '['))
}

fn kind(value: &Toml) -> String {
    let noun = value.type_name();
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

fn whole(number: i64, range: &RangeInclusive<u64>) -> Result<Value, String> {
    match u64::try_from(number) {
        Ok(number) if range.contains(&number) => Ok(Value::Whole(number)),
        _ => Err(format!("{number} is out of range: {} to {}", range.start(), range.end())),
    }
}

fn real(number: f64, range: &RangeInclusive<f64>) -> Result<Value, String> {
    if range.contains(&number) {
        return Ok(Value::Real(number));
    }
    Err(format!("{number} is out of range: {} to {}", range.start(), range.end()))
}

/// The length of the longest token.
const MAX_TOKEN_BYTES: usize = 4096;

fn secrets(raw: &Raw) -> Result<Value, String> {
    let tokens: Vec<String> = match raw {
        Raw::One(token) => vec![token.clone()],
        Raw::Text(list) => list.split(',').map(|token| token.trim().to_owned()).collect(),
        Raw::Toml(Toml::Array(list)) => {
            let texts: Option<Vec<String>> = list.iter().map(|item| item.as_str().map(str::to_owned)).collect();
            texts.ok_or("every token must be a string")?
        }
        Raw::Toml(other) => return Err(Rule::Secrets.wrong(&kind(other))),
        Raw::Table | Raw::Tables => return Err(Rule::Secrets.wrong("a table")),
    };
    for token in &tokens {
        presentable(token)?;
    }
    Ok(Value::Secrets(tokens.into_iter().map(SecretString::from).collect()))
}

fn secret(raw: &Raw) -> Result<Value, String> {
    let text = match raw {
        Raw::One(text) | Raw::Text(text) => text.as_str(),
        Raw::Toml(Toml::String(text)) => text.value(),
        Raw::Toml(other) => return Err(Rule::Secret.wrong(&kind(other))),
        Raw::Table | Raw::Tables => return Err(Rule::Secret.wrong("a table")),
    };
    if text.is_empty() {
        return Ok(Value::Secret(None));
    }
    presentable(text)?;
    Ok(Value::Secret(Some(SecretString::from(text))))
}

/// Whether a token can go into a header as it is.
fn presentable(token: &str) -> Result<(), String> {
    if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
        return Err(format!("a token must have 1 to {MAX_TOKEN_BYTES} characters"));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a token may hold visible ASCII only, no spaces and no line break at its end".to_owned());
    }
    Ok(())
}

impl Value {
    /// As TOML, tokens as `***`; a secret that is not set as `""`.
    pub(super) fn to_toml(&self) -> String {
        match self {
            Value::Text(text) => Toml::from(text.as_str()).to_string(),
            Value::Path(path) => Toml::from(path.to_string_lossy().into_owned()).to_string(),
            Value::Address(address) => Toml::from(address.to_string()).to_string(),
            Value::Switch(on) => on.to_string(),
            Value::Whole(number) => number.to_string(),
            Value::Real(number) => format!("{number:?}"),
            Value::Span(span) => Toml::from(span::render(*span)).to_string(),
            Value::Secrets(tokens) => format!("[{}]", vec!["\"***\""; tokens.len()].join(", ")),
            Value::Secret(secret) => secret.as_ref().map_or("\"\"", |_| "\"***\"").to_owned(),
        }
    }

    /// As JSON, tokens as `***`.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Text(text) => text.as_str().into(),
            Value::Path(path) => path.to_string_lossy().into(),
            Value::Address(address) => address.to_string().into(),
            Value::Switch(on) => (*on).into(),
            Value::Whole(number) => (*number).into(),
            Value::Real(number) => (*number).into(),
            Value::Span(span) => span::render(*span).into(),
            Value::Secrets(tokens) => vec!["***"; tokens.len()].into(),
            Value::Secret(secret) => secret.as_ref().map_or("", |_| "***").into(),
        }
    }

    /// True for tokens shorter than anybody should use.
    pub(super) fn has_weak_token(&self) -> bool {
        matches!(self, Value::Secrets(tokens) if tokens.iter().any(|token| token.expose_secret().len() < 16))
    }
}
