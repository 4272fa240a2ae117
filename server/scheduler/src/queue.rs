//! The pods that wait for a node: ready to be tried, backing off, or waiting for something to change. No I/O; time is given.
//!
//! A pod that found no node waits in `unschedulable` until an event that may help one of the plugins that refused it; then it
//! stays in backoff for the rest of its delay and becomes active. An event that arrives while a pod is being tried counts for
//! it too. A pod in backoff is tried earlier when no other pod is active: the delay only serves other pods. A pod whose attempt
//! ended in an error waits in any case.
//!
//! Answers to: upstream's plugin PrioritySort and its feature SchedulerPopFromBackoffQ.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use prometheus::IntCounterVec;
use tokio::time::Instant;
use trireme_client::Object;

use crate::framework::Wake;

/// By priority, then by the time of the last attempt (or of arrival), oldest first.
type Rank = (Reverse<i32>, Instant, u64, String);

/// When the wait is over, in whole seconds since the start of the queue: within one second, the order is by priority.
type Due = (u64, Rank);

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Active(Rank),
    Backoff(Due),
    /// In backoff after an error; `Backoff` is for pods that found no node.
    Failed(Due),
    Unschedulable {
        since: Instant,
        plugins: BTreeSet<&'static str>,
    },
    /// Being tried.
    InFlight {
        woken: Vec<Wake>,
    },
}

struct Entry {
    pod: Arc<Pod>,
    attempts: u32,
    queued_at: Instant,
    last_failure: Instant,
    state: State,
}

pub(crate) struct Queue {
    entries: HashMap<String, Entry>,
    active: BTreeSet<Rank>,
    backoff: BTreeSet<Due>,
    failed: BTreeSet<Due>,
    /// Waits end at whole seconds after this.
    began: Instant,
    sequence: u64,
    initial: Duration,
    max: Duration,
    flush: Duration,
    /// Counts the pods that enter each part, by the cause.
    incoming: Option<IntCounterVec>,
}

/// The attempt to schedule a pod, as the queue counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// The number of attempts, including this one.
    pub(crate) number: u32,
    /// When the pod was added to the queue.
    pub(crate) queued_at: Instant,
}

/// The number of pods in each part of the queue.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Lengths {
    pub(crate) active: usize,
    pub(crate) backoff: usize,
    pub(crate) unschedulable: usize,
    /// Unschedulable pods that each plugin refused.
    pub(crate) refused_by: BTreeMap<&'static str, usize>,
}

impl Queue {
    pub(crate) fn new(initial: Duration, max: Duration, flush: Duration, began: Instant) -> Self {
        Self {
            entries: HashMap::new(),
            active: BTreeSet::new(),
            backoff: BTreeSet::new(),
            failed: BTreeSet::new(),
            began,
            sequence: 0,
            initial,
            max,
            flush,
            incoming: None,
        }
    }

    /// Counts, by event and queue, what comes in.
    pub(crate) fn counting(mut self, incoming: IntCounterVec) -> Self {
        self.incoming = Some(incoming);
        self
    }

    fn count(&self, event: &str, queue: &str) {
        if let Some(incoming) = &self.incoming {
            incoming.with_label_values(&[event, queue]).inc();
        }
    }

    /// What is known of a pod that is being tried.
    pub(crate) fn attempt(&self, uid: &str) -> Option<Attempt> {
        self.entries.get(uid).map(|entry| Attempt { number: entry.attempts, queued_at: entry.queued_at })
    }

    /// How many pods wait where; those being tried count as active, as nothing else holds them.
    pub(crate) fn lengths(&self) -> Lengths {
        let mut lengths = Lengths::default();
        for entry in self.entries.values() {
            match &entry.state {
                State::Active(_) | State::InFlight { .. } => lengths.active += 1,
                State::Backoff(_) | State::Failed(_) => lengths.backoff += 1,
                State::Unschedulable { plugins, .. } => {
                    lengths.unschedulable += 1;
                    for plugin in plugins {
                        *lengths.refused_by.entry(plugin).or_default() += 1;
                    }
                }
            }
        }
        lengths
    }

    /// A pod that waits, new or changed. A changed pod that was unschedulable is tried again.
    pub(crate) fn add(&mut self, pod: Arc<Pod>, now: Instant) {
        let uid = pod.uid().to_owned();
        match self.entries.get_mut(&uid) {
            None => {
                let state = State::InFlight { woken: Vec::new() };
                self.entries.insert(uid.clone(), Entry { pod, attempts: 0, queued_at: now, last_failure: now, state });
                self.activate(&uid);
                self.count("PodAdd", "active");
            }
            Some(entry) => {
                let changed = entry.pod.spec != pod.spec || entry.pod.metadata.labels != pod.metadata.labels;
                entry.pod = pod;
                if changed && matches!(entry.state, State::Unschedulable { .. }) {
                    self.wake(&uid, "PodUpdate", now);
                }
            }
        }
    }

    /// The pod waits no more.
    pub(crate) fn remove(&mut self, uid: &str) {
        if let Some(entry) = self.entries.remove(uid) {
            match entry.state {
                State::Active(rank) => {
                    self.active.remove(&rank);
                }
                State::Backoff(due) => {
                    self.backoff.remove(&due);
                }
                State::Failed(due) => {
                    self.failed.remove(&due);
                }
                State::Unschedulable { .. } | State::InFlight { .. } => {}
            }
        }
    }

