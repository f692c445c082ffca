//! Crypto over doubles, under virtual time.

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use serde_json::Value;
use zeroize::Zeroizing;

use super::doubles::{Client, LogDouble, OPENS, PANICS, VaultDouble, prompt};
use super::*;
use crate::adapters::clock::PausedClock;
use crate::adapters::keyring::{Keyring, Sources};
use crate::domain::base64;
use crate::domain::envelope::Kid;
use crate::domain::job::{ReplyAddress, ReplyTo};
use crate::domain::restart::Generation;
use crate::domain::secret::Secret;
use crate::domain::time::Moment;
use crate::messages::supervisor::{Beat, ChildDown};

const HOUR: Duration = Duration::from_secs(3600);
const WINDOW: Duration = Duration::from_secs(600);
const NOW: i64 = PausedClock::WALL_AT_START.0 / 1000;

/// Stands where the Supervisor would.
#[derive(Clone, Default)]
struct Parent(Arc<Mutex<(Vec<String>, Vec<ChildDown>)>>);

impl Actor for Parent {
    type Context = Context<Self>;
}

impl Handler<Beat> for Parent {
    type Result = ();
    fn handle(&mut self, beat: Beat, _: &mut Self::Context) {
        self.0.lock().unwrap().0 = beat.complaints;
    }
}

impl Handler<ChildDown> for Parent {
    type Result = ();
    fn handle(&mut self, down: ChildDown, _: &mut Self::Context) {
        self.0.lock().unwrap().1.push(down);
    }
}

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What outlives an actor.
pub(super) struct Fixture {
    vault: Arc<VaultDouble>,
    log: Arc<LogDouble>,
    parent: Parent,
    lines: Lines,
    required: bool,
    room: usize,
    clock: Arc<PausedClock>,
}

impl Fixture {
    fn over(sources: Sources) -> Self {
        tokio::time::pause();
        let vault = Arc::new(VaultDouble::new(Arc::new(Keyring::open(sources, HOUR, Moment(0)).unwrap())));
        let (log, parent, lines) = (Arc::default(), Parent::default(), Lines::default());
        Self { vault, log, parent, lines, required: true, room: 1000, clock: Arc::new(PausedClock::start()) }
    }

    pub(super) fn with_secret(bytes: [u8; 32]) -> Self {
        let text = Zeroizing::new(base64::encode(&bytes));
        Self::over(Sources::new(None, Vec::new(), None, Some(text)).unwrap())
    }

    fn of(seed: u8) -> Self {
        Self::with_secret([seed; 32])
    }

    pub(super) fn start(&self) -> Addr<Crypto> {
        let drain = slog_json::Json::default(self.lines.clone());
        let deps = Deps {
            vault: self.vault.clone(),
            replay: self.log.clone(),
            clock: self.clock.clone(),
            encryption_required: self.required,
            policy: Policy { window: WINDOW, room: self.room },
            log: Logger::root(slog::Fuse(Mutex::new(drain)), slog::o!()),
        };
        let seat = Seat::new(&self.parent.clone().start(), "crypto", Generation(1), Duration::from_secs(1));
        Crypto::new(deps, seat).start()
    }

    pub(super) fn logged(&self) -> String {
        String::from_utf8(self.lines.0.lock().unwrap().clone()).unwrap()
    }

    async fn complaints(&self) -> Vec<String> {
        tokio::time::sleep(Duration::from_millis(2100)).await;
        self.parent.0.lock().unwrap().0.clone()
    }
}

pub(super) async fn answer_of(crypto: &Addr<Crypto>, job: &str, input: String) -> Result<Request, OpenError> {
    crypto.send(Open { job: job.parse().unwrap(), input: Secret::from(input) }).await.unwrap()
}

async fn open(crypto: &Addr<Crypto>, job: &str, input: &Value) -> Result<Request, OpenError> {
    answer_of(crypto, job, input.to_string()).await
}

fn address(request: Result<Request, OpenError>) -> ReplyAddress {
    match request {
        Ok(Request::Comfy(job)) => match job.reply {
            ReplyTo::Sealed(to) => to,
            ReplyTo::Plain => panic!("it came in clear"),
        },
        Ok(Request::Execute(_)) => panic!("a call"),
        Err(error) => panic!("{error}"),
    }
}

