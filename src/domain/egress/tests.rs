//! The rules, the judgement of addresses, the first message of TLS, and the account, each by property.

use core::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::domain::environment::Grant;

fn to(text: &str) -> Destination {
    Destination::parse(text, None).unwrap_or_else(|| panic!("{text}"))
}

fn only(entries: &[&str]) -> Policy {
    let entries = entries.iter().map(|&entry| entry.to_owned()).collect();
    Policy::of(Some(&Grant::Only(entries))).expect("a policy")
}

const CAPS: Caps = Caps {
    connections: 3,
    requests: 20,
    bytes: 1000,
    answer_within: Duration::from_secs(1),
    idle: Duration::from_secs(1),
    lasts: Duration::from_secs(1),
};

#[test]
fn a_rule_is_a_host_a_host_with_its_port_or_all_below_a_suffix() {
    let policy =
        only(&["Api.Example.com:443", "plain.example", "*.cdn.example", "*.x.example:8443", "[2606:4700::1]:80"]);
    for yes in [
        "api.example.com:443",
        "API.example.com.:443",
        "plain.example:1",
        "plain.example:65535",
        "a.cdn.example:80",
        "a.b.cdn.example:443",
        "q.x.example:8443",
        "[2606:4700:0::1]:80",
    ] {
        assert_eq!(policy.judge(&to(yes)), Ok(()), "{yes}");
    }
    for no in [
        "api.example.com:80",
        "xapi.example.com:443",
        "a.api.example.com:443",
        "plain.example.evil:443",
        "cdn.example:443",
        "acdn.example:443",
        "q.x.example:443",
        "[2606:4700::1]:443",
        "127.0.0.1:80",
    ] {
        assert_eq!(policy.judge(&to(no)), Err(Refusal::NotListed), "{no}");
    }
}

#[test]
fn what_is_no_rule_is_refused_and_admits_nothing() {
    for wrong in [
        "",
        "*",
        "*.",
        ".",
        "*.*.example",
        "https://a.example",
        "a.example/path",
        "a.example:",
        "a.example:0",
        "a.example:65536",
        "a.example:+1",
        "a example",
        "u@a.example",
        "ümläut.example",
        "::1",
        "[::1",
        "[::1]x",
        "a..example",
        "*.10.0.0.1",
        "a,b",
        "10.0.0.0/8",
    ] {
        assert_eq!(wrong.parse::<Rule>(), Err(RuleError), "{wrong}");
        assert_eq!(Policy::of(Some(&Grant::Only(vec![wrong.to_owned()]))), None, "{wrong}");
    }
    assert_eq!(Policy::of(None), None);
    assert_eq!(Policy::of(Some(&Grant::Switch(false))), None);
    assert_eq!(Policy::of(Some(&Grant::Switch(true))), Some(Policy::Any));
}

#[test]
fn a_rule_is_shown_as_it_is_read_again() {
    for text in ["a.example", "a.example:443", "*.b.example", "*.b.example:80", "[::1]:80", "10.0.0.1:5"] {
        assert_eq!(text.parse::<Rule>().map(|rule| rule.to_string()).as_deref(), Ok(text));
    }
}

#[test]
fn a_destination_has_one_spelling() {
    assert_eq!(to("[0:0::1]:80").to_string(), "[::1]:80");
    assert_eq!(to("A.Example.:80").to_string(), "a.example:80");
    assert_eq!(Destination::parse("a.example", Some(80)), Some(to("a.example:80")));
    for wrong in
        ["a.example", "http://a:80", "a:b:80", "a/b:80", "a b:80", "u@a:80", ":80", "[a]:80", "a:80/", "a\r\n:80"]
    {
        assert_eq!(Destination::parse(wrong, None), None, "{wrong}");
    }
    assert!(to("a.example:1").is_named("A.EXAMPLE.") && !to("a.example:1").is_named("b.example"));
}

/// A ClientHello in records of at most `piece` bytes.
fn hello(extensions: &[(u16, Vec<u8>)], piece: usize) -> Vec<u8> {
    let counted = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let list: Vec<u8> =
        extensions.iter().flat_map(|(kind, body)| [&kind.to_be_bytes()[..], &counted(body)].concat()).collect();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0);
    body.extend(counted(&[0x13, 1, 0x13, 2]));
    body.extend([1, 0]);
    body.extend(counted(&list));
    let mut message = vec![1];
    message.extend(&u32::try_from(body.len()).unwrap().to_be_bytes()[1..]);
    message.extend(body);
    message.chunks(piece).flat_map(|chunk| [&[22, 3, 1][..], &counted(chunk)].concat()).collect()
}

fn named(name: &str) -> (u16, Vec<u8>) {
    let entry = [&[0][..], &u16::try_from(name.len()).unwrap().to_be_bytes(), name.as_bytes()].concat();
    (0, [&u16::try_from(entry.len()).unwrap().to_be_bytes(), &entry[..]].concat())
}

