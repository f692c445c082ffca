//! The guard against doubles on this host, which only the tests' reach admits.

use std::net::TcpStream;

use super::*;
use crate::adapters::doubles::{Request, Server, answer};
use crate::boot::http;

fn fetcher(hosts: &[&str], reach: Reach) -> HttpFetcher {
    let client =
        guarded(http::builder(&http::Tls::of_this_host().expect("TLS")), reach.clone()).build().expect("a client");
    let hosts = Hosts::new(hosts.iter().map(|host| (*host).to_owned()));
    HttpFetcher::new(client, Settings { hosts, most_bytes: 1000, within: Duration::from_secs(10), reach })
}

/// As an operator would admit it.
fn here() -> Reach {
    Reach::and(["127.0.0.0/8", "::1"].map(|network| network.parse().expect("a network")))
}

fn server(script: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> (Server, String) {
    let server = Server::start(script);
    let base = format!("http://127.0.0.1:{}", server.address.port());
    (server, base)
}

const HERE: &[&str] = &["127.0.0.1", "localhost"];

#[tokio::test]
async fn a_listed_host_is_fetched_from_and_redirects_are_followed() {
    let (mut server, base) = server(|request, wire| match request.target.as_str() {
        "/a.png?sig=s" => answer(wire, 302, &[("Location", "/b.png")], b""),
        _ => answer(wire, 200, &[], b"PNG"),
    });
    let fetched = fetcher(HERE, here()).fetch(&format!("{base}/a.png?sig=s")).await;
    assert_eq!(fetched.expect("fetched").bytes(), b"PNG");
    assert_eq!([server.next().await.target, server.next().await.target], ["/a.png?sig=s", "/b.png"]);
    let by_name = format!("http://localhost:{}/x", server.address.port());
    assert!(fetcher(HERE, here()).fetch(&by_name).await.is_ok());
}

#[tokio::test]
async fn nothing_is_fetched_that_is_not_listed_not_public_or_not_of_the_web() {
    let (mut server, base) = server(|_, wire| answer(wire, 200, &[], b"internal"));
    let port = server.address.port();
    let private = |host: &str| FetchError::Private(host.to_owned());
    let listed = ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "[64:ff9b::7f00:1]"];
    for (hosts, url, expected) in [
        (&[][..], format!("{base}/x"), FetchError::NotAllowed),
        (&["example.com"], format!("{base}/x"), FetchError::Host("127.0.0.1".into())),
        (&listed, format!("{base}/x"), private("127.0.0.1")),
        (&listed, format!("http://2130706433:{port}/x"), private("127.0.0.1")),
        (&listed, format!("http://0x7f.1:{port}/x"), private("127.0.0.1")),
        (&listed, format!("http://localhost:{port}/x"), private("localhost")),
        (&listed, format!("http://[::1]:{port}/x"), private("[::1]")),
        (&listed, format!("http://[::ffff:127.0.0.1]:{port}/x"), private("[::ffff:7f00:1]")),
        (&listed, "http://169.254.169.254/latest/meta-data".into(), private("169.254.169.254")),
        (&listed, "http://[64:ff9b::7f00:1]/x".into(), private("[64:ff9b::7f00:1]")),
        (&listed, "file:///etc/passwd".into(), FetchError::Url),
        (&listed, "ftp://127.0.0.1/x".into(), FetchError::Url),
        (&listed, "no url".into(), FetchError::Url),
    ] {
        let hosts: Vec<&str> =
            hosts.iter().map(|host| if *host == "[::ffff:127.0.0.1]" { "[::ffff:7f00:1]" } else { host }).collect();
        assert_eq!(fetcher(&hosts, Reach::public()).fetch(&url).await, Err(expected), "{url}");
    }
    assert!(server.seen.try_recv().is_err(), "nothing came through");
}

#[tokio::test]
async fn a_redirect_goes_through_the_same_guard() {
    for (location, expected) in [
        ("http://169.254.169.254/", FetchError::Host("169.254.169.254".into())),
        ("http://10.0.0.1/", FetchError::Private("10.0.0.1".into())),
        ("file:///etc/passwd", FetchError::Url),
        ("//example.com/x", FetchError::Host("example.com".into())),
    ] {
        let (_server, base) = server(move |_, wire| answer(wire, 302, &[("Location", location)], b""));
        let fetched = fetcher(&["127.0.0.1", "10.0.0.1"], here()).fetch(&base).await;
        assert_eq!(fetched, Err(expected), "{location}");
    }
    let (_server, base) = server(|_, wire| answer(wire, 302, &[("Location", "/again")], b""));
    let fetched = fetcher(HERE, here()).fetch(&base).await;
    assert!(matches!(fetched, Err(FetchError::Unreachable { .. })), "{fetched:?}");
}

#[tokio::test]
async fn an_image_is_bounded_in_size_told_or_not_and_in_time() {
    let (_server, base) = server(|request, wire| match request.target.split('?').next().unwrap_or_default() {
        "/told" => answer(wire, 200, &[("Content-Length", "1001")], b""),
        "/silent" => {}
        "/missing" => answer(wire, 404, &[], b"not here"),
        _ => {
            use std::io::Write;
            let _caller_left = wire.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            let _caller_left = wire.write_all(&[7; 1001]);
            crate::adapters::doubles::cut(wire);
        }
    });
    let mut fetcher = fetcher(HERE, here());
    for path in ["told", "untold"] {
        assert_eq!(fetcher.fetch(&format!("{base}/{path}")).await, Err(FetchError::TooLarge(1000)), "{path}");
    }
    let missing = fetcher.fetch(&format!("{base}/missing?sig=secret")).await;
    assert_eq!(missing, Err(FetchError::Status { host: "127.0.0.1".into(), status: 404 }));
    fetcher.settings.within = Duration::from_millis(50);
    let silent = fetcher.fetch(&format!("{base}/silent?sig=secret")).await.expect_err("too slow").to_string();
    assert!(silent.starts_with("127.0.0.1 could not be reached") && !silent.contains("secret"), "{silent}");
}
