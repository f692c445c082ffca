//! The proxy over real sockets on this host, with names that answer as they are told. 127.0.0.1 stands for what an
//! operator admits, 127.0.0.2 for what is private.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustls::RootCertStore;
use rustls::client::ClientConnection;
use slog::o;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use uuid::Uuid;

use super::*;
use crate::actors::doubles::credentials::CredentialsDouble;
use crate::domain::credential::{CredentialName, Placeholder};
use crate::domain::egress::{HostHeader, Policy};
use crate::domain::environment::Grant;

mod secrets;
mod websockets;

const HERE: [u8; 4] = [127, 0, 0, 1];
const PRIVATE: [u8; 4] = [127, 0, 0, 2];
const SLOT: SlotId = SlotId(Uuid::nil());

const CAPS: Caps = Caps {
    connections: 4,
    requests: 50,
    bytes: 100_000,
    answer_within: Duration::from_secs(5),
    idle: Duration::from_secs(5),
    lasts: Duration::from_secs(20),
};

/// Answers each look-up of a name with the next of its answers, and the last one for ever.
#[derive(Default)]
struct Told(Mutex<HashMap<String, Vec<[u8; 4]>>>);

impl Told {
    fn with(names: &[(&str, &[[u8; 4]])]) -> Arc<Self> {
        let names = names.iter().map(|(name, answers)| ((*name).to_owned(), answers.to_vec()));
        Arc::new(Self(Mutex::new(names.collect())))
    }
}

#[async_trait]
impl Names for Told {
    async fn look_up(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let mut names = lock(&self.0);
        let answers = names.get_mut(host).ok_or(io::ErrorKind::NotFound)?;
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0] };
        Ok(vec![answer.into()])
    }
}

/// A listener whose connections are answered by `script`, each by a thread; what each read first is told.
fn server(address: [u8; 4], script: fn(&mut std::net::TcpStream, &[u8])) -> (u16, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind((IpAddr::from(address), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let tell = tell.clone();
            std::thread::spawn(move || {
                let mut bytes = vec![0; 16384];
                let read = stream.read(&mut bytes).unwrap_or(0);
                bytes.truncate(read);
                drop(tell.send(bytes.clone()));
                script(&mut stream, &bytes);
                drop(stream.shutdown(Shutdown::Both));
            });
        }
    });
    (port, told)
}

fn hello_page(stream: &mut std::net::TcpStream, _: &[u8]) {
    drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nKeep-Alive: 5\r\nX-Own: 1\r\n\r\nhello"));
}

fn echo(stream: &mut std::net::TcpStream, first: &[u8]) {
    drop(stream.write_all(first));
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut piece) {
        drop(stream.write_all(&piece[..read]));
    }
}

struct World {
    egress: Arc<HostEgress>,
    credentials: Arc<CredentialsDouble>,
    socket: PathBuf,
    authority: Option<PathBuf>,
    serving: JoinSet<()>,
    _dir: tempfile::TempDir,
}

/// What a world is made of.
struct Plan {
    grant: Grant,
    names: Arc<Told>,
    caps: Caps,
    /// Names of secrets that the sandbox may use.
    secrets: Vec<&'static str>,
    headers: Vec<HostHeader>,
    /// Whom the proxy trusts.
    roots: RootCertStore,
}

impl Plan {
    fn new(grant: Grant, names: Arc<Told>) -> Self {
        Self { grant, names, caps: CAPS, secrets: Vec::new(), headers: Vec::new(), roots: RootCertStore::empty() }
    }
}

/// The placeholder of a secret, in every world.
fn placeholder(name: &str) -> Placeholder {
    Placeholder::new(name.bytes().fold(7, |sum, byte| sum * 31 + u128::from(byte)))
}

fn client(roots: RootCertStore) -> rustls::ClientConfig {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions().unwrap();
    versions.with_root_certificates(roots).with_no_client_auth()
}

impl World {
    fn new(grant: Grant, names: Arc<Told>, caps: Caps) -> Self {
        Self::of(Plan { caps, ..Plan::new(grant, names) })
    }

