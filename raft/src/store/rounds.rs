//! Many waiters, one round trip: ReadIndex requests that arrive while a round runs share the next one.
//!
//! A waiter is only served by a round that *began* after it asked; that is what makes the read linearizable
//! (raft dissertation section 6.4).

use std::future::Future;

use tokio::sync::{mpsc, oneshot};

use crate::error::StoreError;

/// Waiters at the same time; more are held back.
const QUEUE: usize = 16 * 1024;

type Answer = Result<u64, StoreError>;

/// The way into the rounds.
#[derive(Clone)]
pub(crate) struct Rounds {
    queue: mpsc::Sender<oneshot::Sender<Answer>>,
}

/// The waiters, until the task is started.
pub(crate) struct Waiting(mpsc::Receiver<oneshot::Sender<Answer>>);

impl Rounds {
    pub(crate) fn new() -> (Rounds, Waiting) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        (Rounds { queue }, Waiting(waiting))
    }

    /// The result of a round that begins after this call.
    pub(crate) async fn join(&self) -> Answer {
        let (reply, answer) = oneshot::channel();
        self.queue.send(reply).await.map_err(|_| StoreError::Shutdown)?;
        answer.await.map_err(|_| StoreError::Shutdown)?
    }
}

impl Waiting {
    /// Runs rounds until the last handle is gone or the future is dropped.
    pub(crate) async fn run<F: Future<Output = Answer>>(mut self, round: impl Fn() -> F) {
        let mut batch = Vec::new();
        while self.0.recv_many(&mut batch, QUEUE).await > 0 {
            let answer = round().await;
            for reply in batch.drain(..) {
                // Who stopped waiting is not told.
                let _ = reply.send(answer.clone());
            }
        }
    }
}
