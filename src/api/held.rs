//! Keeps hold of a request's body until its answer is written.
//!
//! actix-http 3.20 reads on, without any end, when the rest of a chunked body is dropped by its handler: a caller who
//! is refused could keep a connection busy for ever by sending chunks. A body that is still held when the answer
//! begins makes it close the connection instead, after a short time in which the answer can be read.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::HttpMessage as _;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest};
use actix_web::error::PayloadError;
use actix_web::web::Bytes;
use futures_util::Stream;

/// A share of a request's body.
#[derive(Clone)]
pub struct Held(Rc<RefCell<Payload>>);

impl Held {
    /// Takes hold of the request's body; its handler reads it as before.
    pub fn take(request: &mut ServiceRequest) -> Self {
        let held = Self(Rc::new(RefCell::new(request.take_payload())));
        request.set_payload(Payload::Stream {
            payload: Box::pin(held.clone()),
        });
        held
    }

    /// Lets go when `answer` has been written.
    pub fn until_written(self, answer: BoxBody) -> BoxBody {
        BoxBody::new(Answer { answer, _held: self })
    }
}

impl Stream for Held {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_next(context)
    }
}

struct Answer {
    answer: BoxBody,
    _held: Held,
}

impl MessageBody for Answer {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.answer.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.answer).poll_next(context)
    }
}
