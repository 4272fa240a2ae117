//! Audit events sent to a webhook, alone or in batches.
//!
//! Owns the buffer and what becomes of an event that finds no room in it or cannot be delivered: it is counted, and never silently
//! lost. In the mode `batch` no request waits for the webhook; in the others it waits for its own event. At most a few deliveries are
//! under way at once, so that a slow webhook fills the buffer and not the memory.
//!
//! Answers to upstream's `plugin/pkg/audit/{buffered,webhook,truncate}` and
//! <https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/#webhook-backend>.

mod batches;
pub mod options;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::egress::webhooks::{Client, ClientConfig};
use batches::{Batch, Throttle};
pub use options::{BatchOptions, Mode, WebhookOptions};

/// Deliveries that are under way at once.
const DELIVERIES_MAX: usize = 8;
/// How often a delivery is tried, and how much longer each pause is than the one before.
const ATTEMPTS: u32 = 5;
const PAUSE_FACTOR: f64 = 1.5;
/// How long the webhook may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A failure is told in the process's log this often.
const COMPLAINT_PERIOD: Duration = Duration::from_secs(60);

/// What the caller counts.
pub trait Losses: Send + Sync + 'static {
    /// So many events did not find room in the buffer.
    fn dropped(&self, events: usize);
    /// So many events were not delivered.
    fn undelivered(&self, events: usize);
}

enum Message {
    Event(Bytes),
    /// Deliver what there is, and tell when it is done.
    Flush(oneshot::Sender<()>),
}

/// The webhook, and the events that wait for it.
pub struct Webhook {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Message>,
    /// Until the worker is started.
    waiting: Mutex<Option<mpsc::Receiver<Message>>>,
}

struct Shared {
    options: WebhookOptions,
    target: ClientConfig,
    client: OnceLock<Client>,
    losses: Arc<dyn Losses>,
    complained: Mutex<Option<Instant>>,
}

// === impl Webhook ===

impl Webhook {
    /// A webhook at `target`. Events wait until [`Webhook::start`].
    pub fn new(options: WebhookOptions, target: ClientConfig, losses: Arc<dyn Losses>) -> Webhook {
        let (queue, waiting) = mpsc::channel(options.batch.buffer.max(1));
        let shared = Shared { options, target, client: OnceLock::new(), losses, complained: Mutex::default() };
        Webhook { shared: Arc::new(shared), queue, waiting: Mutex::new(Some(waiting)) }
    }

    /// Begins to deliver, by `client`. A second call changes nothing.
    pub fn start(&self, client: Client) {
        let _ = self.shared.client.set(client);
        if let Some(events) = self.waiting.lock().take() {
            tokio::spawn(work(self.shared.clone(), events));
        }
    }

    /// Takes an event: into the buffer, or to the webhook.
    ///
    /// # Errors
    /// It was neither buffered nor delivered. This has been counted.
    pub async fn write(&self, event: Bytes) -> Result<(), String> {
        let options = &self.shared.options;
        if options.truncates_events && event.len() > options.event_bytes_max {
            self.shared.losses.undelivered(1);
            return Err("the event is too large, without its objects too".to_owned());
        }
        if options.mode != Mode::Batch {
            let mut batch = Batch::default();
            batch.add(event);
            return self.shared.deliver(batch).await;
        }
        self.queue.try_send(Message::Event(event)).map_err(|_| {
            self.shared.losses.dropped(1);
            "the buffer of the audit webhook is full".to_owned()
        })
    }

    /// Whether a request is refused whose receipt cannot be delivered.
    pub fn is_strict(&self) -> bool {
        self.shared.options.mode == Mode::BlockingStrict
    }

    /// The most bytes of an event; none: no limit but the general one.
    pub fn event_bytes_max(&self) -> Option<usize> {
        self.shared.options.truncates_events.then_some(self.shared.options.event_bytes_max)
    }

    /// Delivers what is buffered, as far as that is possible in this time.
    pub async fn flush(&self, longest: Duration) {
        let flushed = async {
            let (done, outcome) = oneshot::channel();
            if self.queue.send(Message::Flush(done)).await.is_ok() {
                let _ = outcome.await;
            }
        };
        if tokio::time::timeout(longest, flushed).await.is_err() {
            tracing::warn!(url = self.shared.target.url(), "not all audit events were delivered before the end");
        }
    }
}

/// Collects events into batches and delivers them.
async fn work(shared: Arc<Shared>, mut events: mpsc::Receiver<Message>) {
    let deliveries = Arc::new(Semaphore::new(DELIVERIES_MAX));
    let mut throttle = Throttle::new(shared.options.batch.throttle());
    let mut open = true;
    while open {
        let (batch, flush) = collect(&shared.options, &mut events).await;
        open = flush.is_some() || !batch.is_empty();
        if !batch.is_empty() {
            throttle.pass().await;
            // Closed never: it is dropped with this function.
            let Ok(place) = deliveries.clone().acquire_owned().await else { return };
            let shared = shared.clone();
            tokio::spawn(async move {
                let _place = place;
                let _ = shared.deliver(batch).await;
            });
        }
        if let Some(flush) = flush {
            let _all = deliveries.acquire_many(u32::try_from(DELIVERIES_MAX).unwrap_or(1)).await;
            let _ = flush.send(());
        }
    }
}

/// The next batch: full, or as old as a batch may become. With it who waits for a flush. Empty without one: there will be none.
async fn collect(options: &WebhookOptions, events: &mut mpsc::Receiver<Message>) -> (Batch, Option<oneshot::Sender<()>>) {
    let mut batch = Batch::default();
    match events.recv().await {
        None => return (batch, None),
        Some(Message::Flush(done)) => return (batch, Some(done)),
        Some(Message::Event(event)) => batch.add(event),
    }
    let deadline = Instant::now() + options.batch.max_wait;
    while batch.len() < options.batch.max_size.max(1) && batch.bytes() < options.batch_bytes_max {
        match tokio::time::timeout_at(deadline, events.recv()).await {
            Ok(Some(Message::Event(event))) => batch.add(event),
            Ok(Some(Message::Flush(done))) => return (batch, Some(done)),
            Ok(None) | Err(_) => break,
        }
    }
    (batch, None)
}

// === impl Shared ===

impl Shared {
    /// Sends a batch, again after pauses that become longer. Its events are counted if all attempts fail.
    async fn deliver(&self, batch: Batch) -> Result<(), String> {
        let (events, mut pause) = (batch.len(), self.options.initial_backoff);
        let list = batch.encode();
        let mut attempt = 1;
        loop {
            let error = match self.send(list.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if attempt >= ATTEMPTS {
                self.losses.undelivered(events);
                self.complain(&error, events);
                return Err(error);
            }
            attempt += 1;
            tokio::time::sleep(pause.mul_f64(1.0 + 0.2 * rand::random::<f64>())).await;
            pause = pause.mul_f64(PAUSE_FACTOR);
        }
    }

    async fn send(&self, list: Bytes) -> Result<(), String> {
        let client = self.client.get().ok_or("the server has not started yet")?;
        let sent = tokio::time::timeout(ANSWER_TIMEOUT, client.post(&self.target, "", list)).await;
        sent.unwrap_or_else(|_| Err("no answer in time".to_owned())).map(|_| ())
    }

    fn complain(&self, error: &str, events: usize) {
        let mut complained = self.complained.lock();
        if complained.is_none_or(|at| at.elapsed() > COMPLAINT_PERIOD) {
            *complained = Some(Instant::now());
            tracing::error!(error, events, url = self.target.url(), "audit events were not delivered");
        }
    }
}
