//! Probes: one task for each probe of each running container.
//!
//! A task writes what it found into its pod's [`Health`] and wakes the pod's worker when that changes something; it never stops or
//! starts anything itself. Answers to
//! <https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/>.

pub(crate) mod check;
pub(crate) mod http;
mod location;

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use trireme_client::EventKind;

use crate::{
    core::Core,
    metrics::ProbeLabels,
    pod::{
        observed::{Observed, State},
        plan::{Health, Unhealthy},
        spec::{self, Kind},
    },
};
use check::Outcome;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Which {
    Startup,
    Readiness,
    Liveness,
}

impl Which {
    fn title(self) -> &'static str {
        match self {
            Which::Startup => "Startup",
            Which::Readiness => "Readiness",
            Which::Liveness => "Liveness",
        }
    }
}

/// The first pause between tries of a container that has just started; it doubles.
const EARLY_FIRST: Duration = Duration::from_millis(125);
/// The longest one.
const EARLY_MAX: Duration = Duration::from_secs(1);

/// The probes of one pod.
pub(crate) struct Probes {
    health: Arc<Mutex<Health>>,
    wake: Arc<Notify>,
    running: HashMap<String, CancellationToken>,
}

impl Drop for Probes {
    fn drop(&mut self) {
        for cancel in self.running.values() {
            cancel.cancel();
        }
    }
}

impl Probes {
    pub(crate) fn new(wake: Arc<Notify>) -> Probes {
        Probes { health: Arc::default(), wake, running: HashMap::new() }
    }

    /// What is known now.
    pub(crate) fn health(&self) -> Health {
        self.health.lock().clone()
    }

    /// Starts probing what has begun to run, stops probing what has ended.
    pub(crate) fn update(&mut self, core: &Arc<Core>, pod: &Arc<Pod>, observed: &Observed) {
        let runs = |id: &str| observed.containers.iter().any(|c| c.id == id && c.state == State::Running);
        self.running.retain(|id, cancel| {
            let keep = runs(id);
            if !keep {
                cancel.cancel();
            }
            keep
        });
        {
            let mut health = self.health.lock();
            health.started.retain(|id| runs(id));
            health.ready.retain(|id| runs(id));
            health.unhealthy.retain(|id, _| runs(id));
        }
        for (kind, container) in spec::all_containers(pod) {
            let Some(run) = observed.latest(&container.name).filter(|r| r.state == State::Running && kind != Kind::Init) else { continue };
            if self.running.contains_key(&run.id) {
                continue;
            }
            let cancel = CancellationToken::new();
            self.running.insert(run.id.clone(), cancel.clone());
            let probes = [
                (Which::Startup, &container.startup_probe),
                (Which::Readiness, &container.readiness_probe),
                (Which::Liveness, &container.liveness_probe),
            ];
            for (which, probe) in probes {
                let Some(probe) = probe else { continue };
                let task = Task {
                    labels: labels(which, &container.name, pod),
                    core: core.clone(),
                    pod: pod.clone(),
                    container: container.clone(),
                    id: run.id.clone(),
                    started_at: run.started_at.unwrap_or_default(),
                    pod_ip: core.place(pod, observed).pod_ips.first().cloned().unwrap_or_default(),
                    which,
                    probe: probe.clone(),
                    health: self.health.clone(),
                    wake: self.wake.clone(),
                };
                tokio::spawn(cancel.clone().run_until_cancelled_owned(task.run()));
            }
        }
    }

    /// Stops all probes: the pod is being terminated.
    pub(crate) fn stop(&mut self) {
        for (_, cancel) in self.running.drain() {
            cancel.cancel();
        }
    }
}

fn labels(which: Which, container: &str, pod: &Pod) -> ProbeLabels {
    [which.title(), container, spec::name(pod), spec::namespace(pod), spec::uid(pod)].map(str::to_owned)
}

struct Task {
    labels: ProbeLabels,
    core: Arc<Core>,
    pod: Arc<Pod>,
    container: Container,
    id: String,
    started_at: Timestamp,
    pod_ip: String,
    which: Which,
    probe: Probe,
    health: Arc<Mutex<Health>>,
    wake: Arc<Notify>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.core.metrics.forget_probe(&self.labels);
    }
}

