//! Over real connections: callers that hang up, dawdle, or send without end.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::harness::{House, Plan, Scripts, TOKEN, Told, execute_path};
use crate::api::{DoorError, HttpSettings, Intake, serve_http};

struct Open {
    house: House,
    address: SocketAddr,
    server: ServerHandle,
}

fn open(plan: Plan) -> Open {
    let house = House::build(plan);
    let settings = HttpSettings {
        port: 0,
        workers: 1,
        header_deadline: Duration::from_millis(200),
        stop_within: Duration::from_secs(1),
        ..HttpSettings::default()
    };
    let (server, address) = serve_http(Arc::clone(&house.doors), &settings).unwrap();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    Open { house, address, server: handle }
}

impl Open {
    /// Connects and sends a request's head, and what is to come after it.
    async fn send(&self, method: &str, path: &str, rest: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n{rest}");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }
}

async fn text_of(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset after the answer, because our own body was still on its way, does not matter.
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

#[actix_web::test]
async fn a_caller_who_hangs_up_has_his_call_cancelled() {
    let hold = Arc::new(Notify::new());
    let scripts = Scripts { hold: Some(Arc::clone(&hold)), ..Scripts::default() };
    let mut open = open(Plan { scripts, ..Plan::default() });
    let stream = open.send("POST", &execute_path(), "Content-Length: 2\r\n\r\n{}").await;
    let Some(Told::Execute(call)) = open.house.told.recv().await else { panic!("the call is told first") };
    drop(stream);
    let Some(Told::Cancel(cancelled)) = open.house.told.recv().await else { panic!("then its end") };
    assert_eq!(cancelled, call.execution);
    hold.notify_one();
    open.server.stop(true).await;
    let log = open.house.log.text();
    assert!(log.contains(r#""status":499"#) && log.contains(r#""outcome":"hung_up""#), "{log}");
}

#[actix_web::test]
async fn a_caller_who_stays_for_the_answer_cancels_nothing() {
    let mut open = open(Plan::default());
    let rest = "Connection: close\r\nContent-Length: 2\r\n\r\n{}";
    let text = text_of(open.send("POST", &execute_path(), rest).await).await;
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    open.server.stop(true).await;
    assert!(matches!(open.house.heard().as_slice(), [Told::Execute(_)]));
}

#[actix_web::test]
async fn a_chunked_body_without_end_is_cut_at_the_cap() {
    let open = open(Plan::default());
    let mut stream = open.send("POST", "/environments/setup", "Transfer-Encoding: chunked\r\n\r\n").await;
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    for _ in 0..176 {
        if stream.write_all(chunk.as_bytes()).await.is_err() {
            break;
        }
    }
    let text = text_of(stream).await;
    assert!(text.starts_with("HTTP/1.1 413") && text.contains("request_too_large"), "{text}");
    assert!(text.contains("connection: close") && text.contains("x-request-id: "), "{text}");
    open.server.stop(true).await;
}

#[actix_web::test]
async fn whoever_is_refused_cannot_keep_the_connection_by_sending_on() {
    let open = open(Plan::default());
    let heads = [
        "GET /environments HTTP/1.1\r\nHost: x\r\n".to_owned(),
        format!("GET /nothing HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"),
    ];
    for head in heads {
        let mut stream = TcpStream::connect(open.address).await.unwrap();
        stream.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
        while stream.write_all(b"1\r\nx\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    open.server.stop(true).await;
}

#[actix_web::test]
async fn whoever_has_no_token_gets_one_answer_for_each_connection() {
    let open = open(Plan::default());
    let with_token = format!("GET /environments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    for (path, status) in [("/health", 200), ("/environments", 401)] {
        let one = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        for sent in [one.clone(), one.repeat(1000), format!("{one}{with_token}")] {
            let mut stream = TcpStream::connect(open.address).await.unwrap();
            stream.write_all(sent.as_bytes()).await.unwrap();
            let text = text_of(stream).await;
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
            assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
            assert!(text.contains("connection: close\r\n") && text.contains("x-request-id: "), "{text}");
        }
    }
    open.server.stop(true).await;
}

#[actix_web::test]
async fn whoever_has_the_token_may_send_ahead() {
    let open = open(Plan::default());
    let rest = format!(
        "\r\nGET /environments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    );
    let text = text_of(open.send("GET", "/health", &rest).await).await;
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
    open.server.stop(true).await;
}

#[actix_web::test]
async fn a_body_that_dawdles_is_given_up() {
    let intake = Intake::new(Duration::from_millis(100), 1 << 20);
    let open = open(Plan { intake, ..Plan::default() });
    let stream = open.send("POST", &execute_path(), "Content-Length: 100\r\n\r\n{").await;
    let text = text_of(stream).await;
    assert!(text.starts_with("HTTP/1.1 408") && text.contains("request_timeout"), "{text}");
    open.server.stop(true).await;
}

#[actix_web::test]
async fn headers_that_dawdle_are_given_up() {
    let open = open(Plan::default());
    let stream = open.send("GET", "/health", "X-Slow: ").await;
    let text = text_of(stream).await;
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    open.server.stop(true).await;
}

#[actix_web::test]
async fn a_body_that_ends_early_tells_nobody_anything() {
    let mut open = open(Plan::default());
    let mut stream = open.send("POST", &execute_path(), "Content-Length: 100\r\n\r\n{}").await;
    stream.shutdown().await.unwrap();
    text_of(stream).await;
    open.server.stop(true).await;
    assert!(open.house.heard().is_empty());
}

#[actix_web::test]
async fn a_taken_port_is_an_error_before_anything_runs() {
    let open = open(Plan::default());
    let settings =
        HttpSettings { address: IpAddr::V4(Ipv4Addr::LOCALHOST), port: open.address.port(), ..HttpSettings::default() };
    let taken = serve_http(Arc::clone(&open.house.doors), &settings).map(|_| ());
    assert!(matches!(&taken, Err(DoorError::Port { .. })), "{taken:?}");
    open.server.stop(true).await;
}
