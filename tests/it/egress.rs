//! The way out of a sandbox: only what `allowNet` lists, and no private address by any road (row C1).

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use crate::support::{Daemon, RUNTIMES, Settings};

const HERE: [u8; 4] = [127, 0, 0, 1];
/// Of this host as well, and not among what the daemons of this file may reach.
const PRIVATE: [u8; 4] = [127, 0, 0, 2];

/// A web server on this host. `/to?URL` redirects there, everything else is a page with what was asked for. Each request's
/// first line is told.
fn server(address: [u8; 4]) -> (u16, Receiver<String>) {
    let listener = TcpListener::bind((IpAddr::from(address), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                    break;
                }
                lines.push(line.trim_end().to_owned());
            }
            let Some(first) = lines.first() else { continue };
            drop(tell.send(first.clone()));
            let path = first.split(' ').nth(1).unwrap_or_default();
            let answer = match path.split_once("/to?") {
                Some((_, url)) => format!("HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n"),
                None => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\nserved {path}", path.len() + 7),
            };
            let mut stream = &stream;
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    (port, told)
}

/// Tells for each URL what came of it: the page, or that it was refused, and by whom.
const FETCHES: &str = r#"
import net from "node:net";
const attempt = async (url) => {
  try {
    const answer = await fetch(url);
    const text = await answer.text();
    return answer.headers.has("proxy-status") ? "refused: " + answer.headers.get("proxy-status") : text;
  } catch (e) { return "refused" }
};
const tcp = (host, port) => new Promise((done) => {
  try {
    const socket = net.connect(port, host, () => done("reached"));
    socket.on("error", () => done("refused"));
  } catch { done("refused") }
});
export const handler = async (event) => {
  const seen = {};
  for (const url of event.data.urls) seen[url] = await attempt(url);
  for (const [host, port] of event.data.hosts ?? []) seen[host + ":" + port] = await tcp(host, port);
  return seen;
};"#;

async fn admitting_here() -> Daemon {
    Daemon::start_with(Settings::default().set("sandbox.egress.allow_private", "127.0.0.1/32")).await
}

async fn seen(daemon: &Daemon, runtime: &str, permissions: Value, data: Value) -> serde_json::Map<String, Value> {
    let client = daemon.client();
    let request = json!({ "mainModule": "main.js", "modules": { "main.js": FETCHES }, "runtime": runtime,
        "permissions": permissions });
    let made = client.set_up(request).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let body = json!({ "data": data, "limits": { "timeoutMs": 60000 } });
    let answer = client.execute(made.json["id"].as_str().unwrap(), body).await;
    answer.expect("ok").result().as_object().unwrap().clone()
}

