//! What flow control counts as requests pass, under upstream's names.
//!
//! Owns the families with the labels `flow_schema` and `priority_level`. The children of a schema are looked up once, when the
//! configuration changes, and removed when the schema is gone. What a level has at one moment is read on a scrape
//! ([`crate::flowcontrol::collector`]).

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::flowcontrol::queues::Refusal;

const SCHEMA: [&str; 2] = ["flow_schema", "priority_level"];
const WAIT_BUCKETS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const SEAT_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 10.0];
const LENGTH_BUCKETS: &[f64] = &[0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
const WATCH_BUCKETS: &[f64] = &[0.0, 1.0, 10.0, 100.0, 1000.0, 10_000.0];
/// Why requests are rejected, in the order of [`SchemaMetrics::rejected`].
const REASONS: [&str; 4] = ["concurrency-limit", "queue-full", "time-out", "cancelled"];
const CANCELLED: usize = 3;
const MIX_BUCKETS: &[f64] = &[0.0, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0];
/// Values of `request_kind`, in the order of [`RequestKind::index`].
const KINDS: [&str; 2] = ["readOnly", "mutating"];

/// What kind of request has seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// It changes nothing.
    ReadOnly,
    /// It may change something.
    Mutating,
    /// The beginning of a watch.
    Watch,
}

/// The families.
#[derive(Clone, Debug)]
pub struct FlowMetrics {
    executing: IntGaugeVec,
    executing_seats: IntGaugeVec,
    waiting: IntGaugeVec,
    waiting_seats: IntGaugeVec,
    dispatched: IntCounterVec,
    rejected: IntCounterVec,
    wait_secs: HistogramVec,
    execution_secs: HistogramVec,
    queue_length: HistogramVec,
    seats: HistogramVec,
    watchers: HistogramVec,
    in_queue: IntGaugeVec,
    in_flight: IntGaugeVec,
    mix: HistogramVec,
    limits: [usize; 2],
}

/// The children of one schema.
#[derive(Debug)]
pub struct SchemaMetrics {
    executing: IntGauge,
    executing_seats: IntGauge,
    waiting: IntGauge,
    waiting_seats: IntGauge,
    dispatched: IntCounter,
    rejected: [IntCounter; 4],
    waited: Histogram,
    waited_in_vain: Histogram,
    regular_secs: Histogram,
    watch_secs: Histogram,
    queue_length: Histogram,
    seats: Histogram,
    watchers: Histogram,
    /// Reads first.
    in_queue: [IntGauge; 2],
    in_flight: [IntGauge; 2],
    waiting_mix: [Histogram; 2],
    executing_mix: [Histogram; 2],
    /// What `--max-requests-inflight` and `--max-mutating-requests-inflight` say.
    limits: [usize; 2],
}

fn histogram(name: &str, help: &str, more: &[&str], buckets: &[f64]) -> HistogramVec {
    let labels: Vec<&str> = SCHEMA.iter().copied().chain(more.iter().copied()).collect();
    HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), &labels).expect("invariant: static names are valid")
}

fn gauge(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    IntGaugeVec::new(Opts::new(name, help), labels).expect("invariant: static names are valid")
}

fn counter(name: &str, help: &str, more: &[&str]) -> IntCounterVec {
    let labels: Vec<&str> = SCHEMA.iter().copied().chain(more.iter().copied()).collect();
    IntCounterVec::new(Opts::new(name, help), &labels).expect("invariant: static names are valid")
}

// === impl RequestKind ===

impl RequestKind {
    fn index(self) -> usize {
        usize::from(self == RequestKind::Mutating)
    }
}

// === impl FlowMetrics ===

