//! Measurements, on request: `cargo test --release --bin cloister crypto::measured -- --ignored --nocapture`

use super::doubles::{Client, prompt};
use super::tests::answer_of;
use super::*;
use crate::adapters::clock::SystemClock;
use crate::adapters::keyring::{Keyring, Sources};
use crate::adapters::replay_log::SqliteReplayLog;
use crate::domain::base64;
use crate::domain::job::ReplyTo;
use crate::domain::secret::Secret;
use crate::domain::time::Moment;

#[actix::test]
#[ignore = "a measurement"]
async fn how_long_open_and_seal_take_through_the_actor() {
    let directory = tempfile::tempdir().unwrap();
    let replay = Arc::new(SqliteReplayLog::open(&directory.path().join("replay.db")).await.unwrap());
    let key = zeroize::Zeroizing::new(base64::encode(&[1; 32]));
    let sources = Sources::new(None, Vec::new(), None, Some(key)).unwrap();
    let vault = Arc::new(Keyring::open(sources, Duration::from_secs(60), Moment(0)).unwrap());
    let clock = Arc::new(SystemClock::start());
    let log = Logger::root(slog::Discard, slog::o!());
    let policy = Policy { window: Duration::from_secs(600), room: 100_000 };
    let deps = Deps { vault, replay, clock: clock.clone(), encryption_required: true, policy, log };
    let crypto = Crypto::new(deps, crate::actors::sandbox_pool::tests::seat()).start();
    let client = Client::of(1);
    let mut nonces = 0..=u8::MAX;
    for (size, rounds) in [(1 << 10, 200), (1 << 20, 20), (32 << 20, 7)] {
        let (mut opens, mut seals) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let nonce = nonces.next().unwrap();
            let input = client.v1(nonce, &prompt(&"x".repeat(size)).to_string()).to_string();
            let begun = clock.uptime();
            let opened = answer_of(&crypto, &format!("job-{size}"), input).await;
            opens.push(clock.uptime() - begun);
            let Ok(Request::Comfy(job)) = opened else { panic!("{:?}", opened.err()) };
            let ReplyTo::Sealed(to) = job.reply else { panic!("in clear") };
            let plaintext = Secret::new(vec![b'a'; size]);
            let begun = clock.uptime();
            crypto.send(Seal { to, plaintext }).await.unwrap().unwrap();
            seals.push(clock.uptime() - begun);
        }
        opens.sort();
        seals.sort();
        println!("{size} bytes: open p50 {:?}, seal p50 {:?}", opens[opens.len() / 2], seals[seals.len() / 2]);
    }
}
