//! P12: the daemon's own boxes, compiled into this program with the daemon's allocator, beside PyNaCl's.

use std::time::{Duration, Instant};

use super::rival::Pynacl;
use super::sealed::{BoxKey, Epk, Nonce, SecretKey, TAG_BYTES};
use super::table::{Row, median, millis, ninetieth, worst};

const SIZES: [(usize, &str, usize); 3] = [(1 << 10, "1 KiB", 201), (1 << 20, "1 MiB", 41), (32 << 20, "32 MiB", 9)];

pub fn rows() -> Vec<Row> {
    let mut pynacl = Pynacl::start();
    SIZES.map(|(bytes, called, rounds)| row(&mut pynacl, bytes, called, rounds)).into()
}

fn row(pynacl: &mut Pynacl, bytes: usize, called: &str, rounds: usize) -> Row {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let (own, other) = (open_and_seal(bytes), pynacl.open_and_seal(bytes));
        if round > 0 {
            ours.push(own);
            theirs.push(other);
        }
    }
    Row {
        name: "P12",
        what: format!("open and seal of {called}"),
        measure: "agree on a key with a client never heard of, open its box, seal as much to it; one at a time"
            .to_owned(),
        ours: millis(median(&ours)),
        p90: Some(millis(ninetieth(&ours))),
        worst: millis(worst(&ours)),
        floor: Some(millis(median(&theirs))),
        floor_is: "PyNaCl",
        unit: "ms",
        goal: "as fast as PyNaCl",
        met: median(&ours) <= median(&theirs),
        tried: rounds,
        failed: 0,
    }
}

fn agree(own: &SecretKey, other: &SecretKey) -> BoxKey {
    own.agree(&Epk::admit(*other.public_key().as_bytes()).unwrap()).unwrap()
}

fn open_and_seal(bytes: usize) -> Duration {
    let (server, client) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
    let (asked, nonce) = (Nonce::random().unwrap(), Nonce::random().unwrap());
    let mut sealed = vec![0; TAG_BYTES + bytes];
    agree(&client, &server).seal(&asked, &mut sealed).unwrap();
    let began = Instant::now();
    let shared = agree(&server, &client);
    let text = shared.open(&asked, &mut sealed).unwrap();
    let mut answer = Vec::with_capacity(TAG_BYTES + bytes);
    answer.extend_from_slice(&[0; TAG_BYTES]);
    answer.extend_from_slice(text);
    shared.seal(&nonce, &mut answer).unwrap();
    let span = began.elapsed();
    assert_eq!(std::hint::black_box(answer).len(), sealed.len());
    span
}