impl FlowMetrics {
    /// Nothing counted yet. `in_flight` shows requests that run by `request_kind`; `limits`: of reads and of writes.
    pub fn new(in_flight: IntGaugeVec, limits: [usize; 2]) -> FlowMetrics {
        let name = |rest: &str| format!("apiserver_flowcontrol_{rest}");
        FlowMetrics {
            executing: gauge(&name("current_executing_requests"), "Requests that run, past their wait.", &SCHEMA),
            executing_seats: gauge(&name("current_executing_seats"), "Seats of the requests that run.", &SCHEMA),
            waiting: gauge(&name("current_inqueue_requests"), "Requests that wait in queues.", &SCHEMA),
            waiting_seats: gauge(&name("current_inqueue_seats"), "Seats that are waited for in queues.", &SCHEMA),
            dispatched: counter(&name("dispatched_requests_total"), "Requests that got their seats.", &[]),
            rejected: counter(&name("rejected_requests_total"), "Requests that did not get their seats, by reason.", &["reason"]),
            wait_secs: histogram(&name("request_wait_duration_seconds"), "How long requests waited in queues.", &["execute"], WAIT_BUCKETS),
            execution_secs: histogram(&name("request_execution_seconds"), "How long requests had seats.", &["type"], WAIT_BUCKETS),
            queue_length: histogram(
                &name("request_queue_length_after_enqueue"),
                "Requests in the queue that a request has joined.",
                &[],
                LENGTH_BUCKETS,
            ),
            seats: histogram(&name("work_estimated_seats"), "Seats that requests were thought to need.", &[], SEAT_BUCKETS),
            watchers: histogram(&name("watch_count_samples"), "Watchers that a change was thought to reach.", &[], WATCH_BUCKETS),
            in_queue: gauge("apiserver_current_inqueue_requests", "Requests that wait in queues, by kind.", &["request_kind"]),
            in_flight,
            mix: HistogramVec::new(
                HistogramOpts::new(
                    name("read_vs_write_current_requests"),
                    "Requests of a kind when one more begins or waits, as a part of the limit on its kind.",
                )
                .buckets(MIX_BUCKETS.to_vec()),
                &["phase", "request_kind"],
            )
            .expect("invariant: static names are valid"),
            limits,
        }
    }

    /// Shows them in `registry`.
    pub fn register(&self, registry: &Registry) {
        let families: [Box<dyn Collector>; 13] = [
            Box::new(self.executing.clone()),
            Box::new(self.executing_seats.clone()),
            Box::new(self.waiting.clone()),
            Box::new(self.waiting_seats.clone()),
            Box::new(self.dispatched.clone()),
            Box::new(self.rejected.clone()),
            Box::new(self.wait_secs.clone()),
            Box::new(self.execution_secs.clone()),
            Box::new(self.queue_length.clone()),
            Box::new(self.seats.clone()),
            Box::new(self.watchers.clone()),
            Box::new(self.in_queue.clone()),
            Box::new(self.mix.clone()),
        ];
        for family in families {
            registry.register(family).expect("invariant: registered once");
        }
    }

    /// The children of a schema.
    pub fn schema(&self, schema: &str, level: &str) -> SchemaMetrics {
        let labels = [schema, level];
        let rejected = |reason: &str| self.rejected.with_label_values(&[schema, level, reason]);
        let wait = |execute: &str| self.wait_secs.with_label_values(&[schema, level, execute]);
        let execution = |kind: &str| self.execution_secs.with_label_values(&[schema, level, kind]);
        let by_kind = |family: &IntGaugeVec| KINDS.map(|kind| family.with_label_values(&[kind]));
        SchemaMetrics {
            executing: self.executing.with_label_values(&labels),
            executing_seats: self.executing_seats.with_label_values(&labels),
            waiting: self.waiting.with_label_values(&labels),
            waiting_seats: self.waiting_seats.with_label_values(&labels),
            dispatched: self.dispatched.with_label_values(&labels),
            rejected: REASONS.map(rejected),
            waited: wait("true"),
            waited_in_vain: wait("false"),
            regular_secs: execution("regular"),
            watch_secs: execution("watch"),
            queue_length: self.queue_length.with_label_values(&labels),
            seats: self.seats.with_label_values(&labels),
            watchers: self.watchers.with_label_values(&labels),
            in_queue: by_kind(&self.in_queue),
            in_flight: by_kind(&self.in_flight),
            waiting_mix: KINDS.map(|kind| self.mix.with_label_values(&["waiting", kind])),
            executing_mix: KINDS.map(|kind| self.mix.with_label_values(&["executing", kind])),
            limits: self.limits,
        }
    }

