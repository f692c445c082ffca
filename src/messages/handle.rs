//! How actors and doors reach each other: by a handle that the Supervisor republishes, never by a stored address.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use actix::dev::ToEnvelope;
use actix::prelude::*;

/// Why a message got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    #[error("the actor is not running at the moment")]
    Absent,
    #[error("the actor stopped before it answered")]
    Lost,
}

/// A place where the current recipient of `M` is found. Cloning shares the place.
pub struct Handle<M: Message + Send>
where
    M::Result: Send,
{
    current: Arc<RwLock<Option<Recipient<M>>>>,
}

impl<M: Message + Send> Clone for Handle<M>
where
    M::Result: Send,
{
    fn clone(&self) -> Self {
        Self { current: Arc::clone(&self.current) }
    }
}

impl<M: Message + Send> Default for Handle<M>
where
    M::Result: Send,
{
    fn default() -> Self {
        Self { current: Arc::default() }
    }
}

impl<M: Message + Send> fmt::Debug for Handle<M>
where
    M::Result: Send,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.recipient().is_ok() { "published" } else { "absent" };
        write!(f, "Handle({state})")
    }
}

impl<M: Message + Send + 'static> Handle<M>
where
    M::Result: Send,
{
    /// From now on messages go to this actor.
    pub fn publish<A>(&self, address: &Addr<A>)
    where
        A: Actor + Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(address.clone().recipient());
    }

    /// From now on there is nobody.
    pub fn withdraw(&self) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Sends and waits for the answer; waits for a place in the mailbox, too.
    ///
    /// # Errors
    /// `Absent` when nobody is published, `Lost` when the actor ended before it answered.
    pub async fn ask(&self, message: M) -> Result<M::Result, HandleError> {
        self.recipient()?.send(message).await.map_err(|_| HandleError::Lost)
    }
}

impl<M: Message<Result = ()> + Send + 'static> Handle<M> {
    /// Tells a fact, and waits for nothing. With nobody published, or with a full mailbox, it is lost: facts that
    /// matter are told again.
    pub fn tell(&self, fact: M) {
        if let Ok(recipient) = self.recipient() {
            drop(recipient.try_send(fact));
        }
    }
}

impl<M: Message + Send> Handle<M>
where
    M::Result: Send,
{
    fn recipient(&self) -> Result<Recipient<M>, HandleError> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(HandleError::Absent)
    }
}
