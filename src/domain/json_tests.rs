//! What is refused before serde_json sees it, and what is found in what it reads.

use proptest::prelude::*;

use super::*;

/// The plain meaning of depth, for texts that serde_json can read without a stack of its own growing too far.
fn depth_of(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::Array(items) => 1 + items.iter().map(depth_of).max().unwrap_or(0),
        serde_json::Value::Object(items) => 1 + items.values().map(depth_of).max().unwrap_or(0),
        _ => 0,
    }
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![Just(serde_json::Value::Null), r#"[\[\]{}"\\a]{0,8}"#.prop_map(serde_json::Value::from)];
    leaf.prop_recursive(8, 64, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            prop::collection::btree_map(r#"[\]}"\\a]{0,4}"#, inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn depth_is_what_the_parsed_value_has(value in any_json()) {
        let text = value.to_string();
        let depth = depth_of(&value);
        prop_assert!(!is_deeper_than(text.as_bytes(), depth));
        prop_assert!(depth == 0 || is_deeper_than(text.as_bytes(), depth - 1));
    }

    #[test]
    fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = Fields::of_body(&bytes);
    }
}

#[test]
fn equal_keys_are_found_behind_their_escapes() {
    let twice = Fields::of_body(br#"{"a":1,"\u0061":2}"#).map(|_| ());
    assert_eq!(twice, Err(Malformed::DuplicateKey { field: "the body".into(), key: "a".into() }));
}

#[test]
fn an_object_with_very_many_keys_is_not_read() {
    let keys: Vec<String> = (0..=MAX_KEYS).map(|key| format!(r#""{key}":0"#)).collect();
    let text = format!("{{{}}}", keys.join(","));
    assert!(matches!(Fields::of_body(text.as_bytes()), Err(Malformed::Type { .. })));
}

#[test]
fn a_message_never_quotes_a_value() {
    let mut fields = Fields::of_body(br#"{"ttlSeconds":"canary"}"#).unwrap();
    let error = fields.read::<u64>("ttlSeconds", "a number").unwrap_err();
    assert_eq!(error.to_string(), "ttlSeconds must be a number");
}

#[test]
fn a_string_is_borrowed_unless_something_in_it_is_escaped() {
    let raw = |text: &str| serde_json::value::RawValue::from_string(text.to_owned()).unwrap();
    assert!(matches!(string(&raw("\"a/b\"")), Some(Cow::Borrowed("a/b"))));
    assert_eq!(string(&raw("\"a\\/b\"")).as_deref(), Some("a/b"));
    assert_eq!(string(&raw("5")), None);
    assert_eq!(string(&raw("\"\\ud800\"")), None);
}

proptest! {
    #[test]
    fn depth_is_counted_the_same_over_long_strings(parts in prop::collection::vec("[\\[\\]{}\"\\\\a]{0,6}|a{60,70}|\"[a\\\\]{120,140}", 0..12)) {
        let text = parts.concat();
        let (mut deepest, mut depth, mut in_string, mut escaped) = (0_usize, 0_usize, false, false);
        for byte in text.bytes() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_string => escaped = true,
                b'"' => in_string = !in_string,
                b'[' | b'{' if !in_string => depth += 1,
                b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
                _ => {}
            }
            deepest = deepest.max(depth);
        }
        prop_assert!(!is_deeper_than(text.as_bytes(), deepest));
        prop_assert!(deepest == 0 || is_deeper_than(text.as_bytes(), deepest - 1));
    }
}
