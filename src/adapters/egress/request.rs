//! The one request of a connection: CONNECT, or HTTP with the whole address in its first line; and what comes inside of
//! CONNECT where the proxy reads it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::{BoxFuture, join};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::http::uri::Scheme;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, server};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::dial::dial;
use super::forward::{asks_for_websocket, forward};
use super::gate::Gate;
use super::{lock, tls, tunnel};
use crate::domain::egress::{Destination, Refusal};

/// The largest head of a request or an answer, in bytes.
pub(super) const HEAD: usize = 64 * 1024;

pub(super) type Body = BoxBody<Bytes, hyper::Error>;
/// What goes on beside the answer, and after it.
pub(super) type Rest = BoxFuture<'static, ()>;

/// How a request comes.
pub(super) enum Way {
    /// To the proxy itself.
    Proxy,
    /// Through a CONNECT to `to`, which is connected to already. `tls`: the sandbox's TLS has been ended.
    Inside { to: Destination, far: TcpStream, tls: bool },
}

/// Serves one request, and what follows from it.
pub(super) async fn serve_one<S>(stream: S, gate: Arc<Gate>, way: Way)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (begin_rest, rest) = oneshot::channel::<Rest>();
    let once = Mutex::new(Some((way, begin_rest)));
    let deadline = gate.caps.answer_within;
    let service = service_fn(|request| {
        let once = lock(&once).take();
        answer(Arc::clone(&gate), request, once)
    });
    let served = server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(deadline)
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
        drop(lock(&once).take());
    };
    join(served, follow).await;
}

async fn answer(
    gate: Arc<Gate>,
    request: Request<Incoming>,
    once: Option<(Way, oneshot::Sender<Rest>)>,
) -> Result<Response<Body>, Infallible> {
    let (to, answered) = match once {
        Some((Way::Proxy, begin_rest)) => match wanted(&request) {
            Ok(to) => {
                let answered = judged(&gate, &to, request, begin_rest).await;
                (Some(to), answered)
            }
            Err(refusal) => (None, gate.ask().and(Err(refusal))),
        },
        Some((Way::Inside { to, far, tls }, begin_rest)) => {
            let answered = inside(&gate, &to, request, (far, tls), begin_rest).await;
            (Some(to), answered)
        }
        None => (None, Err(Refusal::Malformed)),
    };
    let mut answer = answered.unwrap_or_else(|refusal| {
        gate.note(to.as_ref(), Err(refusal));
        refused(refusal)
    });
    // One request for each connection. hyper could be told so; then it would say `close` beside `Upgrade`, and clients of
    // WebSockets take that word alone.
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(answer)
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

/// A request inside of a CONNECT must be one to a server, and mean the host that was connected to.
fn means<B>(request: &Request<B>, to: &Destination) -> Result<(), Refusal> {
    let uri = request.uri();
    if uri.authority().is_some() || uri.scheme().is_some() || request.method() == Method::CONNECT {
        return Err(Refusal::Malformed);
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(Refusal::Malformed) };
    let told = host.to_str().ok().and_then(|host| Destination::parse(host, Some(to.port())));
    if told.as_ref() == Some(to) { Ok(()) } else { Err(Refusal::OtherName) }
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
    if request.method() != Method::CONNECT {
        return forward(gate, to, true, request, far, begin_rest).await;
    }
    let upgrade = hyper::upgrade::on(request);
    let (gate, to) = (Arc::clone(gate), to.clone());
    let rest = Box::pin(async move {
        if let Ok(near) = upgrade.await {
            tunnel::follow(gate, to, TokioIo::new(near), far).await;
        }
    });
    let _connection_is_gone = begin_rest.send(rest);
    Ok(Response::new(Empty::new().map_err(|never| match never {}).boxed()))
}

async fn inside(
    gate: &Arc<Gate>,
    to: &Destination,
    request: Request<Incoming>,
    (far, tls): (TcpStream, bool),
    begin_rest: oneshot::Sender<Rest>,
) -> Result<Response<Body>, Refusal> {
    means(&request, to)?;
    if tls {
        let far = tls::connect(gate, to, far).await?;
        return forward(gate, to, false, request, far, begin_rest).await;
    }
    if !asks_for_websocket(&request) {
        return Err(Refusal::NotTls);
    }
    forward(gate, to, true, request, far, begin_rest).await
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
    fn what_comes_inside_means_the_host_that_was_connected_to() {
        let to = Destination::parse("a.example:8443", None).expect("a destination");
        for (line, hosts, expected) in [
            ("GET /x", &["a.example:8443"][..], Ok(())),
            ("GET /x", &["A.example"], Ok(())),
            ("GET /x", &["b.example:8443"], Err(Refusal::OtherName)),
            ("GET /x", &["a.example:443"], Err(Refusal::OtherName)),
            ("GET /x", &["a.example:8443", "b.example"], Err(Refusal::Malformed)),
            ("GET /x", &[], Err(Refusal::Malformed)),
            ("GET https://b.example/", &["a.example:8443"], Err(Refusal::Malformed)),
            ("CONNECT b.example:443", &["a.example:8443"], Err(Refusal::Malformed)),
        ] {
            assert_eq!(means(&request(line, hosts), &to), expected, "{line} {hosts:?}");
        }
    }
}
