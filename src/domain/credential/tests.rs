//! Credentials and placeholders, by example and by property.

use proptest::prelude::*;

use super::*;
use crate::domain::base64;

fn hosts(entries: &[&str]) -> Vec<String> {
    entries.iter().map(|&entry| entry.to_owned()).collect()
}

fn made(name: &str, entries: &[&str], value: &str) -> Result<Credential, CredentialInvalid> {
    Credential::new(name, &hosts(entries), Secret::from(value.to_owned()))
}

fn to(text: &str) -> Destination {
    Destination::parse(text, None).expect("a destination")
}

#[test]
fn a_value_that_could_end_its_header_a_name_that_steers_and_a_host_that_is_none_are_refused() {
    assert!(made("API_KEY", &["api.example.com", "*.example.com:8443"], "sk-1 2").is_ok());
    for value in ["", " x", "x ", "a\r\nX-Evil: 1", "a\nb", "a\0b", "a\tb", "é", &"x".repeat(MOST_VALUE_BYTES + 1)] {
        assert_eq!(made("KEY", &["a.example"], value), Err(CredentialInvalid::Value), "{value:?}");
    }
    for name in ["", "1A", "a-b", "a b", "LD_PRELOAD", "DENO_CERT", "PATH"] {
        assert!(matches!(made(name, &["a.example"], "v"), Err(CredentialInvalid::Name(_))), "{name}");
    }
    assert_eq!(made("KEY", &[], "v"), Err(CredentialInvalid::NoHosts));
    assert_eq!(made("KEY", &["a.example"; 65], "v"), Err(CredentialInvalid::TooManyHosts(65)));
    for host in ["https://a.example", "*", "a.example/x", "10.0.0.0/8", "a.example:http"] {
        assert!(matches!(made("KEY", &[host], "v"), Err(CredentialInvalid::Host { .. })), "{host}");
    }
    let shown = format!("{:?} {}", made("KEY", &["a.example"], "hunter2"), CredentialInvalid::Value);
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_value_goes_to_listed_hosts_and_in_clear_only_where_a_port_is_named() {
    let listed = made("KEY", &["a.example", "*.b.example:8443", "127.0.0.1:80"], "v").expect("valid").hosts;
    for (destination, in_tls, in_clear) in [
        ("a.example:443", true, false),
        ("a.example:80", true, false),
        ("x.b.example:8443", true, true),
        ("x.b.example:443", false, false),
        ("b.example:8443", false, false),
        ("127.0.0.1:80", true, true),
        ("evil.example:443", false, false),
        ("a.example.evil:443", false, false),
    ] {
        let found = (may_go(&listed, &to(destination), false), may_go(&listed, &to(destination), true));
        assert_eq!(found, (in_tls, in_clear), "{destination}");
    }
}

#[test]
fn a_placeholder_is_exchanged_in_the_header_and_inside_of_basic() {
    let placeholder = Placeholder::new(1);
    let text = placeholder.as_str();
    let put =
        |header: &str| put_in(header.as_bytes(), &placeholder, b"value").map(|made| String::from_utf8(made).unwrap());
    assert_eq!(put(&format!("Bearer {text}")).as_deref(), Some("Bearer value"));
    assert_eq!(put(&format!("{text},{text}")).as_deref(), Some("value,value"));
    assert_eq!(put(&text[..text.len() - 1]), None);
    let basic = |words: &str| format!("bAsIc {}", base64::encode(words.as_bytes()));
    let made = put_into_basic(basic(&format!("user:{text}")).as_bytes(), &placeholder, b"value");
    assert_eq!(made, Some(basic("user:value").into_bytes()));
    for other in [basic("user:pass"), format!("Basic {text}"), "Basic ===".to_owned(), "Bas".to_owned()] {
        assert_eq!(put_into_basic(other.as_bytes(), &placeholder, b"value"), None, "{other}");
    }
    assert_eq!(take_out(b"x=a-long-value;", &placeholder, b"a-long-value"), Some(format!("x={text};").into_bytes()));
    assert_eq!(take_out(b"x=short", &placeholder, b"short"), None);
}

proptest! {
    #[test]
    fn a_value_goes_to_no_host_that_is_not_listed(
        entries in proptest::collection::vec(("(\\*\\.)?[ab]\\.(example|test)", proptest::option::of(1u16..4)), 1..4),
        host in "([ab]\\.){0,2}(example|test)",
        port in 1u16..4,
    ) {
        let text = |(host, port): &(String, Option<u16>)| port.map_or(host.clone(), |port| format!("{host}:{port}"));
        let texts: Vec<String> = entries.iter().map(text).collect();
        let listed = Credential::new("KEY", &texts, Secret::from("v".to_owned())).expect("valid").hosts;
        let means = |(entry, _): &&(String, Option<u16>)| match entry.strip_prefix('*') {
            Some(suffix) => host.ends_with(suffix),
            None => host == *entry,
        };
        let in_tls = entries.iter().filter(means).any(|(_, only)| only.is_none_or(|only| only == port));
        let in_clear = entries.iter().filter(means).any(|(_, only)| *only == Some(port));
        let to = to(&format!("{host}:{port}"));
        prop_assert_eq!((may_go(&listed, &to, false), may_go(&listed, &to, true)), (in_tls, in_clear), "{:?}", texts);
    }

    #[test]
    fn what_holds_no_placeholder_stays_as_it_is(header in proptest::collection::vec(any::<u8>(), 0..200), random: u128) {
        let placeholder = Placeholder::new(random);
        prop_assert_eq!(put_in(&header, &placeholder, b"value"), None);
        prop_assert_eq!(put_into_basic(&header, &placeholder, b"value"), None);
    }

    #[test]
    fn a_value_that_was_put_in_is_all_that_changed(before in "[ -~]{0,50}", after in "[ -~]{0,50}", value in "[!-~]{1,50}", random: u128) {
        let placeholder = Placeholder::new(random);
        let header = format!("{before}{}{after}", placeholder.as_str());
        let made = put_in(header.as_bytes(), &placeholder, value.as_bytes());
        prop_assert_eq!(made, Some(format!("{before}{value}{after}").into_bytes()));
        let other = Placeholder::new(random.wrapping_add(1));
        prop_assert_eq!(put_in(header.as_bytes(), &other, value.as_bytes()), None);
    }

    #[test]
    fn what_is_taken_as_a_value_fits_into_a_header(value in proptest::collection::vec(any::<u8>(), 0..50)) {
        let taken = Credential::new("KEY", &hosts(&["a.example"]), Secret::new(value.clone())).is_ok();
        prop_assert!(!taken || value.iter().all(|byte| (32..127).contains(byte)));
    }
}
