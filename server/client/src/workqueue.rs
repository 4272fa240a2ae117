//! A work queue of keys with client-go's semantics.
//!
//! A key that is added while it waits is there once. A key that is added while it is being worked on waits until
//! [`WorkQueue::done`], so no key is ever worked on twice at the same time. Failures of a key are counted, and
//! [`WorkQueue::add_rate_limited`] waits longer with each. The queue holds each key at most once, so it is bounded
//! by the number of objects.
//!
//! Answers to: client-go's `util/workqueue`.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::backoff::exponential;
use crate::metrics::{Observation, Observed, QueueMetrics, QueueSeries};

const BASE_DELAY: Duration = Duration::from_millis(5);
const MAX_DELAY: Duration = Duration::from_secs(1000);

/// The queue; clones share it.
pub struct WorkQueue<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

/// What a queue with a name counts about itself.
struct Measured<K> {
    series: QueueSeries,
    /// Since when keys are ready, and since when they are worked on.
    ready_since: HashMap<K, Instant>,
    started: HashMap<K, Instant>,
}

/// When a key becomes ready; the number tells keys of the same time apart.
type Due = (Instant, u64);

struct State<K> {
    /// Ready keys, in order.
    ready: VecDeque<K>,
    /// Keys that need work: those in `ready`, and those in `processing` that were added again.
    dirty: HashSet<K>,
    processing: HashSet<K>,
    /// Keys that become ready later, by time; `due` holds the one entry of each key.
    later: BTreeMap<Due, K>,
    due: HashMap<K, Due>,
    next_ticket: u64,
    failures: HashMap<K, u32>,
    closed: bool,
    measured: Option<Measured<K>>,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K: Clone + Eq + Hash> Default for WorkQueue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Clone + Eq + Hash> WorkQueue<K> {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::measuring(None)
    }

