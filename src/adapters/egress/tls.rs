//! TLS that the proxy ends: the sandbox's end by the sandbox's own authority, the server's by the host's.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::authority::{ALPN, Authority};
use super::gate::Gate;
use crate::domain::egress::{Destination, Refusal};

/// As the proxy speaks to servers: HTTP/1.1 alone, with whatever `config` trusts.
pub(super) fn to_servers(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![ALPN.to_vec()];
    Arc::new(config)
}

/// The sandbox's end. Its first message has been looked at: the name in it is the right one.
pub(super) async fn accept<S>(
    gate: &Gate,
    authority: &Authority,
    to: &Destination,
    near: S,
) -> Result<server::TlsStream<S>, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = authority.server(to.host()).map_err(|_| Refusal::Handshake)?;
    let accepted = timeout(gate.caps.answer_within, TlsAcceptor::from(config).accept(near)).await;
    accepted.ok().and_then(Result::ok).ok_or(Refusal::Handshake)
}

/// The server's end: its certificate must be one for the host that was asked for.
pub(super) async fn connect(
    gate: &Gate,
    to: &Destination,
    far: TcpStream,
) -> Result<client::TlsStream<TcpStream>, Refusal> {
    let name = ServerName::try_from(to.host().to_owned()).map_err(|_| Refusal::Untrusted)?;
    let connecting = TlsConnector::from(Arc::clone(&gate.shared.tls)).connect(name, far);
    timeout(gate.caps.answer_within, connecting).await.ok().and_then(Result::ok).ok_or(Refusal::Untrusted)
}
