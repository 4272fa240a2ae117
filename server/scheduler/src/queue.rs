//! The pods that wait for a node: ready to be tried, backing off, or waiting for something to change. No I/O; time is given.
//!
//! A pod that found no node waits in `unschedulable` until an event that may help one of the plugins that refused it; then it
//! backs off for what is left of its wait and becomes active. An event that comes while a pod is being tried counts for
//! it too.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use prometheus::IntCounterVec;
use tokio::time::Instant;
use trireme_client::Object;

use crate::framework::Wake;

/// Most important first, then longest waiting.
type Rank = (Reverse<i32>, Instant, u64, String);

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Active(Rank),
    Backoff(Instant),
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
    backoff: BTreeSet<(Instant, String)>,
    sequence: u64,
    initial: Duration,
    max: Duration,
    flush: Duration,
    /// Counts what comes into which part, and why.
    incoming: Option<IntCounterVec>,
}

/// What the queue knows of a pod that is being tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// This one counted.
    pub(crate) number: u32,
    /// When the pod came.
    pub(crate) queued_at: Instant,
}

/// How many pods wait where.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Lengths {
    pub(crate) active: usize,
    pub(crate) backoff: usize,
    pub(crate) unschedulable: usize,
    /// Unschedulable pods that each plugin refused.
    pub(crate) refused_by: BTreeMap<&'static str, usize>,
}

impl Queue {
    pub(crate) fn new(initial: Duration, max: Duration, flush: Duration) -> Self {
        Self {
            entries: HashMap::new(),
            active: BTreeSet::new(),
            backoff: BTreeSet::new(),
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
                State::Backoff(_) => lengths.backoff += 1,
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
                let rank = self.rank(&pod, now);
                self.active.insert(rank.clone());
                let entry = Entry { pod, attempts: 0, queued_at: now, last_failure: now, state: State::Active(rank) };
                self.entries.insert(uid, entry);
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
                    self.backoff.remove(&(due, uid.to_owned()));
                }
                State::Unschedulable { .. } | State::InFlight { .. } => {}
            }
        }
    }

    /// The next pod to try; it is in flight until [`failed`](Self::failed) or [`remove`](Self::remove).
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Arc<Pod>> {
        self.advance(now);
        let (_, _, _, uid) = self.active.pop_first()?;
        let entry = self.entries.get_mut(&uid).expect("invariant: every active pod has an entry");
        entry.state = State::InFlight { woken: Vec::new() };
        entry.attempts = entry.attempts.saturating_add(1);
        Some(Arc::clone(&entry.pod))
    }

    /// The pod found no node, because of these plugins; none: something went wrong on the way, so time alone may help.
    pub(crate) fn failed(&mut self, uid: &str, plugins: BTreeSet<&'static str>, wakes: impl Fn(&str, Wake) -> bool, now: Instant) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        entry.last_failure = now;
        let woken = match &entry.state {
            State::InFlight { woken } => woken.iter().any(|wake| plugins.iter().any(|plugin| wakes(plugin, *wake))),
            _ => return,
        };
        let by_time = plugins.is_empty();
        entry.state = State::Unschedulable { since: now, plugins };
        if woken || by_time {
            self.wake(uid, "ScheduleAttemptFailure", now);
        } else {
            self.count("ScheduleAttemptFailure", "unschedulable");
        }
    }

    /// Something happened that may help those whom a plugin that cares refused.
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

    /// When something becomes active by itself.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let backoff = self.backoff.first().map(|(due, _)| *due);
        let flush = self
            .entries
            .values()
            .filter_map(|entry| match entry.state {
                State::Unschedulable { since, .. } => Some(since + self.flush),
                _ => None,
            })
            .min();
        [backoff, flush].into_iter().flatten().min()
    }

    pub(crate) fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    fn advance(&mut self, now: Instant) {
        while let Some((due, uid)) = self.backoff.first().cloned() {
            if due > now {
                break;
            }
            self.backoff.pop_first();
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
        let Some(entry) = self.entries.get_mut(uid) else { return };
        let wait = self.initial.saturating_mul(2_u32.saturating_pow(entry.attempts.saturating_sub(1).min(30))).min(self.max);
        let due = entry.last_failure + wait;
        if due > now {
            entry.state = State::Backoff(due);
            self.backoff.insert((due, uid.to_owned()));
            self.count(event, "backoff");
        } else {
            self.activate(uid);
            self.count(event, "active");
        }
    }

    fn activate(&mut self, uid: &str) {
        let Some(entry) = self.entries.get(uid) else { return };
        let (pod, queued_at) = (Arc::clone(&entry.pod), entry.queued_at);
        let rank = self.rank(&pod, queued_at);
        self.active.insert(rank.clone());
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.state = State::Active(rank);
        }
    }

    fn rank(&mut self, pod: &Pod, at: Instant) -> Rank {
        self.sequence += 1;
        let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
        (Reverse(priority), at, self.sequence, pod.uid().to_owned())
    }
}