    /// The next pod to try; it is in flight until [`failed`](Self::failed) or [`remove`](Self::remove).
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Arc<Pod>> {
        self.advance(now);
        let uid = match self.active.pop_first() {
            Some((_, _, _, uid)) => uid,
            None => {
                let (_, (_, _, _, uid)) = self.backoff.pop_first()?;
                self.count("PopFromBackoffQ", "active");
                uid
            }
        };
        let entry = self.entries.get_mut(&uid).expect("invariant: every active pod has an entry");
        entry.state = State::InFlight { woken: Vec::new() };
        entry.attempts = entry.attempts.saturating_add(1);
        Some(Arc::clone(&entry.pod))
    }

    /// The pod found no node because of these plugins. If there are none, the attempt ended in an error, and the pod is retried after its
    /// backoff.
    pub(crate) fn failed(&mut self, uid: &str, plugins: BTreeSet<&'static str>, wakes: impl Fn(&str, Wake) -> bool, now: Instant) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        entry.last_failure = now;
        let woken = match &entry.state {
            State::InFlight { woken } => woken.iter().any(|wake| plugins.iter().any(|plugin| wakes(plugin, *wake))),
            _ => return,
        };
        let by_time = plugins.is_empty();
        entry.state = State::Unschedulable { since: now, plugins };
        if by_time {
            self.wait_out(uid);
            self.count("ScheduleAttemptFailure", "backoff");
        } else if woken {
            self.wake(uid, "ScheduleAttemptFailure", now);
        } else {
            self.count("ScheduleAttemptFailure", "unschedulable");
        }
    }

    /// Wakes the pods that were refused by a plugin for which `wake` may change the outcome.
    pub(crate) fn happened(&mut self, wake: Wake, wakes: impl Fn(&str, Wake) -> bool, now: Instant) {
        let mut helped = Vec::new();
        for (uid, entry) in &mut self.entries {
            match &mut entry.state {
                State::Unschedulable { plugins, .. } if plugins.iter().any(|plugin| wakes(plugin, wake)) => {
                    helped.push(uid.clone());
                }
                State::InFlight { woken } if !woken.contains(&wake) => woken.push(wake),
                _ => {}
            }
        }
        for uid in helped {
            self.wake(&uid, wake.event(), now);
        }
    }

    /// When the next pod becomes active without an event.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        // Pods in backoff because no node fitted need no timer: they are tried as soon as no other pod is active.
        let failed = self.failed.first().map(|(due, _)| self.began + Duration::from_secs(*due));
        let flush = self
            .entries
            .values()
            .filter_map(|entry| match entry.state {
                State::Unschedulable { since, .. } => Some(since + self.flush),
                _ => None,
            })
            .min();
        [failed, flush].into_iter().flatten().min()
    }

    /// Whether there is anything to try.
    pub(crate) fn has_next(&self) -> bool {
        !self.active.is_empty() || !self.backoff.is_empty()
    }

    fn advance(&mut self, now: Instant) {
        let secs = now.duration_since(self.began).as_secs();
        let mut ready = take_due(&mut self.backoff, secs);
        ready.extend(take_due(&mut self.failed, secs));
        for uid in ready {
            self.activate(&uid);
            self.count("BackoffComplete", "active");
        }
        let stale: Vec<String> = self
            .entries
            .iter()
            .filter(|(_, entry)| matches!(entry.state, State::Unschedulable { since, .. } if since + self.flush <= now))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in stale {
            self.wake(&uid, "UnschedulableTimeout", now);
        }
    }

    /// Active as soon as the wait since the last failure is over.
    fn wake(&mut self, uid: &str, event: &str, now: Instant) {
        let Some(due) = self.due(uid) else { return };
        if due.0 > now.duration_since(self.began).as_secs() {
            self.backoff.insert(due.clone());
            self.set(uid, State::Backoff(due));
            self.count(event, "backoff");
        } else {
            self.activate(uid);
            self.count(event, "active");
        }
    }

    /// Waits since the last failure, and nothing shortens that.
    fn wait_out(&mut self, uid: &str) {
        let Some(due) = self.due(uid) else { return };
        self.failed.insert(due.clone());
        self.set(uid, State::Failed(due));
    }

    /// When a pod's wait is over.
    fn due(&mut self, uid: &str) -> Option<Due> {
        let entry = self.entries.get(uid)?;
        let wait = self.initial.saturating_mul(2_u32.saturating_pow(entry.attempts.saturating_sub(1).min(30))).min(self.max);
        let due = (entry.last_failure + wait).duration_since(self.began).as_secs();
        Some((due, self.rank(uid)?))
    }

    fn activate(&mut self, uid: &str) {
        let Some(rank) = self.rank(uid) else { return };
        self.active.insert(rank.clone());
        self.set(uid, State::Active(rank));
    }

    fn set(&mut self, uid: &str, state: State) {
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.state = state;
        }
    }

    fn rank(&mut self, uid: &str) -> Option<Rank> {
        let entry = self.entries.get(uid)?;
        let priority = entry.pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
        self.sequence += 1;
        Some((Reverse(priority), entry.last_failure, self.sequence, uid.to_owned()))
    }
}

/// Those whose wait ends after so many seconds or fewer.
fn take_due(waiting: &mut BTreeSet<Due>, secs: u64) -> Vec<String> {
    let mut taken = Vec::new();
    while waiting.first().is_some_and(|(due, _)| *due <= secs)
        && let Some((_, (_, _, _, uid))) = waiting.pop_first()
    {
        taken.push(uid);
    }
    taken
}
