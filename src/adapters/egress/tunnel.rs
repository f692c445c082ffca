//! What goes through CONNECT: TLS to the host that was asked for, as it is or ended here, and WebSockets without TLS.

use std::io::{self, Cursor};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional, join, split};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::gate::Gate;
use super::request::{Way, serve_one};
use super::tls;
use crate::domain::egress::{Destination, Peek, Refusal, peek};

/// TLS's own refusal: a fatal alert, "unrecognized name" (RFC 6066 §3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
/// Read at once while the first message is awaited.
const PIECE: usize = 4096;
/// How the only request in clear begins that may come here.
const PLAIN: &[u8] = b"GET /";

/// Looks at the client's first message, and carries on once it is known what it is. Until then the server gets no byte.
pub(super) fn follow<S>(gate: Arc<Gate>, to: Destination, near: S, far: TcpStream) -> BoxFuture<'static, ()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Boxed: what follows may be a request again.
    Box::pin(async move {
        if let Err(refusal) = carry(&gate, &to, near, far).await {
            gate.note(Some(&to), Err(refusal));
        }
    })
}

async fn carry<S>(gate: &Arc<Gate>, to: &Destination, mut near: S, mut far: TcpStream) -> Result<(), Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let read = timeout(gate.caps.answer_within, first_message(&mut near)).await;
    // Also when the client leaves before it said anything, or says it too slowly.
    let First { bytes, hello } = read.ok().and_then(Result::ok).ok_or(Refusal::NotTls)?;
    let Some(name) = hello else {
        if !bytes.starts_with(PLAIN) {
            return Err(Refusal::NotTls);
        }
        serve_one(again(bytes, near), Arc::clone(gate), Way::Inside { to: to.clone(), far, tls: false }).await;
        return Ok(());
    };
    // There is no name in TLS for an address.
    let named = name.map_or(to.address().is_some(), |name| to.is_named(&name));
    if !named {
        let _left = near.write_all(&UNRECOGNIZED_NAME).await;
        return Err(Refusal::OtherName);
    }
    if let Some(authority) = gate.additions.authority_for(to) {
        let near = tls::accept(gate, authority, to, again(bytes, near)).await?;
        serve_one(near, Arc::clone(gate), Way::Inside { to: to.clone(), far, tls: true }).await;
        return Ok(());
    }
    gate.note(Some(to), Ok(()));
    if far.write_all(&bytes).await.is_ok() {
        let _either_end_left = copy_bidirectional(&mut near, &mut far).await;
    }
    Ok(())
}

/// What a connection began with.
struct First {
    bytes: Vec<u8>,
    /// None: it is no TLS. Some: the name in it, if it tells one.
    hello: Option<Option<String>>,
}

async fn first_message<S: AsyncRead + Unpin>(near: &mut S) -> io::Result<First> {
    let mut bytes = Vec::new();
    loop {
        // A word of few letters may come in pieces, too.
        let plain = !bytes.is_empty() && PLAIN.starts_with(&bytes) && bytes.len() < PLAIN.len();
        match peek(&bytes) {
            Peek::Hello(name) => return Ok(First { bytes, hello: Some(name) }),
            Peek::NotTls if !plain => return Ok(First { bytes, hello: None }),
            Peek::More | Peek::NotTls => {}
        }
        let mut piece = [0; PIECE];
        let read = near.read(&mut piece).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(piece.get(..read).unwrap_or_default());
    }
}

/// A connection whose first bytes are to be read once more.
fn again<S: AsyncRead + AsyncWrite>(first: Vec<u8>, rest: S) -> impl AsyncRead + AsyncWrite + Unpin + use<S> {
    let (reader, writer) = split(rest);
    join(Cursor::new(first).chain(reader), writer)
}
