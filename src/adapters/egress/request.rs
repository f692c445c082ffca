//! The one request of a connection: CONNECT for TLS, or plain HTTP with the whole address in its first line.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::{BoxFuture, join};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::{PathAndQuery, Scheme, Uri};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, client, server};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::oneshot;

use super::dial::dial;
use super::gate::Gate;
use super::metered::Metered;
use super::{lock, tunnel};
use crate::domain::egress::{Destination, Refusal};

/// The largest head of a request or an answer, in bytes.
const HEAD: usize = 64 * 1024;
/// Headers that are between two neighbours only (RFC 9110 §7.6.1), and two of the same kind that some clients send.
const HOP_BY_HOP: [HeaderName; 9] = [
    HeaderName::from_static("connection"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("te"),
    HeaderName::from_static("trailer"),
    HeaderName::from_static("transfer-encoding"),
    HeaderName::from_static("upgrade"),
];

type Body = BoxBody<Bytes, hyper::Error>;
/// What goes on beside the answer, and after it.
type Rest = BoxFuture<'static, ()>;

/// Serves one request, and what follows from it.
pub(super) async fn serve_one(stream: Metered, gate: Arc<Gate>) {
    let (begin_rest, rest) = oneshot::channel::<Rest>();
    let begin_rest = Mutex::new(Some(begin_rest));
    let deadline = gate.caps.answer_within;
    let service = service_fn(|request| {
        let begin_rest = lock(&begin_rest).take();
        answer(Arc::clone(&gate), request, begin_rest)
    });
    let served = server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(deadline)
        .keep_alive(false)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let follow = async {
        if let Ok(rest) = rest.await {
            rest.await;
        }
    };
    let served = async {
        // Whatever went wrong on the wire, both ends are closed by now, and there is nobody to tell.
        let _served = served.await;
        // Where no request came, nothing follows either.
        drop(lock(&begin_rest).take());
    };
    join(served, follow).await;
}

async fn answer(
    gate: Arc<Gate>,
    request: Request<Incoming>,
    begin_rest: Option<oneshot::Sender<Rest>>,
) -> Result<Response<Body>, Infallible> {
    let wanted = wanted(&request);
    let to = wanted.as_ref().ok();
    let answered = match (&wanted, begin_rest) {
        (Err(refusal), _) => gate.ask().and(Err(*refusal)),
        (Ok(_), None) => Err(Refusal::Malformed),
        (Ok(to), Some(begin_rest)) => judged(&gate, to, request, begin_rest).await,
    };
    Ok(answered.unwrap_or_else(|refusal| {
        gate.note(to, Err(refusal));
        refused(refusal)
    }))
}

/// Where a request wants to go, when it is one that a proxy takes.
fn wanted<B>(request: &Request<B>) -> Result<Destination, Refusal> {
    let (uri, connects) = (request.uri(), request.method() == Method::CONNECT);
    let (scheme, default_port) = if connects { (None, None) } else { (Some(&Scheme::HTTP), Some(80)) };
    let authority = uri.authority().filter(|_| uri.scheme() == scheme).ok_or(Refusal::Malformed)?;
    let to = Destination::parse(authority.as_str(), default_port).ok_or(Refusal::Malformed)?;
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => Ok(to),
        (Some(host), None) => {
            let told =
                host.to_str().ok().and_then(|host| Destination::parse(host, Some(default_port.unwrap_or(to.port()))));
            if told.as_ref() == Some(&to) { Ok(to) } else { Err(Refusal::OtherName) }
        }
        (Some(_), Some(_)) => Err(Refusal::Malformed),
    }
}

