//! WebSockets: in clear by either way that runtimes take, and in TLS that is ended.

use super::secrets::tls_server;
use super::*;

const ASKS: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n";
const TURNS: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Accept: y\r\n\r\n";

/// Turns, and then echoes.
fn turning(stream: &mut std::net::TcpStream, first: &[u8]) {
    if first.starts_with(b"GET /") {
        drop(stream.write_all(TURNS.as_bytes()));
        echo(stream, b"");
    }
}

/// Reads the answer's head, then says something and hears it again.
async fn turned(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    stream.write_all(b"\x81\x02hi").await.unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"\x81\x02hi");
    String::from_utf8(head).unwrap().to_lowercase()
}

#[tokio::test]
async fn one_in_clear_turns_whether_it_is_asked_for_with_the_whole_address_or_through_connect() {
    let (port, seen) = server(HERE, turning);
    let world = World::listed(&["a.example"], Told::with(&[("a.example", &[HERE])]));
    let authority = format!("a.example:{port}");
    let mut whole = world.connect().await;
    let request = format!("GET http://{authority}/ws HTTP/1.1\r\nHost: {authority}\r\n{ASKS}\r\n");
    whole.write_all(request.as_bytes()).await.unwrap();
    let head = turned(&mut whole).await;
    assert!(head.contains("\r\nconnection: upgrade\r\n"), "and no other word: {head}");
    assert!(head.contains("101 switching") && head.contains("sec-websocket-accept: y"), "{head}");
    let mut inside = world.tunnel(&authority).await;
    for piece in [&b"GE"[..], format!("T /ws HTTP/1.1\r\nHost: a.example\r\n{ASKS}\r\n").as_bytes()] {
        inside.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(turned(&mut inside).await.contains("upgrade: websocket"));
    for _ in 0..2 {
        let request = String::from_utf8(seen.recv().unwrap()).unwrap().to_lowercase();
        assert!(request.starts_with("get /ws http/1.1\r\n") && request.contains("upgrade: websocket"), "{request}");
        assert!(
            request.contains(&format!("host: {authority}")) && request.contains("sec-websocket-key: x"),
            "{request}"
        );
    }
    let picture = world.egress.picture();
    assert_eq!((picture.allowed, picture.refused, picture.connections), (2, 0, 2));
}

#[tokio::test]
async fn one_in_tls_that_is_ended_turns_and_gets_its_secret() {
    let far = tls_server("a.example", TURNS);
    let names = Told::with(&[("a.example", &[HERE])]);
    let plan = Plan { secrets: vec!["KEY"], roots: far.roots.clone(), ..Plan::new(only(&["a.example"]), names) };
    let world = World::of(plan);
    world.credentials.keep("KEY", &["a.example"], "a-value");
    let mut tls = world.secure(&format!("a.example:{}", far.port), &[b"http/1.1"]).await.unwrap();
    let mark = placeholder("KEY");
    let request = format!("GET /ws HTTP/1.1\r\nHost: a.example\r\nX-Key: {}\r\n{ASKS}\r\n", mark.as_str());
    tls.write_all(request.as_bytes()).await.unwrap();
    assert!(turned(&mut tls).await.contains("101"));
    assert!(far.request().contains("x-key: a-value\r\n"));
}

#[tokio::test]
async fn nothing_else_in_clear_comes_through_connect_and_nothing_else_turns() {
    let (port, seen) = server(HERE, turning);
    let world = World::listed(&["a.example"], Told::with(&[("a.example", &[HERE]), ("b.example", &[HERE])]));
    let authority = format!("a.example:{port}");
    for request in [
        "GET /ws HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(),
        format!("GET /ws HTTP/1.1\r\nHost: b.example\r\n{ASKS}\r\n"),
        format!("POST /ws HTTP/1.1\r\nHost: a.example\r\n{ASKS}\r\n"),
        format!("GET /ws HTTP/1.1\r\nHost: a.example\r\n{}\r\n", ASKS.replace("websocket", "h2c")),
        format!("GET http://b.example/ws HTTP/1.1\r\nHost: a.example\r\n{ASKS}\r\n"),
    ] {
        let mut tunnel = world.tunnel(&authority).await;
        drop(tunnel.write_all(request.as_bytes()).await);
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(5), tunnel.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "{request:?} is not answered to the end");
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
        assert_eq!(seen.recv().unwrap(), b"", "{request:?}: the server got a byte");
    }
    let unlisted = format!("GET http://b.example:{port}/ HTTP/1.1\r\nHost: b.example:{port}\r\n{ASKS}\r\n");
    assert_eq!(error(&world.ask(&unlisted).await), "http_request_denied");
    // Asked for with the whole address, what is no WebSocket is an ordinary request.
    let other = ASKS.replace("websocket", "h2c");
    let request = format!("GET http://{authority}/ws HTTP/1.1\r\nHost: {authority}\r\n{other}\r\n");
    let answer = world.ask(&request).await;
    assert_eq!(error(&answer), "destination_unavailable", "the server turned without being asked");
    let got = String::from_utf8(seen.recv().unwrap()).unwrap().to_lowercase();
    assert!(!got.contains("upgrade: h2c") && got.contains("connection: close"), "{got}");
}

#[tokio::test]
async fn one_that_stands_still_is_closed() {
    let (port, _seen) = server(HERE, turning);
    let caps = Caps { idle: Duration::from_millis(100), ..CAPS };
    let world = World::new(only(&["127.0.0.1"]), Told::with(&[]), caps);
    let mut stream = world.connect().await;
    let authority = format!("127.0.0.1:{port}");
    let request = format!("GET http://{authority}/ws HTTP/1.1\r\nHost: {authority}\r\n{ASKS}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    turned(&mut stream).await;
    let mut rest = Vec::new();
    drop(stream.read_to_end(&mut rest).await);
    assert_eq!(rest, b"");
}