impl Task {
    async fn run(self) {
        let seconds = |value: Option<i32>, default: i32| Duration::from_secs(u64::try_from(value.unwrap_or(default).max(0)).unwrap_or(0));
        let period = seconds(self.probe.period_seconds.filter(|p| *p > 0), 10);
        let age = Duration::try_from(self.core.clock.now().duration_since(self.started_at)).unwrap_or_default();
        let delay = seconds(self.probe.initial_delay_seconds, 0).saturating_sub(age);
        tokio::time::sleep(delay).await;
        if self.which != Which::Startup && self.container.startup_probe.is_some() {
            // Readiness and liveness wait until the startup probe has succeeded.
            while !self.health.lock().started.contains(&self.id) {
                tokio::time::sleep(Duration::from_secs(1).min(period)).await;
            }
        }
        let success_threshold = self.probe.success_threshold.unwrap_or(1).max(1);
        let failure_threshold = self.probe.failure_threshold.unwrap_or(3).max(1);
        let (mut successes, mut failures) = (0, 0);
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut early = self.early_tries(period);
        let mut is_early = false;
        loop {
            match if is_early { early.next() } else { None } {
                Some(pause) => tokio::time::sleep(pause).await,
                None => {
                    is_early = false;
                    ticks.tick().await;
                }
            }
            let began = Instant::now();
            let outcome = check::check(&self.core, &self.container, &self.probe, &self.id, &self.pod_ip).await;
            let result = match &outcome {
                Outcome::Success | Outcome::Warning(_) => "successful",
                Outcome::Failure(_) => "failed",
                Outcome::Unknown(_) => "unknown",
            };
            self.core.metrics.probed(&self.labels, result, began.elapsed());
            if let Outcome::Warning(why) = &outcome {
                let text = format!("{} probe warning: {why}", self.which.title());
                self.core.events.container(&self.pod, &self.container.name, EventKind::Warning, "ProbeWarning", &text);
            }
            match outcome {
                Outcome::Success | Outcome::Warning(_) => {
                    (successes, failures, is_early) = (successes + 1, 0, false);
                    early = Vec::new().into_iter();
                    if successes >= success_threshold && self.succeeded() {
                        return;
                    }
                }
                Outcome::Failure(why) => {
                    (successes, failures) = (0, failures + 1);
                    if !is_early {
                        let text = format!("{} probe failed: {why}", self.which.title());
                        self.core.events.container(&self.pod, &self.container.name, EventKind::Warning, "Unhealthy", &text);
                    }
                    is_early = true;
                    if failures >= failure_threshold && self.failed() {
                        return;
                    }
                }
                // The probe itself could not be made: that says nothing about the container.
                Outcome::Unknown(why) => {
                    let text = format!("{} probe errored and resulted in unknown state: {why}", self.which.title());
                    self.core.events.container(&self.pod, &self.container.name, EventKind::Warning, "Unhealthy", &text);
                }
            }
        }
    }

    /// The pauses between tries of a container that has not been ready yet, in its first period. Upstream's kubelet probes it whenever it
    /// looks at the pod: most containers are ready a moment after the first try, and need not wait for a whole period.
    fn early_tries(&self, period: Duration) -> std::vec::IntoIter<Duration> {
        let mut pauses = Vec::new();
        let (mut pause, mut sum) = (EARLY_FIRST, EARLY_FIRST);
        while self.which == Which::Readiness && sum < period {
            pauses.push(pause);
            pause = (pause * 2).min(EARLY_MAX);
            sum += pause;
        }
        pauses.into_iter()
    }

    /// Notes a success; true when this probe has done its work.
    fn succeeded(&self) -> bool {
        let changed = match self.which {
            Which::Startup => self.health.lock().started.insert(self.id.clone()),
            Which::Readiness => self.health.lock().ready.insert(self.id.clone()),
            Which::Liveness => false,
        };
        if changed {
            self.wake.notify_one();
        }
        self.which == Which::Startup
    }

    /// Notes a failure; true when the container has failed its probe for good.
    fn failed(&self) -> bool {
        if self.which == Which::Readiness {
            if self.health.lock().ready.remove(&self.id) {
                self.wake.notify_one();
            }
            return false;
        }
        let message = format!("Container {} failed {} probe, will be restarted", self.container.name, self.which.title().to_lowercase());
        let grace_secs = self.probe.termination_grace_period_seconds;
        self.health.lock().unhealthy.insert(self.id.clone(), Unhealthy { message, grace_secs });
        self.wake.notify_one();
        true
    }
}
