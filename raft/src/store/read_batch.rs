//! Batches ReadIndex requests: those that arrive while one is answered share the next round trip.
//!
//! A request is answered by a round trip that *began* after it was made; that is what makes the read linearizable (Raft dissertation,
//! section 6.4).

use std::future::Future;

use tokio::sync::{mpsc, oneshot};

use crate::error::StoreError;

/// Requests that wait at the same time; further callers wait for a free place.
const QUEUE: usize = 16 * 1024;

type Answer = Result<u64, StoreError>;

/// Asks for an index. Clones share the batches.
#[derive(Clone)]
pub(crate) struct ReadBatcher {
    queue: mpsc::Sender<oneshot::Sender<Answer>>,
}

/// The requests that no round trip has taken yet; [`PendingReads::run`] answers them.
pub(crate) struct PendingReads(mpsc::Receiver<oneshot::Sender<Answer>>);

impl ReadBatcher {
    pub(crate) fn new() -> (ReadBatcher, PendingReads) {
        let (queue, pending) = mpsc::channel(QUEUE);
        (ReadBatcher { queue }, PendingReads(pending))
    }

    /// The index of a round trip that begins after this call.
    pub(crate) async fn join(&self) -> Answer {
        let (reply, answer) = oneshot::channel();
        self.queue.send(reply).await.map_err(|_| StoreError::Shutdown)?;
        answer.await.map_err(|_| StoreError::Shutdown)?
    }
}

impl PendingReads {
    /// Answers batches, each with one call of `round_trip`, until the last [`ReadBatcher`] is dropped.
    pub(crate) async fn run<F: Future<Output = Answer>>(mut self, round_trip: impl Fn() -> F) {
        let mut batch = Vec::new();
        while self.0.recv_many(&mut batch, QUEUE).await > 0 {
            let answer = round_trip().await;
            for reply in batch.drain(..) {
                // A send fails where the caller stopped waiting.
                let _ = reply.send(answer.clone());
            }
        }
    }
}