#[actix::test]
async fn a_sealed_job_is_opened_and_its_answer_opens_at_the_other_end() {
    let (fixture, client) = (Fixture::of(1), Client::of(1));
    let crypto = fixture.start();
    for input in [client.v1(1, &prompt("x").to_string()), client.v2(2, NOW, &prompt("x"))] {
        let to = address(open(&crypto, "job-1", &input).await);
        for size in [0, 5, 200_000] {
            let plaintext = vec![b'a'; size];
            let part = crypto.send(Seal { to: to.clone(), plaintext: Secret::new(plaintext.clone()) }).await.unwrap();
            assert_eq!(client.open(part.unwrap()), plaintext);
        }
    }
    let picture = crypto.send(GetCrypto).await.unwrap();
    assert_eq!((picture.opened, picture.refused, picture.remembered, picture.kids.len()), (2, 0, 2, 1));
    assert_eq!(fixture.complaints().await, Vec::<String>::new());
}

#[actix::test]
async fn a_replay_is_refused_and_a_redelivery_served_in_the_next_life_too() {
    let (fixture, client) = (Fixture::of(1), Client::of(1));
    let inputs = [client.v1(1, &prompt("x").to_string()), client.v2(2, NOW, &prompt("x"))];
    let first = fixture.start();
    for input in &inputs {
        assert!(open(&first, "job-1", input).await.is_ok());
    }
    // A kill: nothing is told to it, and the next life has the log alone.
    for crypto in [fixture.start(), fixture.start()] {
        for input in &inputs {
            assert!(open(&crypto, "job-1", input).await.is_ok());
            assert_eq!(open(&crypto, "job-2", input).await.err(), Some(OpenError::Replayed));
        }
    }
}

#[actix::test]
async fn a_request_out_of_its_time_is_refused() {
    let (fixture, client) = (Fixture::of(1), Client::of(1));
    let crypto = fixture.start();
    for (nonce, ts) in [(1, NOW - 601), (2, NOW + 601), (3, i64::MAX)] {
        let refused = open(&crypto, "job-1", &client.v2(nonce, ts, &prompt("x"))).await;
        assert_eq!(refused.err(), Some(OpenError::Stale(600)));
    }
    assert!(open(&crypto, "job-1", &client.v2(4, NOW - 599, &prompt("x"))).await.is_ok());
    assert_eq!(crypto.send(GetCrypto).await.unwrap().remembered, 1);
    // Its job may wait for its turn, while the log needs to hold it no more.
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(fixture.log.rows.lock().unwrap().is_empty());
    assert!(open(&crypto, "job-1", &client.v2(4, NOW - 599, &prompt("x"))).await.is_ok());
    tokio::time::sleep(24 * HOUR).await;
    assert_eq!(crypto.send(GetCrypto).await.unwrap().remembered, 0);
    let late = open(&crypto, "job-1", &client.v2(4, NOW - 599, &prompt("x"))).await;
    assert_eq!(late.err(), Some(OpenError::Stale(600)));
}

#[actix::test]
async fn a_small_job_does_not_wait_for_a_large_one() {
    let (fixture, client) = (Fixture::of(1), Client::of(1));
    let crypto = fixture.start();
    let gate = fixture.vault.shut();
    let large = client.v1(1, &prompt(&"x".repeat(4 << 20)).to_string());
    let large = crypto.send(Open { job: "large".parse().unwrap(), input: Secret::from(large.to_string()) });
    let large = actix::spawn(large);
    let small = open(&crypto, "small", &client.v1(2, &prompt("x").to_string())).await;
    assert!(small.is_ok() && !large.is_finished());
    gate.send(()).unwrap();
    assert!(large.await.unwrap().unwrap().is_ok());
}

