//! The WebSocket to one instance. It is opened ahead of a prompt and serves many, one after the other.
//!
//! ComfyUI forgets a client that comes again under its own name while its old connection is still open, so each
//! connection has a name of its own, and only one that was closed by us first comes again under the same.

use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message as Frame, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use uuid::Uuid;

use super::http::PATIENCE;

/// Frames that may wait in an idle connection: those of a queue's counter, and of prompts that are over.
const MOST_STALE: usize = 4096;

/// An open connection.
pub(super) struct Socket {
    stream: WebSocketStream<TcpStream>,
    client: String,
}

/// What came.
pub(super) enum Incoming {
    Text(Utf8Bytes),
    Binary(Bytes),
    /// The answer to a ping, or a ping.
    Alive,
    /// The connection is over.
    Closed,
}

/// Why no connection could be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketError {
    #[error("ComfyUI's WebSocket could not be opened")]
    Open(#[source] Box<Error>),
    #[error("ComfyUI's WebSocket did not open within {0:?}")]
    Silent(Duration),
}

impl From<Error> for SocketError {
    fn from(error: Error) -> Self {
        SocketError::Open(Box::new(error))
    }
}

impl Socket {
    /// Opens a connection under a new name. `largest` bounds one frame, in bytes.
    pub(super) async fn open(port: u16, largest: usize) -> Result<Self, SocketError> {
        Self::open_as(port, largest, Uuid::new_v4().simple().to_string()).await
    }

    /// Opens a connection under a name whose earlier connection is closed.
    pub(super) async fn open_as(port: u16, largest: usize, client: String) -> Result<Self, SocketError> {
        let opening = async {
            let tcp = TcpStream::connect(("127.0.0.1", port)).await.map_err(Error::Io)?;
            tcp.set_nodelay(true).map_err(Error::Io)?;
            let request = format!("ws://127.0.0.1:{port}/ws?clientId={client}").into_client_request()?;
            let config = WebSocketConfig::default()
                .read_buffer_size(16 << 10)
                .write_buffer_size(0)
                .max_write_buffer_size(64 << 10)
                .max_message_size(Some(largest))
                .max_frame_size(Some(largest));
            let (mut stream, _response) = client_async_with_config(request, tcp, Some(config)).await?;
            // Heard only as the first text of a connection. Without it, a picture says neither its node nor its prompt.
            let flags = json!({"type": "feature_flags", "data": {"supports_preview_metadata": true}});
            stream.send(Frame::text(flags.to_string())).await?;
            Ok::<_, Error>(stream)
        };
        match tokio::time::timeout(PATIENCE, opening).await {
            Ok(opened) => Ok(Self { stream: opened?, client }),
            Err(_elapsed) => Err(SocketError::Silent(PATIENCE)),
        }
    }

    /// The name that prompts are posted under, for their messages to come here.
    pub(super) fn client(&self) -> &str {
        &self.client
    }

    /// Reads away what came while nobody listened; false when the connection is over.
    pub(super) fn refresh(&mut self) -> bool {
        for _ in 0..MOST_STALE {
            match self.next().now_or_never() {
                None => return true,
                Some(Incoming::Closed) => return false,
                Some(_stale) => {}
            }
        }
        false
    }

    /// The next thing that comes. Loses nothing when it is dropped.
    pub(super) async fn next(&mut self) -> Incoming {
        loop {
            return match self.stream.next().await {
                Some(Ok(Frame::Text(text))) => Incoming::Text(text),
                Some(Ok(Frame::Binary(bytes))) => Incoming::Binary(bytes),
                Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => Incoming::Alive,
                Some(Ok(Frame::Frame(_))) => continue,
                Some(Ok(Frame::Close(_)) | Err(_)) | None => Incoming::Closed,
            };
        }
    }

    /// Asks for a sign of life. What fails shows in `next`.
    pub(super) async fn ping(&mut self) {
        let _ = tokio::time::timeout(PATIENCE, self.stream.send(Frame::Ping(Bytes::new()))).await;
    }
}
