//! `GET /ws`.

use std::collections::HashMap;
use std::sync::Arc;

use actix_web::web::{self, Data, Payload, Query, ServiceConfig};
use actix_web::{HttpRequest, Responder};
use actix_ws::{Message, MessageStream, Session};
use serde_json::{Value, json};
use tokio::sync::Notify;
use uuid::Uuid;

use super::info;
use crate::hub::Socket;
use crate::server::Server;

/// Bytes of one incoming message.
const MOST_INCOMING: usize = 4 << 20;

pub fn routes(service: &mut ServiceConfig) {
    service.route("/ws", web::get().to(open));
}

async fn open(
    server: Data<Server>,
    request: HttpRequest,
    query: Query<HashMap<String, String>>,
    body: Payload,
) -> actix_web::Result<impl Responder> {
    let (answer, session, messages) = actix_ws::handle(&request, body)?;
    let wanted = query.get("clientId").filter(|id| !id.is_empty()).cloned();
    let id = wanted.unwrap_or_else(|| Uuid::new_v4().simple().to_string());
    let cut = Arc::new(Notify::new());
    let socket = Socket { session: session.clone(), metadata: false, sent: 0, cut: Arc::clone(&cut) };
    server.sockets.lock().unwrap().insert(id.clone(), socket);
    actix_web::rt::spawn(async move {
        let talking = talk(&server, &id, session.clone(), messages.max_frame_size(MOST_INCOMING));
        let farewell = tokio::select! {
            () = talking => Some(session),
            () = cut.notified() => None,
        };
        server.sockets.lock().unwrap().remove(&id);
        if let Some(session) = farewell {
            let _ = session.close(None).await;
        }
    });
    Ok(answer)
}

/// Greets, and listens until the client goes.
async fn talk(server: &Server, id: &str, mut session: Session, mut messages: MessageStream) {
    if greet(server, id, &mut session).await.is_err() {
        return;
    }
    let mut first = true;
    while let Some(Ok(message)) = messages.recv().await {
        match message {
            Message::Text(text) if std::mem::take(&mut first) => negotiate(server, id, &mut session, &text).await,
            Message::Ping(bytes) => drop(session.pong(&bytes).await),
            Message::Close(_) => break,
            _ => {}
        }
    }
}

async fn greet(server: &Server, id: &str, session: &mut Session) -> Result<(), actix_ws::Closed> {
    let remaining = server.queue().remaining();
    let data = json!({"status": {"exec_info": {"queue_remaining": remaining}}, "sid": id});
    session.text(json!({"type": "status", "data": data}).to_string()).await?;
    let last_node = {
        let current = server.current.lock().unwrap();
        current.last_node.clone().filter(|_| current.client_id.as_deref() == Some(id))
    };
    if let Some(node) = last_node {
        session.text(json!({"type": "executing", "data": {"node": node}}).to_string()).await?;
    }
    Ok(())
}

/// The first text may say what the client can read.
async fn negotiate(server: &Server, id: &str, session: &mut Session, text: &str) {
    let hello: Value = serde_json::from_str(text).unwrap_or_default();
    if hello["type"] != "feature_flags" {
        return;
    }
    if let Some(socket) = server.sockets.lock().unwrap().get_mut(id) {
        socket.metadata = hello["data"]["supports_preview_metadata"] == true;
    }
    let _ = session.text(json!({"type": "feature_flags", "data": info::features(server)}).to_string()).await;
}