    fn of(plan: Plan) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let reach = Reach::and(vec!["127.0.0.1".parse().unwrap()]);
        let settings = Settings { dir: dir.path().join("egress"), reach, caps: plan.caps };
        let log = Logger::root(slog::Discard, o!());
        let credentials = Arc::new(CredentialsDouble::default());
        let egress =
            Arc::new(HostEgress::with_names(settings, client(plan.roots), credentials.clone(), plan.names, log));
        let named = |name: &&str| -> (CredentialName, Placeholder) { (name.parse().unwrap(), placeholder(name)) };
        let passage = Passage {
            policy: Policy::of(Some(&plan.grant)).unwrap(),
            whose: Whose::Environment,
            placeholders: plan.secrets.iter().map(named).collect(),
            headers: plan.headers,
        };
        let opened = egress.open(SLOT, passage, nix::unistd::geteuid().as_raw()).unwrap();
        let WayOut { socket, authority } = opened;
        let mut world = Self { egress, credentials, socket, authority, serving: JoinSet::new(), _dir: dir };
        world.serve();
        world
    }

    fn listed(entries: &[&str], names: Arc<Told>) -> Self {
        Self::new(only(entries), names, CAPS)
    }

    /// A life of the proxy; a former one ends.
    fn serve(&mut self) {
        self.serving = JoinSet::new();
        let egress = Arc::clone(&self.egress);
        self.serving.spawn(async move { egress.serve().await });
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).await.unwrap()
    }

    /// Sends and reads to the end.
    async fn ask(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        drop(stream.write_all(request.as_bytes()).await);
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn get(&self, authority: &str) -> String {
        self.ask(&format!(
            "GET http://{authority}/x?q HTTP/1.1\r\nHost: {authority}\r\nProxy-Connection: keep-alive\r\n\r\n"
        ))
        .await
    }

    /// A tunnel that the proxy has agreed to.
    async fn tunnel(&self, authority: &str) -> UnixStream {
        let mut stream = self.connect().await;
        stream
            .write_all(format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
        stream
    }
}

fn only(entries: &[&str]) -> Grant {
    Grant::Only(entries.iter().map(|&entry| entry.to_owned()).collect())
}

fn error(answer: &str) -> &str {
    let line = answer.lines().find_map(|line| line.strip_prefix("proxy-status: cloister; error="));
    line.unwrap_or_else(|| panic!("the proxy did not refuse: {answer:?}"))
}

/// What a real TLS client says first.
fn client_hello(name: &str) -> Vec<u8> {
    let config = client(RootCertStore::empty());
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn a_listed_host_is_asked_in_its_own_words_without_what_concerns_the_proxy() {
    let (port, seen) = server(HERE, hello_page);
    let world = World::listed(&[&format!("a.example:{port}")], Told::with(&[("a.example", &[HERE])]));
    let answer = world.get(&format!("A.example:{port}")).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello") && answer.contains("x-own: 1"),
        "{answer}"
    );
    assert!(!answer.to_lowercase().contains("keep-alive"), "{answer}");
    let request = String::from_utf8(seen.recv().unwrap()).unwrap().to_lowercase();
    assert!(
        request.starts_with("get /x?q http/1.1\r\n") && request.contains(&format!("host: a.example:{port}\r\n")),
        "{request}"
    );
    assert!(request.contains("connection: close") && !request.contains("proxy-connection"), "{request}");
}

#[tokio::test]
async fn a_body_goes_through_in_both_directions_and_nothing_after_it() {
    let (port, _seen) = server(HERE, |stream, first| {
        let mut body = first.to_vec();
        let mut piece = [0; 4096];
        while !body.ends_with(b"0\r\n\r\n") && !body.ends_with(b"over") {
            match stream.read(&mut piece) {
                Ok(read @ 1..) => body.extend_from_slice(&piece[..read]),
                _ => break,
            }
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)));
    });
    let world = World::listed(&["127.0.0.1"], Told::with(&[]));
    let host = format!("127.0.0.1:{port}");
    let chunked = world
        .ask(&format!(
            "POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"
        ))
        .await;
    assert!(chunked.contains("5\r\nabcde\r\n0\r\n\r\n"), "{chunked}");
    let smuggled = world
        .ask(&format!(
            "POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\n\r\noverGET http://{host}/second HTTP/1.1\r\nHost: evil\r\n\r\n"
        ))
        .await;
    assert!(smuggled.starts_with("HTTP/1.1 200") && !smuggled.contains("second"), "{smuggled}");
}

