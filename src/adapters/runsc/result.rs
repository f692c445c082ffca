//! Is the text that a runner calls a result one that can be passed on?

use serde::de::IgnoredAny;

use crate::domain::execution::{ErrorReport, FailureFrameKind, Settlement};

/// Arrays and objects in one another. Deeper text is JSON, but breaks the readers it is passed on to.
const MAX_DEPTH: usize = 512;

/// The settlement that `json` stands for: it is passed on only when it is JSON, not too deep and not too long.
pub(super) fn check_result(json: String, cap: usize) -> Settlement {
    if json.len() > cap {
        let message = format!("the result is {} bytes long: at most {cap} are taken", json.len());
        return failure(FailureFrameKind::OutputLimit, "RangeError", message);
    }
    if depth(&json) > MAX_DEPTH {
        let message = format!("the result is nested deeper than {MAX_DEPTH} levels");
        return failure(FailureFrameKind::InvalidResult, "RangeError", message);
    }
    if has_number_out_of_range(&json) {
        return failure(
            FailureFrameKind::InvalidResult,
            "RangeError",
            "the result holds a number that is out of range".to_owned(),
        );
    }
    // The depth is known, so that the parser cannot run out of stack.
    match serde_json::from_str::<IgnoredAny>(&json) {
        Ok(_) => Settlement::Result(json),
        Err(_) => failure(FailureFrameKind::InvalidResult, "SyntaxError", "the result is not JSON".to_owned()),
    }
}

fn failure(kind: FailureFrameKind, name: &str, message: String) -> Settlement {
    Settlement::Failure { kind, error: ErrorReport { name: name.to_owned(), message, stack: String::new() } }
}

/// The deepest nesting, also of text that is no JSON.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0_usize);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// A number such as 1e999, by `JSON.rawJSON`: it is JSON, but the readers it is passed on to refuse the whole text.
fn has_number_out_of_range(json: &str) -> bool {
    let mut rest = json;
    while let Some(at) = rest.find(['"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) {
        let (_, token) = rest.split_at(at);
        let length = if token.starts_with('"') { string_length(token) } else { number_length(token) };
        let (token, after) = token.split_at_checked(length).unwrap_or((token, ""));
        if token.parse::<f64>().is_ok_and(f64::is_infinite) {
            return true;
        }
        rest = after;
    }
    false
}

/// Of the string at the beginning of `text`, its quotes included; never 0.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    let closing = text.bytes().skip(1).position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    });
    closing.map_or(text.len(), |at| at + 2)
}

/// Of the number at the beginning of `text`; never 0.
fn number_length(text: &str) -> usize {
    text.find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E')).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind(settlement: &Settlement) -> Option<FailureFrameKind> {
        match settlement {
            Settlement::Failure { kind, .. } => Some(*kind),
            _ => None,
        }
    }

    #[test]
    fn json_passes_and_all_else_is_an_invalid_result() {
        for json in ["null", "1e9", "\"1e999\"", "[\"\\\\\",1e-999]", "\"a\\\"[\"", "{\"__proto__\":{\"a\":[1,2]}}"] {
            assert_eq!(check_result(json.into(), 1000), Settlement::Result(json.into()));
        }
        let digits = "9".repeat(400);
        for json in ["[1,1e999]", "{\"a\\\"\":-1E+400}", &digits, "", "undefined", "[1", "1 2", "\"\u{1}\"", "NaN"] {
            assert_eq!(kind(&check_result(json.into(), 1000)), Some(FailureFrameKind::InvalidResult), "{json:?}");
        }
    }

    #[test]
    fn too_long_and_too_deep_are_refused() {
        assert_eq!(kind(&check_result("\"12345\"".into(), 6)), Some(FailureFrameKind::OutputLimit));
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(matches!(check_result(nested(MAX_DEPTH), 1 << 20), Settlement::Result(_)));
        assert_eq!(kind(&check_result(nested(MAX_DEPTH + 1), 1 << 20)), Some(FailureFrameKind::InvalidResult));
        assert_eq!(kind(&check_result("[".repeat(1 << 19), 1 << 20)), Some(FailureFrameKind::InvalidResult));
    }

    proptest! {
        #[test]
        fn a_result_that_passes_is_json_for_every_reader(text in ".{0,60}") {
            if let Settlement::Result(json) = check_result(text, 1000) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
            }
        }
    }
}