async fn drain_under_way(hurry: bool) {
    let (fixture, client) = (Fixture::of(1), Client::of(1));
    let crypto = fixture.start();
    let gate = fixture.vault.shut();
    let input = client.v1(1, &prompt(&"x".repeat(2 << 20)).to_string()).to_string();
    let under_way = crypto.send(Open { job: "a".parse().unwrap(), input: Secret::from(input) });
    let under_way = actix::spawn(under_way);
    tokio::task::yield_now().await;
    crypto.send(GetCrypto).await.unwrap();
    crypto.send(Drain { hurry }).await.unwrap();
    if !hurry {
        let refused = open(&crypto, "b", &client.v1(2, &prompt("x").to_string())).await;
        assert!(matches!(refused, Err(OpenError::Host { .. })));
    }
    drop(gate);
    assert_eq!(under_way.await.unwrap().is_ok_and(|opened| opened.is_ok()), !hurry);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(!crypto.connected());
    let down = fixture.parent.0.lock().unwrap().1.clone();
    assert_eq!(down.iter().map(|down| down.exit).collect::<Vec<_>>(), [crate::domain::restart::Exit::Requested]);
}

#[actix::test]
async fn a_drain_finishes_what_was_accepted() {
    drain_under_way(false).await;
}

#[actix::test]
async fn a_hurried_drain_waits_for_nothing() {
    drain_under_way(true).await;
}

#[actix::test]
async fn a_computation_that_panics_fails_its_own_job_only() {
    let (fixture, client) = (Fixture::of(1), Client::of(1));
    let crypto = fixture.start();
    let input = |nonce, size| client.v1(nonce, &prompt(&"x".repeat(size)).to_string());
    let to = address(open(&crypto, "job-1", &input(1, 10)).await);
    fixture.vault.mood.store(PANICS, Ordering::SeqCst);
    for (nonce, size) in [(2, 10), (3, 100_000)] {
        let failed = open(&crypto, "job-1", &input(nonce, size)).await;
        assert!(matches!(failed, Err(OpenError::Host { doing: "opening", .. })));
        let failed = crypto.send(Seal { to: to.clone(), plaintext: Secret::new(vec![0; size]) }).await.unwrap();
        assert!(matches!(failed, Err(SealError::Host(_))));
    }
    fixture.vault.mood.store(OPENS, Ordering::SeqCst);
    assert!(open(&crypto, "job-1", &input(2, 10)).await.is_ok());
}

#[actix::test]
async fn without_the_log_nothing_sealed_is_opened_until_it_is_back() {
    let (fixture, client) = (Fixture::of(1), Client::of(1));
    let input = client.v1(1, &prompt("x").to_string());
    fixture.log.down.store(true, Ordering::SeqCst);
    let crypto = fixture.start();
    let refused = open(&crypto, "job-1", &input).await.err();
    assert!(matches!(&refused, Some(OpenError::Host { doing: "the replay guard", .. })), "{refused:?}");
    assert!(fixture.complaints().await[0].contains("it is down"));
    fixture.log.down.store(false, Ordering::SeqCst);
    assert_eq!(fixture.complaints().await, Vec::<String>::new());
    assert!(open(&crypto, "job-1", &input).await.is_ok());
    // Down again: a new request cannot be written, one that was can be served.
    fixture.log.down.store(true, Ordering::SeqCst);
    let next = client.v1(2, &prompt("x").to_string());
    assert!(matches!(open(&crypto, "job-2", &next).await, Err(OpenError::Host { .. })));
    assert!(open(&crypto, "job-1", &input).await.is_ok());
    assert!(fixture.complaints().await[0].starts_with("no sealed request is taken: "));
    fixture.log.down.store(false, Ordering::SeqCst);
    assert!(open(&crypto, "job-3", &next).await.is_ok(), "the failed write left nothing behind");
    assert_eq!(fixture.complaints().await, Vec::<String>::new());
}

#[actix::test]
async fn a_host_without_a_key_says_so_where_encryption_is_required() {
    let mut fixture = Fixture::over(Sources::default());
    let crypto = fixture.start();
    assert!(fixture.complaints().await[0].starts_with("no private key"));
    let input = Client::of(1).v1(1, &prompt("x").to_string());
    assert_eq!(open(&crypto, "job-1", &input).await.err(), Some(OpenError::NoKey));
    let plain = serde_json::json!({"workflow": prompt("x")});
    assert_eq!(open(&crypto, "job-1", &plain).await.err(), Some(OpenError::PlaintextRefused));
    fixture.required = false;
    let crypto = fixture.start();
    assert!(matches!(open(&crypto, "job-1", &plain).await, Ok(Request::Comfy(job)) if job.reply == ReplyTo::Plain));
    assert_eq!(crypto.send(GetCrypto).await.unwrap().remembered, 0, "what came in clear is not guarded");
}