#[tokio::test]
async fn c1_with_a_list_only_the_listed_host_and_port_is_reached() {
    let daemon = admitting_here().await;
    let ((port, asked), (other, unasked), (private, never)) = (server(HERE), server(HERE), server(PRIVATE));
    let own_port: u16 = daemon.url.rsplit(':').next().unwrap().parse().unwrap();
    let listed = format!("http://127.0.0.1:{port}/page?q=secret");
    let onwards = format!("http://127.0.0.1:{port}/to?http://127.0.0.1:{port}/second");
    let refused = [
        format!("http://127.0.0.1:{other}/"),
        format!("http://localhost:{port}/"),
        format!("http://127.0.0.1:{own_port}/health"),
        format!("http://127.0.0.2:{private}/"),
        format!("http://private.example:{private}/"),
        format!("https://127.0.0.1:{port}/"),
        format!("http://127.0.0.1:{port}/to?http://127.0.0.2:{private}/"),
        format!("http://127.0.0.1:{port}/to?http://127.0.0.1:{other}/"),
        format!("http://127.0.0.1:{port}/to?http://169.254.169.254/latest/meta-data"),
        format!("http://127.0.0.1:{port}/to?http://[::ffff:127.0.0.2]:{private}/"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://[fd00:ec2::254]/".to_owned(),
    ];
    let permissions = json!({ "allowNet": [format!("127.0.0.1:{port}"), format!("127.0.0.2:{private}"),
        "169.254.169.254", "[fd00:ec2::254]", "[::ffff:127.0.0.2]", "*.private.example"], "allowEnv": [] });
    for runtime in RUNTIMES {
        let urls: Vec<&String> = [&listed, &onwards].into_iter().chain(&refused).collect();
        let hosts = json!([["127.0.0.1", port], ["169.254.169.254", 80], ["1.1.1.1", 443]]);
        let seen = seen(&daemon, runtime, permissions.clone(), json!({ "urls": urls, "hosts": hosts })).await;
        assert_eq!(seen[&listed], "served /page?q=secret", "{runtime}: {seen:?}");
        assert_eq!(seen[&onwards], "served /second", "{runtime}: {seen:?}");
        for (what, how) in seen.iter().filter(|(what, _)| **what != listed && **what != onwards) {
            assert!(how.as_str().unwrap().starts_with("refused"), "{runtime}: {what}: {how}");
        }
    }
    assert!(asked.try_iter().count() >= 2 * 7);
    assert_eq!(
        (unasked.try_iter().count(), never.try_iter().count()),
        (0, 0),
        "something was reached that is not listed"
    );
    let log = daemon.log_text();
    assert!(log.contains("egress.allowed") && log.contains("egress.refused") && log.contains("not_public"), "{log}");
    assert!(!log.contains("secret") && !log.contains("meta-data"), "a path is in the log");
    let (_, health) = daemon.health("/healthz").await.unwrap();
    assert!(
        health["egress"]["allowed"].as_u64() >= Some(14) && health["egress"]["refused"].as_u64() >= Some(4),
        "{health}"
    );
    daemon.assert_nothing_left().await;
    let (_, health) = daemon.health("/healthz").await.unwrap();
    assert_eq!((&health["egress"]["gates"], &health["egress"]["connections"]), (&json!(0), &json!(0)));
}

#[tokio::test]
async fn c1_the_switch_opens_what_is_public_and_nothing_private() {
    let daemon = Daemon::start().await;
    let ((port, unasked), (private, never)) = (server(HERE), server(PRIVATE));
    let own_port: u16 = daemon.url.rsplit(':').next().unwrap().parse().unwrap();
    let urls = json!([
        format!("http://127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://127.0.0.2:{private}/"),
        format!("http://[::1]:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://127.0.0.1:{own_port}/health"),
        "http://10.0.0.1/",
        "http://192.168.0.1/",
        "http://169.254.169.254/latest/meta-data",
        "https://169.254.169.254/",
    ]);
    for runtime in RUNTIMES {
        let seen = seen(&daemon, runtime, json!({ "allowNet": true }), json!({ "urls": urls })).await;
        assert_eq!(seen.len(), 10);
        for (what, how) in seen {
            assert!(how.as_str().unwrap().starts_with("refused"), "{runtime}: {what}: {how}");
        }
    }
    assert_eq!((unasked.try_iter().count(), never.try_iter().count()), (0, 0));
}

#[tokio::test]
async fn an_operator_may_close_every_way_out() {
    let settings =
        Settings::default().set("sandbox.egress.allow_private", "127.0.0.1/32").set("sandbox.egress.enabled", "false");
    let daemon = Daemon::start_with(settings).await;
    let (port, unasked) = server(HERE);
    let url = format!("http://127.0.0.1:{port}/");
    for runtime in RUNTIMES {
        let permissions = json!({ "allowNet": [format!("127.0.0.1:{port}")] });
        assert_eq!(seen(&daemon, runtime, permissions, json!({ "urls": [url] })).await[&url], "refused", "{runtime}");
    }
    assert_eq!(unasked.try_iter().count(), 0);
}

#[tokio::test]
async fn what_is_no_rule_is_refused_at_set_up() {
    let daemon = Daemon::start().await;
    for entry in ["https://a.example", "*", "a.example:http", "10.0.0.0/8"] {
        let request = json!({ "mainModule": "main.js", "modules": { "main.js": "export const handler = () => 1" },
            "permissions": { "allowNet": [entry] } });
        let made = daemon.client().set_up(request).await;
        assert_eq!((made.status, &made.json["code"]), (400, &json!("validation_error")), "{}", made.text);
    }
}

#[tokio::test]
async fn a_handler_that_never_settles_is_seen_with_a_way_out_too() {
    let daemon = admitting_here().await;
    let (port, _asked) = server(HERE);
    let source = "export const handler = async (event) => { await (await fetch(event.data)).text(); await new Promise(() => {}) };";
    for runtime in RUNTIMES {
        let request = json!({ "mainModule": "main.js", "modules": { "main.js": source }, "runtime": runtime,
            "permissions": { "allowNet": [format!("127.0.0.1:{port}")] } });
        let made = daemon.client().set_up(request).await;
        let body = json!({ "data": format!("http://127.0.0.1:{port}/"), "limits": { "timeoutMs": 30000 } });
        let answer = daemon.client().execute(made.json["id"].as_str().unwrap(), body).await;
        assert_eq!(answer.json["outcome"], "no_result", "{runtime}: {}", answer.text);
    }
}

#[tokio::test]
async fn kill_9_with_a_request_on_its_way_leaves_no_socket_after_the_next_start() {
    let settings = || Settings::default().set("sandbox.egress.allow_private", "127.0.0.1/32");
    let daemon = Daemon::start_with(settings()).await;
    // It takes the connection and never answers.
    let listener = TcpListener::bind((IpAddr::from(HERE), 0)).unwrap();
    let url = format!("http://127.0.0.1:{}/", listener.local_addr().unwrap().port());
    let request = json!({ "mainModule": "main.js", "modules": { "main.js": FETCHES }, "runtime": "bun",
        "permissions": { "allowNet": ["127.0.0.1"] } });
    let made = daemon.client().set_up(request).await;
    let (client, id) = (daemon.client(), made.json["id"].as_str().unwrap().to_owned());
    let body = json!({ "data": { "urls": [url] }, "limits": { "timeoutMs": 60000 } });
    let call = tokio::spawn(async move { client.execute(&id, body).await });
    tokio::task::spawn_blocking(move || listener.accept().unwrap()).await.unwrap();
    let sockets = daemon.home.run().join("egress");
    assert_eq!(std::fs::read_dir(&sockets).unwrap().count(), 1);
    let home = daemon.kill_only();
    call.abort();
    let next = Daemon::start_in(home, settings()).await;
    next.assert_nothing_left().await;
    assert_eq!(std::fs::read_dir(&sockets).unwrap().count(), 0);
}