#[tokio::test]
async fn what_is_not_listed_not_public_or_not_a_request_is_refused_and_says_why() {
    let (port, seen) = server(HERE, hello_page);
    let (closed, unseen) = server(PRIVATE, hello_page);
    let names =
        Told::with(&[("a.example", &[HERE]), ("inner.example", &[PRIVATE]), ("meta.example", &[[169, 254, 169, 254]])]);
    let listed = [
        &format!("a.example:{port}"),
        "inner.example",
        "meta.example",
        "127.0.0.2",
        "169.254.169.254",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "absent.example",
    ];
    let world = World::listed(&listed, names);
    for (authority, expected) in [
        (format!("a.example:{}", port.wrapping_add(1)), "http_request_denied"),
        (format!("127.0.0.1:{port}"), "http_request_denied"),
        (format!("b.example:{port}"), "http_request_denied"),
        (format!("inner.example:{closed}"), "destination_ip_prohibited"),
        (format!("127.0.0.2:{closed}"), "destination_ip_prohibited"),
        (format!("[::1]:{port}"), "destination_ip_prohibited"),
        (format!("[::ffff:127.0.0.1]:{port}"), "destination_ip_prohibited"),
        ("169.254.169.254".into(), "destination_ip_prohibited"),
        ("meta.example".into(), "destination_ip_prohibited"),
        ("absent.example".into(), "dns_error"),
    ] {
        assert_eq!(error(&world.get(&authority).await), expected, "{authority}");
        let port = if authority.contains(":80") || authority.rfind(':') > authority.rfind(']') { "" } else { ":80" };
        let connect = format!("CONNECT {authority}{port} HTTP/1.1\r\n\r\n");
        assert_eq!(error(&world.ask(&connect).await), expected, "{connect}");
    }
    for request in [
        "GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(),
        format!("GET https://a.example:{port}/ HTTP/1.1\r\nHost: a.example:{port}\r\n\r\n"),
        format!("GET http://a.example:{port}/ HTTP/1.1\r\nHost: inner.example\r\n\r\n"),
        format!("GET http://a.example:{port}@127.0.0.2/ HTTP/1.1\r\nHost: a.example\r\n\r\n"),
    ] {
        assert_eq!(error(&world.ask(&request).await), "http_request_error", "{request}");
    }
    assert!(seen.try_recv().is_err() && unseen.try_recv().is_err(), "something came through");
    let picture = world.egress.picture();
    assert_eq!((picture.gates, picture.allowed, picture.refused), (1, 0, 24));
}