#[actix::test]
async fn a_full_guard_complains_and_refuses() {
    let mut fixture = Fixture::of(1);
    fixture.room = 8;
    let (crypto, client) = (fixture.start(), Client::of(1));
    for nonce in 0..6 {
        assert!(open(&crypto, "job-1", &client.v1(nonce, &prompt("x").to_string())).await.is_ok());
    }
    let refused = open(&crypto, "job-1", &client.v1(7, &prompt("x").to_string())).await.err().unwrap();
    assert!(refused.to_string().contains("rotate the key"), "{refused}");
    for nonce in 8..10 {
        assert!(open(&crypto, "job-1", &client.v2(nonce, NOW, &prompt("x"))).await.is_ok());
    }
    assert!(fixture.complaints().await[0].contains("nearly full"));
}

#[actix::test]
async fn keys_rotate_under_way_and_former_ones_go_on_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    let write = |seed: u8| {
        std::fs::write(&path, base64::encode(&[seed; 32])).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    };
    write(1);
    let fixture = Fixture::over(Sources::new(Some(path.clone()), Vec::new(), None, None).unwrap());
    let (crypto, client) = (fixture.start(), Client::of(1));
    let to = address(open(&crypto, "job-1", &client.v1(1, &prompt("x").to_string())).await);
    write(2);
    crypto.send(ReloadKeys).await.unwrap();
    let kids = crypto.send(GetCrypto).await.unwrap().kids;
    assert_eq!(kids.len(), 2);
    assert!(open(&crypto, "job-2", &client.v2(2, NOW, &prompt("x"))).await.is_ok());
    std::fs::write(&path, "no key").unwrap();
    crypto.send(ReloadKeys).await.unwrap();
    assert!(fixture.complaints().await[0].contains("holds no private key"));
    assert_eq!(crypto.send(GetCrypto).await.unwrap().kids, kids);
    tokio::time::sleep(HOUR + RETIRE_EVERY).await;
    assert_eq!(crypto.send(GetCrypto).await.unwrap().kids, kids[..1]);
    let current: Kid = kids[0].parse().unwrap();
    let late = open(&crypto, "job-2", &client.v2(3, NOW + 3600, &prompt("x"))).await;
    assert_eq!(late.err(), Some(OpenError::UnknownKey { current }));
    let gone = crypto.send(Seal { to: to.clone(), plaintext: Secret::default() }).await.unwrap();
    assert!(matches!(gone, Err(SealError::KeyGone(kid)) if kid == to.kid));
    tokio::time::sleep(FORGET_EVERY).await;
    assert_eq!(crypto.send(GetCrypto).await.unwrap().remembered, 0, "the dead key's requests cannot be opened anyway");
    let logged = fixture.logged();
    assert!(logged.contains(&kids[1]) && logged.contains("crypto.retired"), "{logged}");
    for seed in [1, 2] {
        assert!(!logged.contains(&base64::encode(&[seed; 32])));
    }
}

#[actix::test]
async fn nothing_of_an_input_is_logged() {
    let mut fixture = Fixture::of(1);
    fixture.required = false;
    let (crypto, client) = (fixture.start(), Client::of(1));
    let canary = "CANARY-7";
    for (nonce, text) in
        [prompt(canary).to_string(), format!("\"{canary}\""), format!("{{\"{canary}\":")].iter().enumerate()
    {
        drop(open(&crypto, "job-1", &client.v1(nonce as u8, text)).await);
        drop(answer_of(&crypto, "job-1", text.clone()).await);
    }
    let logged = fixture.logged();
    assert!(logged.contains("crypto.refused") && logged.contains("job-1") && !logged.contains(canary), "{logged}");
}
