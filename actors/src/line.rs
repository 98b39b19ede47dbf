//! A line to an actor that survives the actor: a message sent on it reaches the current instance.
//!
//! Every edge between actors is a [`Line`] of one message type over an actix [`Recipient`], so that a test
//! can put a probe at the other end. One sender per line makes actix's mailbox capacity a real bound
//! (MEASURED M24); what finds the mailbox full is dropped and counted.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use actix::{Message, Recipient, dev::SendError};

/// Number of messages dropped on the way to one actor, over all its lines.
pub type DropCount = Arc<AtomicU64>;

/// A line for messages of one type.
pub struct Line<M>
where
    M: Message + Send,
    M::Result: Send,
{
    end: Arc<RwLock<Option<Recipient<M>>>>,
    dropped: DropCount,
}

impl<M> Clone for Line<M>
where
    M: Message + Send,
    M::Result: Send,
{
    fn clone(&self) -> Self {
        Self { end: self.end.clone(), dropped: self.dropped.clone() }
    }
}

/// The actor did not accept the message, or failed before it answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the actor is not there: it is being restarted")]
pub struct Gone;

impl<M> Line<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    /// A line whose other end is not bound yet.
    #[must_use]
    pub fn new(dropped: DropCount) -> Self {
        Self { end: Arc::default(), dropped }
    }

    /// Binds the other end to a new instance of the actor.
    pub fn bind(&self, end: Recipient<M>) {
        *self.end.write().unwrap_or_else(PoisonError::into_inner) = Some(end);
    }

    /// Whether an actor was ever bound. Before that, a starting node cannot do what the message asks.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.end.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Sends without waiting. A message that finds a dead actor or a full mailbox is dropped and counted.
    pub fn tell(&self, message: M) {
        let end = self.end.read().unwrap_or_else(PoisonError::into_inner);
        let sent = end.as_ref().map_or(Err(SendError::Closed(())), |end| {
            end.try_send(message).map_err(|error| match error {
                SendError::Full(_) => SendError::Full(()),
                SendError::Closed(_) => SendError::Closed(()),
            })
        });
        if let Err(error) = sent {
            let total = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            let reason =
                if matches!(error, SendError::Full(())) { "its mailbox is full" } else { "it is not there" };
            tracing::debug!(message = std::any::type_name::<M>(), reason, total, "message dropped");
        }
    }

    /// Sends and waits for the answer. The caller sets the time limit.
    ///
    /// # Errors
    /// The actor is being restarted, or failed before it answered.
    pub async fn ask(&self, message: M) -> Result<M::Result, Gone> {
        let request = {
            let end = self.end.read().unwrap_or_else(PoisonError::into_inner);
            end.as_ref().map(|end| end.send(message))
        };
        request.ok_or(Gone)?.await.map_err(|_| Gone)
    }
}
