//! The WebSockets, and the one loop that sends to all of them: who does not read holds up everybody, as in the real one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix_ws::Session;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::server::Server;
use crate::switches::WsFault;

/// Client id → socket. A second socket of the same id replaces the first here, while the first stays open and hears
/// nothing; whichever closes first takes the entry away.
pub type Sockets = HashMap<String, Socket>;

/// One open WebSocket.
#[derive(Clone)]
pub struct Socket {
    pub session: Session,
    /// The client asked for previews of type 4.
    pub metadata: bool,
    /// Messages sent so far.
    pub sent: u64,
    /// Cuts the connection without a farewell.
    pub cut: Arc<Notify>,
}

/// What goes out, and to whom: one client id, or everybody.
pub struct Outgoing {
    pub to: Option<String>,
    pub frame: Frame,
}

/// What a socket gets.
#[derive(Clone)]
pub enum Frame {
    Text(String),
    /// An image of a node; its form depends on what the client asked for.
    Image {
        jpeg: bool,
        image: Arc<[u8]>,
        metadata: Value,
    },
    /// Text of a node, binary type 3.
    NodeText {
        node: String,
        text: String,
    },
}

impl Outgoing {
    pub fn event(to: Option<String>, kind: &str, data: &Value) -> Self {
        Self { to, frame: Frame::Text(json!({"type": kind, "data": data}).to_string()) }
    }

    pub fn status(remaining: usize) -> Self {
        Self::event(None, "status", &json!({"status": {"exec_info": {"queue_remaining": remaining}}}))
    }
}

/// Sends what comes, in order, one socket after the other.
pub async fn send_all(server: Arc<Server>, mut outgoing: UnboundedReceiver<Outgoing>) {
    while let Some(message) = outgoing.recv().await {
        let ids: Vec<String> = match message.to {
            Some(id) => vec![id],
            None => server.sockets.lock().unwrap().keys().cloned().collect(),
        };
        for id in ids {
            deliver(&server, &id, &message.frame).await;
        }
    }
}

/// Stands still whenever the interpreter's lock is held.
pub async fn freeze_all(mut freezes: UnboundedReceiver<Duration>) {
    while let Some(pause) = freezes.recv().await {
        std::thread::sleep(pause);
    }
}

async fn deliver(server: &Server, id: &str, frame: &Frame) {
    let socket = server.sockets.lock().unwrap().get_mut(id).map(|socket| {
        socket.sent += 1;
        socket.clone()
    });
    let Some(mut socket) = socket else { return };
    match server.switches.ws {
        Some(WsFault::DropAfter(most)) if socket.sent > most => return socket.cut.notify_one(),
        Some(WsFault::SilentAfter(most)) if socket.sent > most => return,
        Some(WsFault::Slow(pause)) => tokio::time::sleep(pause).await,
        _ => {}
    }
    let sent = match frame {
        Frame::Text(text) => socket.session.text(text.clone()).await,
        binary => socket.session.binary(encode(binary, socket.metadata)).await,
    };
    if sent.is_err() {
        server.sockets.lock().unwrap().remove(id);
    }
}

/// Four bytes of event type, then what belongs to it.
fn encode(frame: &Frame, with_metadata: bool) -> Vec<u8> {
    let counted = |head: u32, name: &[u8], rest: &[u8]| {
        let length = (name.len() as u32).to_be_bytes();
        [&head.to_be_bytes(), length.as_slice(), name, rest].concat()
    };
    match frame {
        Frame::Text(text) => text.clone().into_bytes(),
        Frame::NodeText { node, text } => counted(3, node.as_bytes(), text.as_bytes()),
        Frame::Image { image, metadata, .. } if with_metadata => counted(4, metadata.to_string().as_bytes(), image),
        Frame::Image { jpeg, image, .. } => {
            let kind: u32 = if *jpeg { 1 } else { 2 };
            [&1u32.to_be_bytes(), kind.to_be_bytes().as_slice(), image].concat()
        }
    }
}