#[tokio::test]
async fn a_name_that_changes_its_mind_leads_to_what_was_judged_or_nowhere() {
    let (port, seen) = server(HERE, hello_page);
    let listener = TcpListener::bind((IpAddr::from(PRIVATE), port)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let world = World::listed(&["flips.example"], Told::with(&[("flips.example", &[HERE, PRIVATE])]));
    let authority = format!("flips.example:{port}");
    assert!(world.get(&authority).await.ends_with("hello"));
    assert!(seen.try_recv().is_ok());
    assert_eq!(error(&world.get(&authority).await), "destination_ip_prohibited");
    assert!(listener.accept().is_err(), "the private address was connected to");
}

#[tokio::test]
async fn a_tunnel_carries_tls_to_the_host_that_was_asked_for_and_nothing_else() {
    let (port, seen) = server(HERE, echo);
    let names = Told::with(&[("a.example", &[HERE]), ("b.example", &[HERE])]);
    let world = World::listed(&["a.example", "b.example", "127.0.0.1"], names);
    for (authority, name) in [("a.example", "A.EXAMPLE"), ("127.0.0.1", "127.0.0.1")] {
        let mut tunnel = world.tunnel(&format!("{authority}:{port}")).await;
        let hello = client_hello(name);
        for piece in hello.chunks(100) {
            tunnel.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        tunnel.write_all(b"more").await.unwrap();
        let mut back = vec![0; hello.len() + 4];
        tunnel.read_exact(&mut back).await.unwrap();
        assert_eq!(back, [&hello[..], b"more"].concat());
        assert!(!seen.recv().unwrap().is_empty());
    }
    for (authority, first) in [
        ("a.example", client_hello("b.example")),
        ("a.example", client_hello("127.0.0.1")),
        ("127.0.0.1", client_hello("b.example")),
        ("a.example", b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n".to_vec()),
        ("a.example", b"SSH-2.0-x\r\n".to_vec()),
    ] {
        let mut tunnel = world.tunnel(&format!("{authority}:{port}")).await;
        tunnel.write_all(&first).await.unwrap();
        let mut back = Vec::new();
        drop(tunnel.read_to_end(&mut back).await);
        let of_the_proxy = back.is_empty() || back.first() == Some(&21) || back.starts_with(b"HTTP/1.1 400");
        assert!(of_the_proxy, "an alert or a refusal at the most: {back:?}");
        assert_eq!(seen.recv().unwrap(), b"", "the server got a byte");
    }
    let picture = world.egress.picture();
    assert_eq!((picture.allowed, picture.refused), (2, 5));
}

#[tokio::test]
async fn bytes_requests_connections_and_stillness_are_bounded() {
    let (port, _seen) = server(HERE, |stream, _| {
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n"));
        while stream.write_all(&[7; 4096]).is_ok() {}
    });
    let authority = format!("127.0.0.1:{port}");
    let caps = Caps { connections: 2, ..CAPS };
    let world = World::new(only(&["127.0.0.1"]), Told::with(&[]), caps);
    let endless = world.get(&authority).await;
    assert!(endless.len() <= 100_000 && endless.len() > 50_000, "{}", endless.len());
    assert_eq!(world.get(&authority).await, "", "nothing more is read");
    let picture = world.egress.picture();
    assert_eq!((picture.bytes, picture.allowed, picture.refused), (100_000, 1, 1));

    let (port, _seen) = server(HERE, hello_page);
    let caps = Caps { requests: 2, ..CAPS };
    let world = World::new(only(&["127.0.0.1"]), Told::with(&[]), caps);
    for expected in [Some("hello"), Some("hello"), None] {
        let answer = world.get(&format!("127.0.0.1:{port}")).await;
        match expected {
            Some(body) => assert!(answer.ends_with(body), "{answer}"),
            None => assert_eq!(error(&answer), "connection_limit_reached"),
        }
    }

    // What is no request gives its place back at once.
    let world = World::new(only(&["127.0.0.1"]), Told::with(&[]), Caps { connections: 1, ..CAPS });
    for garbage in ["\u{16}\u{3}\u{1}\r\n\r\n", "GET\r\n\r\n", ""] {
        let mut stream = world.connect().await;
        drop(stream.write_all(garbage.as_bytes()).await);
        drop(stream.shutdown().await);
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{garbage:?}");
        while world.egress.picture().connections > 0 {
            tokio::task::yield_now().await;
        }
    }

    let (quiet, _seen) = server(HERE, echo);
    let caps = Caps { connections: 2, idle: Duration::from_millis(50), ..CAPS };
    let world = World::new(only(&["127.0.0.1"]), Told::with(&[]), caps);
    let mut held = world.tunnel(&format!("127.0.0.1:{quiet}")).await;
    let _second = world.connect().await;
    let mut third = world.connect().await;
    let mut nothing = Vec::new();
    drop(third.read_to_end(&mut nothing).await);
    assert_eq!(nothing, b"", "a third connection at once is closed");
    drop(held.read_to_end(&mut nothing).await);
    assert_eq!(nothing, b"", "what stands still is closed");
}

#[tokio::test]
async fn a_gate_belongs_to_its_owner_outlives_a_life_of_the_proxy_and_closes_with_everything_in_it() {
    let (port, _seen) = server(HERE, hello_page);
    let mut world = World::listed(&["127.0.0.1"], Told::with(&[]));
    let found = fs::metadata(&world.socket).unwrap();
    assert_eq!((found.mode() & 0o777, found.uid()), (0o600, nix::unistd::geteuid().as_raw()));
    assert_eq!(fs::metadata(world.socket.parent().unwrap()).unwrap().mode() & 0o777, 0o711);
    let mut waiting = world.connect().await;
    waiting.write_all(b"GET ").await.unwrap();
    world.serve();
    let mut cut = Vec::new();
    drop(waiting.read_to_end(&mut cut).await);
    assert!(world.get(&format!("127.0.0.1:{port}")).await.ends_with("hello"), "the next life serves it");
    assert_eq!(world.egress.left().unwrap(), [SLOT]);

    let mut open = world.connect().await;
    open.write_all(b"GET ").await.unwrap();
    world.egress.close(SLOT).unwrap();
    world.egress.close(SLOT).unwrap();
    drop(open.read_to_end(&mut cut).await);
    assert_eq!(world.egress.left().unwrap(), []);
    assert!(UnixStream::connect(&world.socket).await.is_err());
    assert_eq!(world.egress.picture().gates, 0);
}
