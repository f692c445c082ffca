//! A request on its way to the server, and the answer back: what concerns neighbours is left out, what belongs in is put in.

use futures_util::future::join;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use hyper::http::uri::{PathAndQuery, Uri};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Version, client};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::sync::oneshot;

use super::gate::Gate;
use super::request::{Body, HEAD, Rest};
use crate::domain::egress::{Destination, Refusal};

/// The only protocol that a connection may be turned into (RFC 6455 §4).
const WEBSOCKET: &str = "websocket";
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

/// Sends `request` over `far` and gives the answer. `in_clear`: `far` is no TLS.
pub(super) async fn forward<S>(
    gate: &Gate,
    to: &Destination,
    in_clear: bool,
    mut request: Request<Incoming>,
    far: S,
    begin_rest: oneshot::Sender<Rest>,
) -> Result<Response<Body>, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let turns = asks_for_websocket(&request);
    let near = turns.then(|| hyper::upgrade::on(&mut request));
    let mut request = passed_on(request, to, in_clear, turns)?;
    let exchange = gate.additions.put_in(request.headers_mut(), to, in_clear)?;
    gate.note(Some(to), Ok(()));
    gate.note_exchange(to, &exchange);
    let mut builder = client::conn::http1::Builder::new();
    builder.max_buf_size(HEAD);
    let (mut sender, connection) = builder.handshake(TokioIo::new(far)).await.map_err(|_| Refusal::Unreachable)?;
    let (turned, far_turns) = oneshot::channel::<OnUpgrade>();
    let beside = Box::pin(async move {
        let _answered_or_not = join(connection.with_upgrades(), carry(near, far_turns)).await;
    });
    let _connection_is_gone = begin_rest.send(beside);
    let mut answer = sender.send_request(request).await.map_err(|_| Refusal::Unreachable)?;
    exchange.take_out(answer.headers_mut());
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        if !turns {
            return Err(Refusal::Unreachable);
        }
        let _connection_is_gone = turned.send(hyper::upgrade::on(&mut answer));
        let (mut parts, body) = answer.into_parts();
        strip(&mut parts.headers);
        turn(&mut parts.headers);
        return Ok(Response::from_parts(parts, body.boxed()));
    }
    let (mut parts, body) = answer.into_parts();
    strip(&mut parts.headers);
    Ok(Response::from_parts(parts, body.boxed()))
}

/// Carries bytes both ways once both ends have turned into something else.
async fn carry(near: Option<OnUpgrade>, far: oneshot::Receiver<OnUpgrade>) {
    let (Some(near), Ok(far)) = (near, far.await) else { return };
    if let (Ok(near), Ok(far)) = (near.await, far.await) {
        let _either_end_left = copy_bidirectional(&mut TokioIo::new(near), &mut TokioIo::new(far)).await;
    }
}

pub(super) fn asks_for_websocket<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let lists = |name, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(word))
    };
    request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && lists(CONNECTION, "upgrade")
        && headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes()))
}

/// The request as the server gets it.
fn passed_on<B>(request: Request<B>, to: &Destination, in_clear: bool, websocket: bool) -> Result<Request<B>, Refusal> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    strip(&mut parts.headers);
    let usual = if in_clear { ":80" } else { ":443" };
    let whole = to.to_string();
    let host = whole.strip_suffix(usual).unwrap_or(&whole);
    parts.headers.insert(HOST, HeaderValue::from_str(host).map_err(|_| Refusal::Malformed)?);
    if websocket {
        turn(&mut parts.headers);
    } else {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    parts.uri = Uri::from(path);
    Ok(Request::from_parts(parts, body))
}

fn turn(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
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

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn the_host_that_is_passed_on_has_a_port_where_it_is_not_the_usual_one() {
        for (to, in_clear, expected) in [
            ("a.example:80", true, "a.example"),
            ("a.example:443", true, "a.example:443"),
            ("a.example:443", false, "a.example"),
            ("[::1]:8443", false, "[::1]:8443"),
        ] {
            let to = Destination::parse(to, None).expect("a destination");
            let request = passed_on(Request::new(()), &to, in_clear, false).expect("passed on");
            assert_eq!(request.headers()[HOST], expected);
        }
    }
}
