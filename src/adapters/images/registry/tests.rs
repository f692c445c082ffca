//! Requests to a registry that is told what to answer.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::*;
use crate::adapters::doubles::{Request, Server, answer};
use crate::adapters::images::blobs::{BlobError, Blobs};
use crate::domain::image::{Descriptor, Digest, ImageSource};

fn descriptor(bytes: &[u8]) -> Descriptor {
    let digest = Digest::of_bytes(&Sha256::digest(bytes));
    Descriptor { digest, size: bytes.len() as u64, platform: None }
}

fn session(authority: &str, rest: &str, auth: Option<&str>) -> (Session, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let Ok(ImageSource::Registry(reference)) = format!("{authority}/{rest}").parse() else { panic!("{authority}") };
    let credentials = auth.and_then(|auth| {
        let path = dir.path().join("auth.json");
        std::fs::write(&path, format!(r#"{{"auths": {{"{authority}": {{"auth": "{auth}"}}}}}}"#)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        Credentials::find(&path, &reference).unwrap()
    });
    let _chosen_before = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    (Session::new(client, reference, PlainHosts::default(), credentials, dir.path().to_owned()), dir)
}

fn told(error: &dyn std::error::Error) -> String {
    crate::telemetry::error_chain(error).to_string()
}

#[tokio::test]
async fn a_token_is_got_with_the_credentials_and_shown_to_the_registry_alone() {
    let cdn = Server::start(|_: &Request, stream: &mut TcpStream| answer(stream, 200, &[], b"layer"));
    let elsewhere = format!("http://{}/signed?secret=1", cdn.address);
    let mut registry = Server::start(move |request: &Request, stream: &mut TcpStream| {
        let host = request.header("host").unwrap_or_default().to_owned();
        match (request.target.split('?').next().unwrap_or_default(), request.header("authorization")) {
            ("/token", Some("Basic dXNlcjpwYXNz")) => answer(stream, 200, &[], br#"{"access_token": "t0ken"}"#),
            ("/token", _) => answer(stream, 401, &[], b""),
            (_, Some("Bearer t0ken")) if request.target.contains("/blobs/") => {
                answer(stream, 307, &[("Location", &elsewhere)], b"");
            }
            (_, Some("Bearer t0ken")) => answer(stream, 200, &[], b"manifest"),
            _ => {
                let challenge =
                    format!("Bearer realm=\"http://{host}/token\",service=\"s\",scope=\"repository:a/b:pull\"");
                answer(stream, 401, &[("WWW-Authenticate", &challenge)], b"");
            }
        }
    });
    let (session, _dir) = session(&registry.address.to_string(), "a/b:1", Some("dXNlcjpwYXNz"));
    assert_eq!(session.top().await.unwrap(), b"manifest");
    let mut layer = session.layer(&descriptor(b"layer")).await.unwrap();
    let mut text = String::new();
    std::io::Seek::rewind(&mut layer).and_then(|()| std::io::Read::read_to_string(&mut layer, &mut text)).unwrap();
    assert_eq!(text, "layer");
    let targets = [
        "/v2/a/b/manifests/1",
        "/token?service=s&scope=repository%3Aa%2Fb%3Apull",
        "/v2/a/b/manifests/1",
        &format!("/v2/a/b/blobs/{}", descriptor(b"layer").digest),
    ];
    for target in targets {
        assert_eq!(registry.next().await.target, target);
    }
    let mut cdn = cdn;
    assert_eq!(cdn.next().await.header("authorization"), None);
    session.layer(&descriptor(b"layer")).await.unwrap();
    assert!(registry.seen.try_recv().is_err(), "what was fetched is not fetched again");
}

#[tokio::test]
async fn basic_rights_are_shown_only_when_they_are_asked_for() {
    let mut registry =
        Server::start(|request: &Request, stream: &mut TcpStream| match request.header("authorization") {
            Some("Basic dTpw") => answer(stream, 200, &[], b"manifest"),
            _ => answer(stream, 401, &[("WWW-Authenticate", "Basic realm=\"r\"")], b""),
        });
    let authority = registry.address.to_string();
    let (with, _dir) = session(&authority, "a:1", Some("dTpw"));
    assert_eq!(with.top().await.unwrap(), b"manifest");
    assert_eq!(registry.next().await.header("authorization"), None);
    let (without, _dir) = session(&authority, "a:1", None);
    let error = told(&without.top().await.unwrap_err());
    assert!(error.contains("answered 401 for the manifest 1") && error.contains("auth_file"), "{error}");
}

#[tokio::test]
async fn what_is_not_what_its_digest_says_is_refused() {
    let registry = Server::start(|request: &Request, stream: &mut TcpStream| {
        let told = ("Docker-Content-Digest", "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
        match request.target.as_str() {
            "/v2/a/manifests/lies" => answer(stream, 200, &[told], b"manifest"),
            "/v2/a/manifests/large" => answer(stream, 200, &[], &vec![b' '; (4 << 20) + 1]),
            _ => answer(stream, 200, &[], b"other"),
        }
    });
    let authority = registry.address.to_string();
    let pinned = format!("a@{}", descriptor(b"wanted").digest);
    for (rest, says) in
        [("a:lies", "says that the manifest is"), ("a:large", "more than 4194304 bytes"), (&*pinned, "has the digest")]
    {
        let error = told(&session(&authority, rest, None).0.top().await.unwrap_err());
        assert!(error.contains(says), "{rest}: {error}");
    }
    let (session, dir) = session(&authority, "a:1", None);
    let longer = Descriptor { size: 9, ..descriptor(b"other") };
    for (wanted, says) in
        [(descriptor(b"wanted"), "more than"), (longer, "5 bytes"), (descriptor(b"OTHER"), "has the digest")]
    {
        let wanted = if says == "more than" { Descriptor { size: 3, ..wanted } } else { wanted };
        let error = told(&session.layer(&wanted).await.unwrap_err());
        assert!(error.contains(says), "{says}: {error}");
        let error = told(&session.config(&wanted).await.unwrap_err());
        assert!(error.contains("bytes") || error.contains("has the digest"), "{error}");
        assert!(!dir.path().join(wanted.digest.hex()).exists());
    }
    // What was kept is looked at again, too.
    std::fs::write(dir.path().join(descriptor(b"wanted").digest.hex()), "wantex").unwrap();
    assert!(matches!(session.layer(&descriptor(b"wanted")).await, Err(BlobError::Digest(..))));
}

#[tokio::test]
async fn no_way_leads_to_plain_http_elsewhere_and_none_is_endless() {
    let registry = Server::start(|request: &Request, stream: &mut TcpStream| match request.target.as_str() {
        "/v2/a/manifests/out" => answer(stream, 302, &[("Location", "http://registry.example/x")], b""),
        "/v2/a/manifests/meta" => answer(stream, 302, &[("Location", "http://169.254.169.254/x")], b""),
        "/v2/a/manifests/file" => answer(stream, 302, &[("Location", "file:///etc/passwd")], b""),
        "/v2/a/manifests/none" => answer(stream, 302, &[], b""),
        "/v2/a/manifests/realm" => {
            let challenge = "Bearer realm=\"http://registry.example/token\"";
            answer(stream, 401, &[("WWW-Authenticate", challenge)], b"");
        }
        "/v2/a/manifests/odd" => answer(stream, 401, &[("WWW-Authenticate", "Negotiate")], b""),
        "/v2/a/manifests/gone" => answer(stream, 404, &[], b""),
        other => answer(stream, 302, &[("Location", other)], b""),
    });
    let authority = registry.address.to_string();
    for (tag, says) in [
        ("out", "plain HTTP"),
        ("meta", "plain HTTP"),
        ("file", "plain HTTP"),
        ("realm", "plain HTTP"),
        ("none", "redirects"),
        ("loop", "redirects without end"),
        ("odd", "which rights"),
        ("gone", "there is no such image"),
    ] {
        let error = told(&session(&authority, &format!("a:{tag}"), Some("dTpw")).0.top().await.unwrap_err());
        assert!(error.contains(says) && !error.contains("dTpw"), "{tag}: {error}");
    }
}

#[tokio::test]
async fn a_registry_that_is_away_is_named() {
    let (session, _dir) = session("127.0.0.1:1", "a:1", None);
    let error = session.top().await.unwrap_err();
    assert!(error.may_pass() && told(&error).contains("127.0.0.1:1 cannot be reached"), "{}", told(&error));
}
