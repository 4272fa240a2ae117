//! The task of one pod: looks at the runtime, plans, acts, reports; woken by changes, asleep otherwise.
//!
//! It alone starts and stops this pod's containers, so within one agent nothing races; across agents the runtime's names
//! protect (see `plan`). `sync` is one round of work, `act` carries a plan out, `resize` changes resources in place, `report` writes
//! the status, `end` takes the pod down.

mod act;
mod end;
mod report;
mod resize;
mod sync;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{backoff::Backoff, holds::Holds, observed::Observer, resize::Resizing, spec, status::Waiting, verdict::Verdict};
use crate::{core::Core, probe::Probes};

/// A failed step is tried again after this, unless it knows better.
const RETRY: SignedDuration = SignedDuration::from_secs(5);
/// The same while the runtime is away.
const RETRY_RUNTIME: SignedDuration = SignedDuration::from_secs(1);
/// A worker that waits for nothing looks again after this.
const IDLE: Duration = Duration::from_secs(3600);

/// What the API server wants of this pod.
#[derive(Clone)]
pub(crate) struct Desired {
    pub(crate) pod: Arc<Pod>,
    /// The object is gone: kill what is left and clean up.
    pub(crate) gone: bool,
}

impl Desired {
    /// The pod must not run (any more).
    pub(crate) fn is_ending(&self) -> bool {
        self.gone || spec::is_deleted(&self.pod) || spec::is_finished(&self.pod)
    }
}

/// What others tell a worker.
pub(crate) struct Signals {
    /// Look again.
    pub(crate) wake: Arc<Notify>,
    /// An object changed that the pod's files are made of; true at first, for what changed while the agent was down.
    pub(crate) stale_content: Arc<AtomicBool>,
    /// The pod is to be ended.
    pub(crate) sentence: Arc<Mutex<Option<Verdict>>>,
}

/// What a round of work ended with.
enum Next {
    /// The pod is gone, and all traces of it.
    Done,
    /// Look again at this moment, or when woken.
    At(Option<Timestamp>),
}

/// The worker of one pod.
pub(crate) struct Worker {
    core: Arc<Core>,
    uid: String,
    desired: watch::Receiver<Desired>,
    signals: Signals,
    observer: Observer,
    probes: Probes,
    backoffs: BTreeMap<String, Backoff>,
    /// See [`super::plan::Situation::stopped`]. Counts for the next plan only.
    stopped: BTreeMap<String, Option<Timestamp>>,
    waiting: BTreeMap<String, Waiting>,
    holds: Holds,
    resizing: Resizing,
    verdict: Option<Verdict>,
    admitted: bool,
    volumes_refresh_at: Option<Timestamp>,
    /// Times in a row that the volumes could not be prepared.
    volume_failures: u32,
    /// Since when the volumes wait for others, or when that was told last.
    volumes_wait_since: Option<Timestamp>,
    last_volume_failure: Option<String>,
    torn_down: bool,
    /// The sandbox for which the host ports are mapped.
    ports_mapped_for: Option<String>,
    /// The status that the API server took last, and its revision.
    reported: Option<(u64, PodStatus)>,
    /// When this pod was first seen, until it runs; none if it ran before.
    starting_since: Option<Instant>,
}

impl Worker {
    pub(crate) fn new(core: Arc<Core>, uid: String, desired: watch::Receiver<Desired>, signals: Signals) -> Worker {
        Worker {
            core,
            uid,
            desired,
            probes: Probes::new(signals.wake.clone()),
            signals,
            observer: Observer::default(),
            backoffs: BTreeMap::new(),
            stopped: BTreeMap::new(),
            waiting: BTreeMap::new(),
            holds: Holds::default(),
            resizing: Resizing::default(),
            verdict: None,
            admitted: false,
            volumes_refresh_at: None,
            volume_failures: 0,
            volumes_wait_since: None,
            last_volume_failure: None,
            torn_down: false,
            ports_mapped_for: None,
            reported: None,
            starting_since: None,
        }
    }

    /// Works until the pod is gone or the kubelet stops. Stopping leaves the containers as they are.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let wake = self.signals.wake.clone();
        let began = Instant::now();
        self.starting_since = self.desired.borrow().pod.status.as_ref().is_none_or(|s| s.start_time.is_none()).then_some(began);
        let mut operation = "create";
        loop {
            let round = Instant::now();
            let synced = cancel.run_until_cancelled(self.sync()).await;
            self.core.metrics.synced(operation, round.elapsed());
            operation = "sync";
            let next = match synced {
                None => return,
                Some(Ok(Next::Done)) => return,
                Some(Ok(Next::At(at))) => at,
                Some(Err(error)) => {
                    tracing::info!(pod = spec::display(&self.desired.borrow().pod), %error, "pod sync will be retried");
                    let delay = if error.is_runtime_away() { RETRY_RUNTIME } else { RETRY };
                    Some(self.core.now() + delay)
                }
            };
            let delay = next.map_or(IDLE, |at| {
                let left = Duration::try_from(at.duration_since(self.core.clock.now())).unwrap_or_default();
                left.saturating_add(Duration::from_millis(20))
            });
            tokio::select! {
                () = cancel.cancelled() => return,
                () = wake.notified() => {}
                changed = self.desired.changed() => match changed {
                    Ok(()) => operation = "update",
                    Err(_) => return,
                },
                () = tokio::time::sleep(delay) => {}
            }
        }
    }
}

/// When a pod's active deadline ends, if it has one.
fn deadline(pod: &Pod) -> Option<Timestamp> {
    let limit = spec::pod_spec(pod).active_deadline_seconds?;
    let started = pod.status.as_ref()?.start_time.as_ref()?.0;
    started.checked_add(SignedDuration::from_secs(limit)).ok()
}
