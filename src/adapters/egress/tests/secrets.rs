//! Secrets in place of placeholders, and TLS that is ended: what goes where, and what a hostile client gets out of it.

use std::net::TcpStream;
use std::path::Path;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tokio_rustls::TlsConnector;

use super::*;
use crate::domain::base64;
use crate::domain::secret::Secret;

const VALUE: &str = "sk-value-2b7e";

/// A server of TLS, and whom to trust for it.
pub(super) struct Far {
    pub port: u16,
    pub seen: Receiver<String>,
    pub roots: RootCertStore,
}

impl Far {
    /// What came in a request; the test fails where none came.
    pub(super) fn request(&self) -> String {
        self.seen.recv_timeout(Duration::from_secs(5)).expect("a request")
    }

    fn untouched(&self) -> bool {
        self.seen.try_recv().is_err()
    }
}

/// Reads up to the head's end and what came with it, tells it, and answers. What it reads after that it tells, too.
pub(super) fn tls_server(name: &str, answer: &'static str) -> Far {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let builder = ServerConfig::builder_with_provider(ring).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key.into()).unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind((IpAddr::from(HERE), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, seen) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (config, tell) = (Arc::clone(&config), tell.clone());
            std::thread::spawn(move || {
                let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
                let mut request = Vec::new();
                let mut piece = [0; 4096];
                while !request.windows(4).any(|four| four == b"\r\n\r\n") {
                    match tls.read(&mut piece) {
                        Ok(read @ 1..) => request.extend_from_slice(&piece[..read]),
                        _ => break,
                    }
                }
                if !request.is_empty() {
                    drop(tell.send(String::from_utf8_lossy(&request).into_owned()));
                    drop(tls.write_all(answer.as_bytes()));
                    while let Ok(read @ 1..) = tls.read(&mut piece) {
                        drop(tell.send(String::from_utf8_lossy(&piece[..read]).into_owned()));
                        drop(tls.write_all(&piece[..read]));
                    }
                }
                tls.conn.send_close_notify();
                drop(tls.flush());
            });
        }
    });
    Far { port, seen, roots }
}

const PAGE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";

/// A world whose sandbox may use `KEY`, kept for `hosts`, with a server of TLS that it can reach as `a.example`.
fn world_with(hosts: &[&str], far: &Far) -> World {
    let names = Told::with(&[("a.example", &[HERE]), ("b.example", &[HERE]), ("inner.example", &[PRIVATE])]);
    let grant = only(&["a.example", "b.example", "inner.example"]);
    let world = World::of(Plan { secrets: vec!["KEY"], roots: far.roots.clone(), ..Plan::new(grant, names) });
    world.credentials.keep("KEY", hosts, VALUE);
    world
}

fn trusting(pem: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pem).unwrap()).unwrap();
    roots
}