    /// An empty queue that shows under this name in a component's metrics.
    #[must_use]
    pub fn named(name: &'static str, metrics: &QueueMetrics) -> Self
    where
        K: Send + Sync + 'static,
    {
        let series = metrics.series(name);
        let queue = Self::measuring(Some(Measured { series, ready_since: HashMap::new(), started: HashMap::new() }));
        let shared: Arc<dyn Observed> = Arc::clone(&queue.shared) as _;
        metrics.watch(name, Arc::downgrade(&shared));
        queue
    }

    fn measuring(measured: Option<Measured<K>>) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    ready: VecDeque::new(),
                    dirty: HashSet::new(),
                    processing: HashSet::new(),
                    later: BTreeMap::new(),
                    due: HashMap::new(),
                    next_ticket: 0,
                    failures: HashMap::new(),
                    closed: false,
                    measured,
                }),
                wake: Notify::new(),
            }),
        }
    }

    /// The key needs work.
    pub fn add(&self, key: K) {
        if self.shared.state.lock().add(key) {
            self.shared.wake.notify_one();
        }
    }

    /// The key needs work after this time (or earlier, if it was promised earlier).
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        if self.shared.state.lock().add_later(key, Instant::now() + delay) {
            // Waiters may sleep until a later time: all are woken to compute their wait again.
            self.shared.wake.notify_waiters();
            self.shared.wake.notify_one();
        }
    }

    /// The key failed: it comes back after 5 ms, 10 ms, ... 1000 s.
    pub fn add_rate_limited(&self, key: K) {
        let failures = {
            let mut state = self.shared.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            let before = *failures;
            *failures = before.saturating_add(1);
            if let Some(measured) = &state.measured {
                measured.series.retries.inc();
            }
            before
        };
        self.add_after(key, exponential(BASE_DELAY, MAX_DELAY, failures));
    }

    /// The key succeeded (or is given up): its failures are forgotten.
    pub fn forget(&self, key: &K) {
        self.shared.state.lock().failures.remove(key);
    }

    /// The next key to work on; [`done`](Self::done) must be called for it. `None` once the queue is shut down.
    pub async fn get(&self) -> Option<K> {
        loop {
            // Registered before looking, so that nothing between the look and the wait is missed.
            let woken = self.shared.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let next_due = {
                let mut state = self.shared.state.lock();
                state.promote(Instant::now());
                if state.closed {
                    return None;
                }
                if let Some(key) = state.take() {
                    let more = !state.ready.is_empty();
                    drop(state);
                    if more {
                        self.shared.wake.notify_one();
                    }
                    return Some(key);
                }
                state.later.first_key_value().map(|((at, _), _)| *at)
            };
            match next_due {
                Some(at) => tokio::select! {
                    () = woken => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => woken.await,
            }
        }
    }

    /// The work on a key has ended; if it was added meanwhile, it is ready again.
    pub fn done(&self, key: &K) {
        if self.shared.state.lock().done(key) {
            self.shared.wake.notify_one();
        }
    }

    /// No key is handed out any more.
    pub fn shut_down(&self) {
        self.shared.state.lock().closed = true;
        self.shared.wake.notify_waiters();
        self.shared.wake.notify_one();
    }

    /// Ready keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.state.lock().ready.len()
    }

    /// Whether no key is ready.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Send + Sync> Observed for Shared<K> {
    fn observe(&self) -> Observation {
        let state = self.state.lock();
        let running = state.measured.iter().flat_map(|measured| measured.started.values()).map(|started| started.elapsed().as_secs_f64());
        let (unfinished_secs, longest_secs) = running.fold((0.0, 0.0), |(sum, most): (f64, f64), secs| (sum + secs, most.max(secs)));
        Observation { depth: state.ready.len(), unfinished_secs, longest_secs }
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn add(&mut self, key: K) -> bool {
        if self.closed || !self.dirty.insert(key.clone()) {
            return false;
        }
        if let Some(measured) = &mut self.measured {
            measured.series.adds.inc();
            measured.ready_since.entry(key.clone()).or_insert_with(Instant::now);
        }
        if self.processing.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    fn add_later(&mut self, key: K, at: Instant) -> bool {
        if self.closed || self.due.get(&key).is_some_and(|(earlier, _)| *earlier <= at) {
            return false;
        }
        let due = (at, self.next_ticket);
        self.next_ticket += 1;
        if let Some(later) = self.due.insert(key.clone(), due) {
            self.later.remove(&later);
        }
        self.later.insert(due, key);
        true
    }

    fn promote(&mut self, now: Instant) {
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= now) {
            let key = entry.remove();
            self.due.remove(&key);
            self.add(key);
        }
    }

    fn take(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        if let Some(measured) = &mut self.measured {
            let now = Instant::now();
            if let Some(since) = measured.ready_since.remove(&key) {
                measured.series.waited.observe((now - since).as_secs_f64());
            }
            measured.started.insert(key.clone(), now);
        }
        self.processing.insert(key.clone());
        Some(key)
    }

    fn done(&mut self, key: &K) -> bool {
        self.processing.remove(key);
        if let Some(measured) = &mut self.measured
            && let Some(started) = measured.started.remove(key)
        {
            measured.series.worked.observe(started.elapsed().as_secs_f64());
        }
        if self.dirty.contains(key) {
            self.ready.push_back(key.clone());
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_never_worked_on_twice_at_once() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.get().await, Some("a"));
        queue.add("a");
        assert_eq!(queue.get().await, Some("b"));
        assert!(queue.is_empty(), "a must wait until it is done");
        queue.done(&"a");
        assert_eq!(queue.get().await, Some("a"));
        queue.done(&"a");
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_named_queue_shows_how_it_fares() {
        let metrics = crate::metrics::ComponentMetrics::new();
        let shows = |line: &str| {
            let text = String::from_utf8(metrics.render()).unwrap();
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        };
        let queue = WorkQueue::named("test", metrics.queues());
        queue.add("a");
        queue.add("a");
        queue.add("b");
        shows("workqueue_adds_total{name=\"test\"} 2");
        shows("workqueue_depth{name=\"test\"} 2");
        tokio::time::advance(Duration::from_secs(2)).await;
        queue.get().await.unwrap();
        tokio::time::advance(Duration::from_secs(3)).await;
        queue.get().await.unwrap();
        tokio::time::advance(Duration::from_secs(4)).await;
        shows("workqueue_depth{name=\"test\"} 0");
        shows("workqueue_queue_duration_seconds_sum{name=\"test\"} 7");
        shows("workqueue_unfinished_work_seconds{name=\"test\"} 11");
        shows("workqueue_longest_running_processor_seconds{name=\"test\"} 7");
        queue.done(&"a");
        queue.add_rate_limited("b");
        queue.done(&"b");
        shows("workqueue_work_duration_seconds_count{name=\"test\"} 2");
        shows("workqueue_retries_total{name=\"test\"} 1");
        shows("workqueue_unfinished_work_seconds{name=\"test\"} 0");
        drop(queue);
        // The next leadership's queue of the same name goes on counting.
        let queue = WorkQueue::named("test", metrics.queues());
        queue.add("c");
        shows("workqueue_adds_total{name=\"test\"} 3");
        shows("workqueue_depth{name=\"test\"} 1");
    }

    #[tokio::test(start_paused = true)]
    async fn delays_are_kept_and_the_earlier_promise_wins() {
        let queue = WorkQueue::new();
        let start = Instant::now();
        queue.add_after("late", Duration::from_secs(30));
        queue.add_after("soon", Duration::from_secs(5));
        queue.add_after("late", Duration::from_secs(10));
        queue.add_after("late", Duration::from_secs(60));
        assert_eq!(queue.get().await, Some("soon"));
        assert_eq!(start.elapsed().as_secs(), 5);
        assert_eq!(queue.get().await, Some("late"));
        assert_eq!(start.elapsed().as_secs(), 10);
        queue.done(&"late");
        let nothing = tokio::time::timeout(Duration::from_secs(100), queue.get()).await;
        assert!(nothing.is_err(), "one promise, one delivery");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_promised_earlier_and_earlier_is_held_once() {
        let queue = WorkQueue::new();
        for seconds in (1..1000).rev() {
            queue.add_after("k", Duration::from_secs(seconds));
        }
        let state = queue.shared.state.lock();
        assert_eq!((state.later.len(), state.due.len()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_until_forgotten() {
        let queue = WorkQueue::new();
        let mut waits = Vec::new();
        for _ in 0..4 {
            let start = Instant::now();
            queue.add_rate_limited("k");
            queue.get().await.unwrap();
            queue.done(&"k");
            waits.push(start.elapsed().as_millis());
        }
        assert_eq!(waits, [5, 10, 20, 40]);
        queue.forget(&"k");
        let start = Instant::now();
        queue.add_rate_limited("k");
        queue.get().await.unwrap();
        assert_eq!(start.elapsed().as_millis(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleeping_worker_hears_of_earlier_work_and_of_the_end() {
        let queue = WorkQueue::new();
        queue.add_after(1, Duration::from_secs(1000));
        let worker = tokio::spawn({
            let queue = queue.clone();
            async move {
                let mut seen = Vec::new();
                while let Some(key) = queue.get().await {
                    seen.push(key);
                    queue.done(&key);
                }
                seen
            }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        queue.add(2);
        queue.add_after(3, Duration::from_secs(1));
        tokio::time::sleep(Duration::from_secs(2)).await;
        queue.shut_down();
        assert_eq!(worker.await.unwrap(), [2, 3]);
    }
}
