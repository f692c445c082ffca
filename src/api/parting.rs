//! How connections end that give nothing back.
//!
//! actix-http 3.20 wakes itself without rest while requests that were sent ahead fill its buffer and its answers are
//! not taken, and it serves on after an answer that says `Connection: close`. So a caller without a token gets one
//! answer for each connection, and whatever he sends after that request cuts it. For all others the kernel ends a
//! connection whose answers stay unread.

use std::any::Any;
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::{Extensions, ServiceRequest};
use actix_web::http::ConnectionType;
use actix_web::rt::net::TcpStream;
use actix_web::web::Bytes;
use socket2::SockRef;

/// How long bytes of an answer may lie unread or unacknowledged (TCP_USER_TIMEOUT, which holds for a closed window too).
const UNREAD: Duration = Duration::from_secs(30);

/// Whether a connection's last answer was given; one for each connection.
#[derive(Default)]
struct Parted(Cell<bool>);

/// Receives a new connection.
pub fn greet(connection: &dyn Any, data: &mut Extensions) {
    if let Some(stream) = connection.downcast_ref::<TcpStream>() {
        // Fails for a connection only that is gone already.
        let _ = SockRef::from(stream).set_tcp_user_timeout(Some(UNREAD));
    }
    data.insert(Parted::default());
}

/// Makes the answer to `request` the last one of its connection.
pub fn part(request: &ServiceRequest) {
    if let Some(parted) = request.conn_data::<Parted>() {
        parted.0.set(true);
    }
}

/// Says so in the answer.
pub fn say(answer: &mut HttpResponse) {
    answer.head_mut().set_connection_type(ConnectionType::Close);
}

/// Whether this request comes after its connection's last answer.
pub fn is_late(request: &ServiceRequest) -> bool {
    request.conn_data::<Parted>().is_some_and(|parted| parted.0.get())
}

/// Cuts the connection, after the answer before has gone out.
pub async fn cut() -> HttpResponse {
    // The dispatcher writes what it has whenever a request is not answered at once.
    tokio::task::yield_now().await;
    HttpResponse::Ok().body(Cut)
}

/// A body that fails: nothing of its answer is sent, not even its head, and the connection is closed.
struct Cut;

impl MessageBody for Cut {
    type Error = io::Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Poll::Ready(Some(Err(io::Error::other("cut: a request came after the last answer of its connection"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn a_connection_whose_answers_stay_unread_is_ended_by_the_kernel() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let caller = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        greet(&caller, &mut Extensions::new());
        assert_eq!(SockRef::from(&caller).tcp_user_timeout().unwrap(), Some(UNREAD));
    }
}