impl World {
    /// TLS through a tunnel, as a client that trusts the sandbox's authority; None where that is refused.
    pub(super) async fn secure(
        &self,
        authority: &str,
        alpn: &[&[u8]],
    ) -> Option<tokio_rustls::client::TlsStream<UnixStream>> {
        let mut config = client(trusting(self.authority.as_deref().unwrap()));
        config.alpn_protocols = alpn.iter().map(|one| one.to_vec()).collect();
        let host = authority.rsplit_once(':').unwrap().0.to_owned();
        let tunnel = self.tunnel(authority).await;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(host).unwrap(), tunnel).await.ok()
    }

    /// Sends and reads to the end, inside of TLS.
    async fn ask_securely(&self, authority: &str, request: &str) -> String {
        let mut tls = self.secure(authority, &[b"h2", b"http/1.1"]).await.expect("TLS");
        drop(tls.write_all(request.as_bytes()).await);
        let mut answer = Vec::new();
        drop(tls.read_to_end(&mut answer).await);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

#[tokio::test]
async fn a_placeholder_in_a_header_becomes_its_value_for_its_host_and_nowhere_else_in_the_request() {
    let far = tls_server("a.example", PAGE);
    let world = world_with(&["a.example"], &far);
    let mark = placeholder("KEY");
    let mark = mark.as_str();
    let authority = format!("a.example:{}", far.port);
    let basic = |word: &str| format!("Basic {}", base64::encode(format!("user:{word}").as_bytes()));
    for (header, expected) in [
        (format!("Authorization: Bearer {mark}"), format!("authorization: Bearer {VALUE}")),
        (format!("X-Api-Key: {mark}"), format!("x-api-key: {VALUE}")),
        (format!("Cookie: a={mark}; b={mark}"), format!("cookie: a={VALUE}; b={VALUE}")),
        (format!("Authorization: {}", basic(mark)), format!("authorization: {}", basic(VALUE))),
        (format!("X-Basic: {}", basic(mark)), format!("x-basic: {}", basic(mark))),
        (
            "X-Other: cloister-secret-00000000000000000000000000000000".to_owned(),
            "x-other: cloister-secret-0".to_owned(),
        ),
    ] {
        let length = mark.len();
        let request = format!(
            "POST /p?q={mark} HTTP/1.1\r\nHost: {authority}\r\n{header}\r\nContent-Length: {length}\r\n\r\n{mark}"
        );
        let answer = world.ask_securely(&authority, &request).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello"), "{answer}");
        let mut seen = far.request();
        if !seen.ends_with(mark) {
            seen += &far.request();
        }
        assert!(seen.contains(&expected), "{expected} is not in {seen}");
        assert!(seen.starts_with(&format!("POST /p?q={mark} HTTP/1.1\r\n")) && seen.ends_with(mark), "{seen}");
    }
    let picture = world.egress.picture();
    assert_eq!((picture.secrets, picture.secrets_put, picture.secrets_withheld), (1, 4, 0));
    assert_eq!((picture.allowed, picture.refused), (6, 0));
}

#[tokio::test]
async fn a_host_may_be_an_address_and_there_is_no_name_in_tls_then() {
    let far = tls_server("127.0.0.1", PAGE);
    let plan =
        Plan { secrets: vec!["KEY"], roots: far.roots.clone(), ..Plan::new(only(&["127.0.0.1"]), Told::with(&[])) };
    let world = World::of(plan);
    let authority = format!("127.0.0.1:{}", far.port);
    world.credentials.keep("KEY", &[&authority], VALUE);
    let mark = placeholder("KEY");
    let request = format!("GET / HTTP/1.1\r\nHost: {authority}\r\nX-Key: {}\r\n\r\n", mark.as_str());
    assert!(world.ask_securely(&authority, &request).await.ends_with("hello"));
    assert!(far.request().contains(&format!("x-key: {VALUE}\r\n")));
}

#[tokio::test]
async fn in_clear_a_value_goes_only_where_its_host_names_the_port_and_elsewhere_its_placeholder_stays() {
    let (port, seen) = server(HERE, hello_page);
    let far = tls_server("a.example", PAGE);
    let world = world_with(&["a.example"], &far);
    let mark = placeholder("KEY");
    let sent = async |host: &str| {
        let request = format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nX-Key: {}\r\n\r\n", mark.as_str());
        assert!(world.ask(&request).await.ends_with("hello"));
        String::from_utf8(seen.recv().unwrap()).unwrap()
    };
    let (a, b) = (format!("a.example:{port}"), format!("b.example:{port}"));
    assert!(sent(&a).await.contains(mark.as_str()), "a host alone means TLS");
    world.credentials.keep("KEY", &["a.example", &a], VALUE);
    assert!(sent(&a).await.contains(&format!("x-key: {VALUE}\r\n")));
    assert!(sent(&b).await.contains(mark.as_str()), "not its host");
    world.credentials.forget("KEY");
    assert!(sent(&a).await.contains(mark.as_str()), "removed, in force for the next request");
    world.credentials.keep("KEY", &[&a], "another");
    assert!(sent(&a).await.contains("x-key: another\r\n"), "changed, in force for the next request");
    let picture = world.egress.picture();
    assert_eq!((picture.secrets_put, picture.secrets_withheld), (2, 3));
}

#[tokio::test]
async fn tls_to_a_host_without_a_secret_goes_through_as_it_is() {
    let (port, seen) = server(HERE, echo);
    let far = tls_server("a.example", PAGE);
    let world = world_with(&["a.example"], &far);
    let mut tunnel = world.tunnel(&format!("b.example:{port}")).await;
    let hello = client_hello("b.example");
    tunnel.write_all(&hello).await.unwrap();
    let mut back = vec![0; hello.len()];
    tunnel.read_exact(&mut back).await.unwrap();
    assert_eq!((&back, &seen.recv().unwrap()), (&hello, &hello));
}

#[tokio::test]
async fn an_answer_that_tells_a_value_back_in_a_header_tells_its_placeholder() {
    let far = tls_server(
        "a.example",
        "HTTP/1.1 200 OK\r\nSet-Cookie: k=sk-value-2b7e; x\r\nX-Own: sk-value\r\nContent-Length: 13\r\n\r\nsk-value-2b7e",
    );
    let world = world_with(&["a.example"], &far);
    let mark = placeholder("KEY");
    let authority = format!("a.example:{}", far.port);
    let request = format!("GET / HTTP/1.1\r\nHost: a.example\r\nX-Key: {}\r\n\r\n", mark.as_str());
    let answer = world.ask_securely(&authority, &request).await;
    assert!(answer.contains(&format!("set-cookie: k={}; x\r\n", mark.as_str())), "{answer}");
    assert!(answer.contains("x-own: sk-value\r\n") && answer.ends_with("\r\n\r\nsk-value-2b7e"), "a body is not read");
}

#[tokio::test]
async fn a_server_without_a_certificate_for_its_name_gets_no_request() {
    let far = tls_server("c.example", PAGE);
    let world = world_with(&["a.example"], &far);
    let mark = placeholder("KEY");
    let request = format!("GET / HTTP/1.1\r\nHost: a.example\r\nX-Key: {}\r\n\r\n", mark.as_str());
    let answer = world.ask_securely(&format!("a.example:{}", far.port), &request).await;
    assert_eq!(error(&answer), "tls_certificate_error");
    assert!(answer.starts_with("HTTP/1.1 502") && far.untouched());
    // In clear there is nobody who could speak TLS.
    let (port, seen) = server(HERE, hello_page);
    let answer = world.ask_securely(&format!("a.example:{port}"), &request).await;
    assert_eq!(error(&answer), "tls_certificate_error");
    assert!(!String::from_utf8_lossy(&seen.recv().unwrap()).contains("GET /"));
}

#[tokio::test]
async fn inside_of_tls_only_one_request_to_the_host_that_was_connected_to_is_taken() {
    let far = tls_server("a.example", PAGE);
    let world = world_with(&["a.example"], &far);
    let authority = format!("a.example:{}", far.port);
    for request in [
        "GET / HTTP/1.1\r\nHost: b.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET https://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n",
        // Two lengths, a header's value that ends early, HTTP/2, and no HTTP at all.
        "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        "GET / HTTP/1.1\r\nHost: a.example\r\nX: a\rb\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0",
        "\0\0\0\0\r\n\r\n",
    ] {
        let answer = world.ask_securely(&authority, request).await;
        assert!(answer.is_empty() || answer.contains(" 400 Bad Request\r\n"), "{request:?}: {answer}");
        assert!(far.untouched(), "{request:?}");
    }
    assert!(world.secure(&authority, &[b"h2"]).await.is_none(), "HTTP/2 is not offered");
    assert!(world.secure(&authority, &[]).await.is_some());

    let pipelined = "GET /first HTTP/1.1\r\nHost: a.example\r\n\r\nGET /second HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let answer = world.ask_securely(&authority, pipelined).await;
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    assert!(far.request().starts_with("GET /first "));
    // A body whose length is told twice, in two ways: whoever reads it on the other side reads what is sent to it.
    let both = "POST /both HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
                3\r\nabc\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let answer = world.ask_securely(&authority, both).await;
    let mut seen = String::new();
    while let Ok(more) = far.seen.recv_timeout(Duration::from_millis(300)) {
        seen += &more;
    }
    let lengths = ["content-length:", "transfer-encoding:"].map(|name| seen.matches(name).count());
    assert!(answer.starts_with("HTTP/1.1 400") || lengths.iter().sum::<usize>() == 1, "{answer} {seen}");
    assert!(!seen.contains("smuggled") && !seen.contains("/second"), "{seen}");
}

#[tokio::test]
async fn a_head_that_is_too_large_too_slow_or_grown_too_large_is_given_up() {
    let far = tls_server("a.example", PAGE);
    let mut world = world_with(&["a.example"], &far);
    let authority = format!("a.example:{}", far.port);
    let huge = format!("GET / HTTP/1.1\r\nHost: a.example\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    let answer = world.ask_securely(&authority, &huge).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    world.credentials.keep("KEY", &["a.example"], &"v".repeat(8000));
    let grown = placeholder("KEY").as_str().repeat(20);
    let answer =
        world.ask_securely(&authority, &format!("GET / HTTP/1.1\r\nHost: a.example\r\nX: {grown}\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(error(&answer), "http_request_error");

    let caps = Caps { answer_within: Duration::from_millis(200), ..CAPS };
    let names = Told::with(&[("a.example", &[HERE])]);
    let plan = Plan { caps, secrets: vec!["KEY"], roots: far.roots.clone(), ..Plan::new(only(&["a.example"]), names) };
    world = World::of(plan);
    world.credentials.keep("KEY", &["a.example"], VALUE);
    let mut slow = world.secure(&authority, &[]).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: a.ex").await.unwrap();
    let mut end = Vec::new();
    drop(slow.read_to_end(&mut end).await);
    let mut silent = world.tunnel(&authority).await;
    silent.write_all(&client_hello("a.example")).await.unwrap();
    drop(silent.read_to_end(&mut end).await);
    assert!(far.untouched());
}

#[tokio::test]
async fn a_secrets_host_is_no_way_around_the_list_or_the_judgement_of_addresses() {
    let far = tls_server("a.example", PAGE);
    let hosts = ["inner.example", "127.0.0.2", "169.254.169.254", "unlisted.example", "a.example"];
    let world = world_with(&hosts, &far);
    let port = far.port;
    for (authority, expected) in [
        (format!("inner.example:{port}"), "destination_ip_prohibited"),
        (format!("unlisted.example:{port}"), "http_request_denied"),
        (format!("127.0.0.2:{port}"), "http_request_denied"),
        ("169.254.169.254:443".to_owned(), "http_request_denied"),
    ] {
        let connect = format!("CONNECT {authority} HTTP/1.1\r\n\r\n");
        assert_eq!(error(&world.ask(&connect).await), expected, "{authority}");
    }
    // The name in TLS is looked at before TLS is ended.
    let mut tunnel = world.tunnel(&format!("a.example:{port}")).await;
    tunnel.write_all(&client_hello("inner.example")).await.unwrap();
    let mut back = Vec::new();
    drop(tunnel.read_to_end(&mut back).await);
    assert_eq!(back.first(), Some(&21), "an alert");
    assert!(far.untouched());
}

#[tokio::test]
async fn a_header_of_the_daemons_own_takes_the_place_of_the_sandboxs() {
    let far = tls_server("a.example", PAGE);
    let token = |rule: &str| HostHeader {
        rule: rule.parse().unwrap(),
        name: "authorization".into(),
        value: Secret::from("Bearer registry-token".to_owned()),
        in_clear: rule.starts_with("b."),
    };
    let (port, seen) = server(HERE, hello_page);
    let names = Told::with(&[("a.example", &[HERE]), ("b.example", &[HERE])]);
    let headers = vec![token(&format!("a.example:{}", far.port)), token(&format!("b.example:{port}"))];
    let grant = only(&["a.example", "b.example"]);
    let world = World::of(Plan { headers, roots: far.roots.clone(), ..Plan::new(grant, names) });
    let request = "GET /p HTTP/1.1\r\nHost: a.example\r\nAuthorization: Bearer mine\r\nAuthorization: two\r\n\r\n";
    assert!(world.ask_securely(&format!("a.example:{}", far.port), request).await.ends_with("hello"));
    let found = far.request();
    assert!(found.contains("authorization: Bearer registry-token\r\n") && !found.contains("mine"), "{found}");
    assert!(world.get(&format!("b.example:{port}")).await.ends_with("hello"));
    assert!(String::from_utf8(seen.recv().unwrap()).unwrap().contains("authorization: Bearer registry-token\r\n"));
    // What is for TLS alone does not go in clear, whatever port it is asked for at.
    let in_clear = HostHeader { in_clear: false, ..token(&format!("c.example:{port}")) };
    let names = Told::with(&[("c.example", &[HERE])]);
    let world = World::of(Plan { headers: vec![in_clear], ..Plan::new(only(&["c.example"]), names) });
    assert!(world.get(&format!("c.example:{port}")).await.ends_with("hello"));
    assert!(!String::from_utf8(seen.recv().unwrap()).unwrap().contains("registry-token"));
}

#[tokio::test]
async fn each_sandbox_has_an_authority_of_its_own_where_it_needs_one_and_it_goes_with_it() {
    let far = tls_server("a.example", PAGE);
    let (one, other) = (world_with(&["a.example"], &far), world_with(&["a.example"], &far));
    let pem = one.authority.clone().unwrap();
    assert_eq!(fs::metadata(&pem).unwrap().mode() & 0o777, 0o444);
    assert_ne!(fs::read(&pem).unwrap(), fs::read(other.authority.as_deref().unwrap()).unwrap());
    assert!(!fs::read_to_string(&pem).unwrap().contains("PRIVATE"));
    assert_eq!(one.egress.left().unwrap(), [SLOT]);
    let config = client(trusting(other.authority.as_deref().unwrap()));
    let tunnel = one.tunnel(&format!("a.example:{}", far.port)).await;
    let name = ServerName::try_from("a.example").unwrap();
    assert!(TlsConnector::from(Arc::new(config)).connect(name, tunnel).await.is_err(), "another sandbox's is no good");
    // As after a kill between the two.
    fs::remove_file(&one.socket).unwrap();
    assert_eq!(one.egress.left().unwrap(), [SLOT]);
    one.egress.close(SLOT).unwrap();
    assert!(!pem.exists() && one.egress.left().unwrap().is_empty());
    let plain = World::listed(&["a.example"], Told::with(&[]));
    assert_eq!(plain.authority, None);
}

#[tokio::test]
async fn a_server_is_spoken_to_as_one_of_tls_even_over_a_stream_that_stalls() {
    // The far end takes the connection and never says a word of TLS.
    let listener = TcpListener::bind((IpAddr::from(HERE), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let held = std::thread::spawn(move || listener.accept().map(|(stream, _)| -> TcpStream { stream }));
    let far = tls_server("a.example", PAGE);
    let caps = Caps { answer_within: Duration::from_millis(300), ..CAPS };
    let names = Told::with(&[("a.example", &[HERE])]);
    let plan = Plan { caps, secrets: vec!["KEY"], roots: far.roots.clone(), ..Plan::new(only(&["a.example"]), names) };
    let world = World::of(plan);
    world.credentials.keep("KEY", &["a.example"], VALUE);
    let request = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let answer = world.ask_securely(&format!("a.example:{port}"), request).await;
    assert_eq!(error(&answer), "tls_certificate_error");
    drop(held.join());
}
