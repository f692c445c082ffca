//! Uploads to a double that looks at the signature's shape and keeps the bodies.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::adapters::clock::PausedClock;
use crate::adapters::doubles::{Request, Server, answer, cut};
use crate::boot::http;

fn store(brought_may_reach: bool) -> S3Store {
    let client = || http::builder(&http::Tls::of_this_host().expect("TLS")).build().expect("a client");
    let clients = Clients { own: client(), guarded: client(), may_reach: Arc::new(move |_: &Url| brought_may_reach) };
    let attempts = Attempts { most: 3, first_wait: Duration::from_millis(1) };
    S3Store::new(clients, Arc::new(PausedClock::start()), attempts)
}

fn bucket(server: &Server) -> Bucket {
    Bucket {
        endpoint: format!("http://{}", server.address),
        name: "out".into(),
        region: "eu-west-1".into(),
        access_id: "AKIDTEST".into(),
        access_secret: "secret-of-the-bucket".into(),
        prefix: "runs/2023".into(),
        brought: false,
    }
}

fn parts(target: &str) -> (String, BTreeMap<String, String>) {
    let url = Url::parse(&format!("http://s3{target}")).expect("a URL");
    (url.path().to_owned(), url.query_pairs().into_owned().collect())
}

/// What SigV4 in a query looks like, for this moment and region.
fn assert_signed(query: &BTreeMap<String, String>, lasting: &str) {
    assert_eq!(query["X-Amz-Algorithm"], "AWS4-HMAC-SHA256");
    assert_eq!(query["X-Amz-Credential"], "AKIDTEST/20231114/eu-west-1/s3/aws4_request");
    assert_eq!(query["X-Amz-Date"], "20231114T221320Z");
    assert_eq!(query["X-Amz-Expires"], lasting);
    assert_eq!(query["X-Amz-SignedHeaders"], "host");
    let signature = &query["X-Amz-Signature"];
    assert!(signature.len() == 64 && signature.bytes().all(|byte| byte.is_ascii_hexdigit()), "{signature}");
    assert_eq!(query.len(), 6);
}

async fn put(store: &S3Store, bucket: &Bucket, key: &str) -> Result<String, UploadError> {
    store.put(bucket, key, "image/png", Secret::from("PNG".to_owned()), LONGEST_LINK * 2).await
}

#[tokio::test]
async fn an_object_is_put_whole_and_its_link_reads_it_for_seven_days() {
    let mut server = Server::start(|_, wire| answer(wire, 200, &[], b""));
    let link = put(&store(true), &bucket(&server), "job-1/a b.png").await.expect("stored");
    let seen = server.next().await;
    let (path, query) = parts(&seen.target);
    assert_eq!((seen.method.as_str(), path.as_str()), ("PUT", "/out/runs/2023/job-1/a%20b.png"));
    assert_signed(&query, "3600");
    assert_eq!(seen.body, b"PNG");
    let value = |name: &str| seen.header(name);
    assert_eq!((value("content-type"), value("content-length")), (Some("image/png"), Some("3")));
    assert_eq!((value("transfer-encoding"), value("authorization")), (None, None));
    assert!(!seen.headers.iter().any(|(name, _)| name.starts_with("x-amz")), "{:?}", seen.headers);
    assert!(!seen.target.contains("secret-of"));
    let target = link.strip_prefix(&format!("http://{}", server.address)).expect("the same host");
    let (path, query) = parts(target);
    assert_eq!(path, "/out/runs/2023/job-1/a%20b.png");
    assert_signed(&query, "604800");
}

#[tokio::test]
async fn a_bucket_without_a_name_is_named_after_the_month() {
    let mut server = Server::start(|_, wire| answer(wire, 200, &[], b""));
    let bucket = Bucket { name: String::new(), prefix: String::new(), ..bucket(&server) };
    put(&store(true), &bucket, "job-1/x.png").await.expect("stored");
    assert!(server.next().await.target.starts_with("/11-23/job-1/x.png?"));
}

#[tokio::test]
async fn resets_and_the_stores_own_troubles_are_tried_again() {
    let calls = AtomicUsize::new(0);
    let mut server = Server::start(move |_: &Request, wire| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => cut(wire),
        1 => answer(wire, 503, &[], b"<Error><Code>SlowDown</Code></Error>"),
        _ => answer(wire, 200, &[], b""),
    });
    put(&store(true), &bucket(&server), "k").await.expect("stored at last");
    for _ in 0..3 {
        assert_eq!(server.next().await.body, b"PNG");
    }
}

#[tokio::test]
async fn a_refusal_is_final_and_trouble_without_end_is_told_by_host_and_status() {
    for (status, calls) in [(403, 1), (404, 1), (500, 3)] {
        let mut server = Server::start(move |_, wire| answer(wire, status, &[], b"<Error/>"));
        let outcome = put(&store(true), &bucket(&server), "k").await;
        assert_eq!(outcome, Err(UploadError::Refused { host: "127.0.0.1".into(), status }));
        for _ in 0..calls {
            server.next().await;
        }
        assert!(server.seen.try_recv().is_err());
    }
    let server = Server::start(|_, wire| cut(wire));
    let text = put(&store(true), &bucket(&server), "k").await.expect_err("unreachable").to_string();
    assert!(text.starts_with("127.0.0.1 could not be reached: ") && !text.contains("X-Amz"), "{text}");
}

#[tokio::test]
async fn a_strangers_bucket_goes_through_the_guard_and_no_key_leaves_its_bucket() {
    let server = Server::start(|_, wire| answer(wire, 200, &[], b""));
    let brought = Bucket { brought: true, ..bucket(&server) };
    assert_eq!(put(&store(false), &brought, "k").await, Err(UploadError::Address));
    assert!(put(&store(true), &brought, "k").await.is_ok());
    let odd = Bucket { endpoint: "ftp://s3".into(), ..bucket(&server) };
    assert_eq!(put(&store(true), &odd, "k").await, Err(UploadError::Address));
    assert_eq!(whole_key("p/", "../a//./b.png").as_deref(), Some("p/a/b.png"));
    assert_eq!(whole_key("p", "../.."), None);
    assert_eq!(whole_key("", "a").as_deref(), Some("a"));
}
