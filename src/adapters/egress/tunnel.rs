//! What goes through CONNECT: TLS to the host that was asked for, and nothing else.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::gate::Gate;
use crate::domain::egress::{Destination, Peek, Refusal, peek};

/// TLS's own refusal: a fatal alert, "unrecognized name" (RFC 6066 §3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
/// Read at once while the first message is awaited.
const PIECE: usize = 4096;

/// Looks at the client's first message, and carries bytes both ways once it names the right host. Until then the server
/// gets none.
pub(super) async fn follow<S>(gate: &Gate, to: &Destination, mut near: S, mut far: TcpStream)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let read = timeout(gate.caps.answer_within, first_message(&mut near)).await;
    let (first, name) = match read {
        Ok(Ok(Some(hello))) => hello,
        // Also when the client leaves before it said anything, or says it too slowly.
        Ok(Ok(None) | Err(_)) | Err(_) => return gate.note(Some(to), Err(Refusal::NotTls)),
    };
    // There is no name in TLS for an address.
    let named = name.map_or(to.address().is_some(), |name| to.is_named(&name));
    gate.note(Some(to), if named { Ok(()) } else { Err(Refusal::OtherName) });
    if !named {
        let _left = near.write_all(&UNRECOGNIZED_NAME).await;
        return;
    }
    if far.write_all(&first).await.is_ok() {
        let _either_end_left = copy_bidirectional(&mut near, &mut far).await;
    }
}

/// The first bytes and the name in them; None when they are no TLS.
async fn first_message<S: AsyncRead + Unpin>(near: &mut S) -> std::io::Result<Option<(Vec<u8>, Option<String>)>> {
    let mut bytes = Vec::new();
    loop {
        match peek(&bytes) {
            Peek::Hello(name) => return Ok(Some((bytes, name))),
            Peek::NotTls => return Ok(None),
            Peek::More => {}
        }
        let mut piece = [0; PIECE];
        let read = near.read(&mut piece).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(piece.get(..read).unwrap_or_default());
    }
}
