//! Against doubles on this host, which only the tests' guard admits.

use super::*;
use crate::adapters::doubles::{Server, answer};
use crate::boot::http;

fn teller(may_reach: bool) -> HttpTeller {
    let make = || Ok(http::builder(&http::Tls::of_this_host().expect("TLS")).build().expect("a client"));
    HttpTeller::new(Arc::new(make), Arc::new(move |_: &Url| may_reach), |_| false, Duration::from_millis(500))
}

fn hook(server: &Server, path: &str) -> Webhook {
    let secret = Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
    Webhook { url: format!("http://127.0.0.1:{}{path}", server.address.port()), secret }
}

const NOW: WallTime = WallTime(1_614_265_330_999);

/// The example of the Standard Webhooks specification.
#[test]
fn the_signature_is_the_specifications_own() {
    let key = base64::decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
    assert_eq!(signed.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
}

#[tokio::test]
async fn a_message_is_posted_signed_and_a_webhook_without_a_secret_is_not() {
    let mut server = Server::start(|_, wire| answer(wire, 204, &[], b""));
    let webhook = hook(&server, "/hook?token=t");
    teller(true).tell(&webhook, "msg_1", r#"{"a":1}"#.into(), NOW).await.unwrap();
    let heard = server.next().await;
    assert_eq!((heard.method.as_str(), heard.target.as_str()), ("POST", "/hook?token=t"));
    assert_eq!(heard.body, br#"{"a":1}"#);
    assert_eq!(heard.header("content-type"), Some("application/json"));
    assert_eq!((heard.header("webhook-id"), heard.header("webhook-timestamp")), (Some("msg_1"), Some("1614265330")));
    let key = webhook.key().unwrap();
    assert_eq!(
        heard.header("webhook-signature").map(str::to_owned),
        signature(&key, "msg_1", 1_614_265_330, r#"{"a":1}"#)
    );
    teller(true).tell(&Webhook { secret: None, ..webhook }, "msg_1", "{}".into(), NOW).await.unwrap();
    assert_eq!(server.next().await.header("webhook-signature"), None);
}

#[tokio::test]
async fn what_is_refused_redirected_silent_or_private_is_told_apart() {
    let mut server = Server::start(|request, wire| match request.target.as_str() {
        "/gone" => answer(wire, 410, &[], b""),
        "/elsewhere" => answer(wire, 302, &[("Location", "/there")], b""),
        "/silent" => {}
        _ => answer(wire, 500, &[], b"secret words"),
    });
    let host = || "127.0.0.1".to_owned();
    let status = |status| Err(WebhookError::Status { host: host(), status });
    let tell = async |path: &str| teller(true).tell(&hook(&server, path), "msg_1", "{}".into(), NOW).await;
    assert_eq!(
        (tell("/").await, tell("/gone").await, tell("/elsewhere").await),
        (status(500), status(410), status(302))
    );
    let silent = tell("/silent").await.unwrap_err();
    assert!(silent.may_pass() && silent.to_string().ends_with("it did not answer in time"), "{silent}");
    assert!(!status(410).unwrap_err().may_pass() && status(500).unwrap_err().may_pass());
    for _ in 0..4 {
        server.next().await;
    }
    let private = teller(false).tell(&hook(&server, "/"), "msg_1", "{}".into(), NOW).await;
    assert_eq!(private, Err(WebhookError::Private(host())));
    assert!(server.seen.try_recv().is_err(), "nothing came through");
}