#[test]
fn the_name_in_the_first_message_is_found_or_the_message_is_none() {
    let other = (16, vec![0, 3, 2, b'h', b'2']);
    assert_eq!(peek(&hello(&[other.clone(), named("a.example")], 9999)), Peek::Hello(Some("a.example".into())));
    assert_eq!(peek(&hello(&[other], 9999)), Peek::Hello(None));
    assert_eq!(peek(&hello(&[named("a.example"), named("b.example")], 9999)), Peek::NotTls, "two readers, two names");
    for not in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"SSH-2.0",
        &[22, 2, 0, 0, 5],
        &[22, 3, 1, 0, 1, 2],
        &[22, 3, 1, 0, 0],
        &[21, 3, 1],
    ] {
        assert_eq!(peek(not), Peek::NotTls, "{not:?}");
    }
    let mut endless = vec![22, 3, 1, 0xff, 0xff, 1, 0, 0x3f, 0xff];
    assert_eq!(peek(&endless), Peek::More);
    endless.resize(16 * 1024, 0);
    assert_eq!(peek(&endless), Peek::NotTls);
}

fn a_label() -> impl Strategy<Value = String> {
    "[a-z0-9_-]{1,12}"
}

proptest! {
    #[test]
    fn a_hello_is_read_the_same_in_any_pieces_and_waited_for_until_it_is_whole(
        name in a_label(), piece in 1_usize..400, filler in 0_usize..2000,
    ) {
        let whole = hello(&[(21, vec![0; filler]), named(&name)], piece);
        prop_assert_eq!(peek(&whole), Peek::Hello(Some(name)));
        for end in 0..whole.len() {
            prop_assert_eq!(peek(&whole[..end]), Peek::More, "{} of {}", end, whole.len());
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = peek(&bytes);
        let _ = peek(&[&[22, 3, 1, 0, 200, 1, 0, 0, 150][..], &bytes].concat());
    }

    #[test]
    fn no_text_makes_a_rule_or_a_destination_panic_and_what_is_shown_is_read_again(text in "\\PC{0,40}") {
        if let Ok(rule) = text.parse::<Rule>() {
            prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule));
        }
        if let Some(found) = Destination::parse(&text, Some(80)) {
            prop_assert_eq!(Destination::parse(&found.to_string(), None), Some(found));
        }
    }

    #[test]
    fn only_what_is_listed_passes(labels in proptest::collection::vec(a_label(), 1..4), port: u16, below: bool) {
        prop_assume!(port > 0);
        let name = labels.join(".");
        prop_assume!(name.parse::<IpAddr>().is_err());
        let rule = if below { format!("*.{name}") } else { format!("{name}:{port}") };
        let policy = only(&[&rule]);
        let at = |host: &str, port: u16| policy.judge(&to(&format!("{host}:{port}"))).is_ok();
        prop_assert_eq!(at(&name, port), !below);
        prop_assert_eq!(at(&format!("x.{name}"), port), below);
        let (longer, elsewhere) = (format!("x{name}"), format!("{name}.evil"));
        prop_assert!(!at(&longer, port) && !at(&elsewhere, port));
        prop_assert!(below || port == 65535 || !at(&name, port + 1));
    }

    #[test]
    fn no_address_is_admitted_that_is_neither_public_nor_named(bits: u128, four: u32, named: u32, prefix in 0_u32..=32) {
        let network: Network = format!("{}/{prefix}", core::net::Ipv4Addr::from_bits(named)).parse().unwrap();
        let reach = Reach::and(vec![network]);
        for address in [IpAddr::from(bits.to_be_bytes()), IpAddr::from(four.to_be_bytes())] {
            let expected = address::is_public(address) || network.holds(address);
            prop_assert_eq!(reach.admits(address), expected);
            prop_assert_eq!(Reach::public().admits(address), address::is_public(address));
        }
        let mapped = core::net::Ipv4Addr::from_bits(four).to_ipv6_mapped();
        prop_assert!(!reach.admits(mapped.into()), "IPv4 in an IPv6 spelling");
    }

    #[test]
    fn no_history_goes_over_the_caps(steps in proptest::collection::vec((0_u8..4, 0_usize..400), 0..200)) {
        let mut ledger = Ledger::new(CAPS);
        let (mut open, mut asked, mut moved) = (0_usize, 0_u64, 0_u64);
        for (step, size) in steps {
            match step {
                0 => match ledger.open() {
                    Ok(()) => open += 1,
                    Err(refusal) => prop_assert_eq!((refusal, open), (Refusal::Connections, CAPS.connections)),
                },
                1 if open > 0 => {
                    ledger.close();
                    open -= 1;
                }
                2 => match ledger.ask() {
                    Ok(()) => asked += 1,
                    Err(refusal) => prop_assert_eq!((refusal, asked), (Refusal::Requests, CAPS.requests)),
                },
                _ => {
                    let room = ledger.room(size);
                    prop_assert!(room <= size);
                    ledger.spend(room);
                    moved += room as u64;
                }
            }
            prop_assert_eq!(ledger.connections(), open);
            prop_assert!(open <= CAPS.connections && asked <= CAPS.requests && moved <= CAPS.bytes);
        }
    }
}