    /// Removes the children of a schema that is gone. Requests that it still has are not shown any more.
    pub fn forget(&self, schema: &str, level: &str) {
        let labels = [schema, level];
        for family in [&self.executing, &self.executing_seats, &self.waiting, &self.waiting_seats] {
            let _ = family.remove_label_values(&labels);
        }
        let _ = self.dispatched.remove_label_values(&labels);
        for family in [&self.queue_length, &self.seats, &self.watchers] {
            let _ = family.remove_label_values(&labels);
        }
        for reason in REASONS {
            let _ = self.rejected.remove_label_values(&[schema, level, reason]);
        }
        for execute in ["true", "false"] {
            let _ = self.wait_secs.remove_label_values(&[schema, level, execute]);
        }
        for kind in ["regular", "watch"] {
            let _ = self.execution_secs.remove_label_values(&[schema, level, kind]);
        }
    }
}

// === impl SchemaMetrics ===

impl SchemaMetrics {
    /// How wide a request is thought to be, and how many watchers its change reaches, if it is one.
    pub fn estimate(&self, seats: u32, watchers: Option<usize>) {
        self.seats.observe(f64::from(seats));
        if let Some(watchers) = watchers {
            #[allow(clippy::cast_precision_loss, reason = "a metric")]
            self.watchers.observe(watchers as f64);
        }
    }

    /// A request has its seats.
    pub fn start(&self, seats: u32, waited: Duration, kind: RequestKind) {
        self.dispatched.inc();
        self.waited.observe(waited.as_secs_f64());
        self.executing.inc();
        self.executing_seats.add(i64::from(seats));
        self.in_flight[kind.index()].inc();
        self.observe_mix(&self.executing_mix, &self.in_flight, kind);
    }

    /// A request has given its seats back.
    pub fn finish(&self, seats: u32, took: Duration, kind: RequestKind) {
        self.executing.dec();
        self.executing_seats.sub(i64::from(seats));
        self.in_flight[kind.index()].dec();
        let secs = if kind == RequestKind::Watch { &self.watch_secs } else { &self.regular_secs };
        secs.observe(took.as_secs_f64());
    }

    /// A request waits; so many wait in its queue.
    pub fn enqueue(&self, seats: u32, length: usize, kind: RequestKind) {
        self.waiting.inc();
        self.waiting_seats.add(i64::from(seats));
        self.in_queue[kind.index()].inc();
        self.observe_mix(&self.waiting_mix, &self.in_queue, kind);
        #[allow(clippy::cast_precision_loss, reason = "a metric")]
        self.queue_length.observe(length as f64);
    }

    /// A request waits no more.
    pub fn dequeue(&self, seats: u32, kind: RequestKind) {
        self.waiting.dec();
        self.waiting_seats.sub(i64::from(seats));
        self.in_queue[kind.index()].dec();
    }

    /// A request is refused.
    pub fn refuse(&self, refusal: Refusal, waited: Duration) {
        let reason = match refusal {
            Refusal::NoSeats => 0,
            Refusal::QueueFull => 1,
            Refusal::TimedOut => 2,
        };
        self.rejected[reason].inc();
        self.waited_in_vain.observe(waited.as_secs_f64());
    }

    #[allow(clippy::cast_precision_loss, reason = "a metric")]
    fn observe_mix(&self, mix: &[Histogram; 2], now: &[IntGauge; 2], kind: RequestKind) {
        let at = kind.index();
        mix[at].observe(now[at].get() as f64 / self.limits[at].max(1) as f64);
    }

    /// A client went away while its request waited.
    pub fn cancel(&self, waited: Duration) {
        self.rejected[CANCELLED].inc();
        self.waited_in_vain.observe(waited.as_secs_f64());
    }
}
