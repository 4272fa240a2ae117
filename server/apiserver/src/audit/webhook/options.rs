//! The options of the webhook: kube-apiserver's `--audit-webhook-*` flags, with upstream's defaults.

use std::path::PathBuf;
use std::time::Duration;

/// Whether requests wait for the webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// No request waits; events are sent together.
    Batch,
    /// A request waits for its event to be sent.
    Blocking,
    /// The same, and a request whose receipt is not sent is refused.
    BlockingStrict,
}

/// How events are put together.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchOptions {
    /// Events that may wait.
    pub buffer: usize,
    /// Events of a batch.
    pub max_size: usize,
    /// How long an event waits for others.
    pub max_wait: Duration,
    /// Whether the number of batches in a time is limited.
    pub throttles: bool,
    /// Batches in a second.
    pub rate: f64,
    /// Batches at once, after a pause.
    pub burst: u32,
}

/// The webhook and how it is used.
#[derive(Clone, Debug, PartialEq)]
pub struct WebhookOptions {
    /// The file that names it, in the form of a kubeconfig.
    pub config: PathBuf,
    /// Whether requests wait for it.
    pub mode: Mode,
    /// The first pause after a delivery that failed.
    pub initial_backoff: Duration,
    /// Batches, in that mode.
    pub batch: BatchOptions,
    /// Whether events that are too large lose their objects.
    pub truncates_events: bool,
    /// The most bytes of an event, where they do.
    pub event_bytes_max: usize,
    /// The most bytes of a batch.
    pub batch_bytes_max: usize,
}

impl BatchOptions {
    /// Batches in a second and at once; none: no limit.
    pub fn throttle(&self) -> Option<(f64, u32)> {
        self.throttles.then_some((self.rate, self.burst))
    }
}

impl WebhookOptions {
    /// The webhook that a file names.
    pub fn new(config: PathBuf) -> WebhookOptions {
        WebhookOptions {
            config,
            mode: Mode::Batch,
            initial_backoff: Duration::from_secs(10),
            batch: BatchOptions {
                buffer: 10_000,
                max_size: 400,
                max_wait: Duration::from_secs(30),
                throttles: true,
                rate: 10.0,
                burst: 15,
            },
            truncates_events: false,
            event_bytes_max: 100 << 10,
            batch_bytes_max: 10 << 20,
        }
    }
}