async fn judged(
    gate: &Arc<Gate>,
    to: &Destination,
    request: Request<Incoming>,
    begin_rest: oneshot::Sender<Rest>,
) -> Result<Response<Body>, Refusal> {
    gate.ask()?;
    gate.policy.judge(to)?;
    let far = dial(gate, to).await?;
    if request.method() == Method::CONNECT {
        let upgrade = hyper::upgrade::on(request);
        let (gate, to) = (Arc::clone(gate), to.clone());
        let rest = Box::pin(async move {
            if let Ok(near) = upgrade.await {
                tunnel::follow(&gate, &to, TokioIo::new(near), far).await;
            }
        });
        let _connection_is_gone = begin_rest.send(rest);
        return Ok(Response::new(Empty::new().map_err(|never| match never {}).boxed()));
    }
    gate.note(Some(to), Ok(()));
    let mut builder = client::conn::http1::Builder::new();
    builder.max_buf_size(HEAD);
    let (mut sender, connection) = builder.handshake(TokioIo::new(far)).await.map_err(|_| Refusal::Unreachable)?;
    let driver = Box::pin(async move {
        let _answered_or_not = connection.await;
    });
    let _connection_is_gone = begin_rest.send(driver);
    let answer = sender.send_request(passed_on(request, to)?).await.map_err(|_| Refusal::Unreachable)?;
    let (mut parts, body) = answer.into_parts();
    strip(&mut parts.headers);
    Ok(Response::from_parts(parts, body.boxed()))
}

/// The request as the server gets it.
fn passed_on(request: Request<Incoming>, to: &Destination) -> Result<Request<Incoming>, Refusal> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    strip(&mut parts.headers);
    let host = if to.port() == 80 { to.to_string().trim_end_matches(":80").to_owned() } else { to.to_string() };
    parts.headers.insert(HOST, HeaderValue::from_str(&host).map_err(|_| Refusal::Malformed)?);
    parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    parts.uri = Uri::from(path);
    Ok(Request::from_parts(parts, body))
}

/// Takes out what concerns two neighbours only, the headers that `Connection` names among them.
fn strip(headers: &mut HeaderMap) {
    let listed = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<HeaderName> =
        listed.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Says that it is the proxy that speaks, and why (RFC 9209).
fn refused(refusal: Refusal) -> Response<Body> {
    let text = Full::from(format!("egress: {refusal}\n")).map_err(|never| match never {}).boxed();
    let mut response = Response::new(text);
    *response.status_mut() = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::FORBIDDEN);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if let Ok(status) = HeaderValue::from_str(&format!("cloister; error={}", refusal.proxy_error())) {
        headers.insert("proxy-status", status);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str, hosts: &[&str]) -> Request<()> {
        let (method, uri) = line.split_once(' ').expect("two words");
        let builder = Request::builder().method(method).uri(uri);
        hosts.iter().fold(builder, |builder, host| builder.header(HOST, *host)).body(()).expect("a request")
    }

    #[test]
    fn a_request_wants_one_place_or_is_refused() {
        for (line, hosts, expected) in [
            ("CONNECT a.example:443", &["a.example:443"][..], "a.example:443"),
            ("CONNECT a.example:443", &["A.Example"], "a.example:443"),
            ("CONNECT a.example:443", &[], "a.example:443"),
            ("GET http://a.example/x?y", &["a.example"], "a.example:80"),
            ("GET http://a.example:80/", &["a.example"], "a.example:80"),
            ("GET http://[::1]:8080/", &["[0::1]:8080"], "[::1]:8080"),
        ] {
            let found = wanted(&request(line, hosts)).map(|to| to.to_string());
            assert_eq!(found.as_deref(), Ok(expected), "{line}");
        }
        for (line, hosts, expected) in [
            ("GET /x", &["a.example"][..], Refusal::Malformed),
            ("GET https://a.example/", &["a.example"], Refusal::Malformed),
            ("GET ftp://a.example/", &["a.example"], Refusal::Malformed),
            ("GET http://user@a.example/", &["a.example"], Refusal::Malformed),
            ("GET http://a.example/", &["a.example", "a.example"], Refusal::Malformed),
            ("GET http://a.example/", &["b.example"], Refusal::OtherName),
            ("GET http://a.example/", &["a.example:81"], Refusal::OtherName),
            ("CONNECT a.example:443", &["b.example:443"], Refusal::OtherName),
            ("CONNECT a.example:443", &["a.example:80"], Refusal::OtherName),
        ] {
            assert_eq!(wanted(&request(line, hosts)), Err(expected), "{line} {hosts:?}");
        }
    }

    #[test]
    fn what_concerns_neighbours_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("connection", "x-own, close"), ("x-own", "1"), ("proxy-connection", "1"), ("accept", "*/*")]
        {
            headers.insert(name, HeaderValue::from_static(value));
        }
        strip(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }
}
