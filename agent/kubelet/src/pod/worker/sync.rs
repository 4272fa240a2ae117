//! One round of work.

use std::{net::IpAddr, sync::atomic::Ordering};

use k8s_openapi::api::core::v1::Pod;
use trireme_client::EventKind;

use super::{
    Next, RETRY, Worker,
    act::{RETRY_SANDBOX, ending},
    deadline,
};
use crate::{
    container::config,
    error::{Error, Result},
    host_ports, logs,
    pod::{
        admit,
        holds::Hold,
        kill,
        observed::{ContainerRun, Observed, State},
        plan::{self, Plan, Situation},
        spec,
        status::Waiting,
        verdict::Verdict,
    },
    volume,
};

/// Steps in one go before others are let in; each is followed by a fresh look.
const MAX_ROUNDS: usize = 16;
/// A termination message is cut here.
const MAX_MESSAGE_BYTES: u64 = 4096;
/// How much of a log stands in for a missing termination message, as upstream has it.
const FALLBACK_LINES: usize = 80;
const FALLBACK_BYTES: usize = 2048;

impl Worker {
    pub(super) async fn observe(&mut self, pod: &Pod) -> Result<Observed> {
        let mut observed = self.observer.observe(self.core.runtime.as_ref(), &self.uid).await?;
        let pod_dir = self.core.options.pod_dir(&self.uid);
        for run in observed.containers.iter_mut().filter(|run| run.state == State::Exited && run.message.is_empty()) {
            run.message = termination_message(pod, &pod_dir, run).await;
        }
        Ok(observed)
    }

    pub(super) async fn sync(&mut self) -> Result<Next> {
        let desired = self.desired.borrow_and_update().clone();
        if desired.is_ending() || self.verdict.is_some() {
            return self.end(&desired).await;
        }
        self.core.objects.hold(&desired.pod);
        if self.signals.stale_content.swap(false, Ordering::AcqRel) && volume::follows_objects(&desired.pod) {
            self.volumes_refresh_at = Some(self.core.clock.now());
        }
        for _ in 0..MAX_ROUNDS {
            let observed = self.observe(&desired.pod).await?;
            if let Some(verdict) = self.judge(&desired.pod, &observed).await? {
                self.core.events.pod(&desired.pod, EventKind::Warning, &verdict.reason, &verdict.message);
                self.verdict = Some(verdict);
                return self.end(&desired).await;
            }
            let (pod, resized) = self.resize(&desired.pod, &observed).await?;
            let health = self.probes.health();
            let situation = Situation {
                pod: &pod,
                observed: &observed,
                health: &health,
                backoffs: &self.backoffs,
                stopped: &self.stopped,
                holds: &self.holds,
                now: self.core.now(),
            };
            let mut plan = plan::plan(&situation);
            self.stopped.clear();
            self.note_back_off(&pod, &plan, &observed);
            if plan.finished {
                kill::kill_pod(&self.core, &pod, &observed, None, spec::grace_period_secs(&pod)).await?;
                let observed = self.observe(&pod).await?;
                self.report(&pod, &observed, true).await?;
                self.release(&pod).await?;
                return Ok(Next::At(None));
            }
            if !self.map_ports(&pod, &observed).await {
                plan.start.clear();
            }
            let acted = self.act(&pod, &observed, &plan).await? || resized;
            let observed = self.observe(&pod).await?;
            self.probes.update(&self.core, &pod, &observed);
            self.note_start(&pod, &observed);
            self.report(&pod, &observed, false).await?;
            self.sweep(&observed).await;
            if !acted || self.desired.has_changed().unwrap_or(true) {
                let known = [plan.again_at, self.volumes_refresh_at, deadline(&pod), self.holds.next(self.core.clock.now())];
                return Ok(Next::At(known.into_iter().flatten().min()));
            }
        }
        Ok(Next::At(Some(self.core.now() + RETRY)))
    }

    /// Maps the pod's host ports to its sandbox, once for each sandbox and each run of this agent. False when that failed: nothing is
    /// started until it has worked.
    async fn map_ports(&mut self, pod: &Pod, observed: &Observed) -> bool {
        let Some(sandbox) = observed.ready_sandbox() else { return true };
        let mappings = host_ports::of(pod);
        if mappings.is_empty() || self.ports_mapped_for.as_ref() == Some(&sandbox.id) {
            return true;
        }
        if self.holds.until(&Hold::HostPorts, self.core.now()).is_some() {
            return false;
        }
        let ips: Vec<IpAddr> = sandbox.ips.iter().filter_map(|ip| ip.parse().ok()).collect();
        match self.core.options.host_ports.set(&self.uid, &ips, &mappings).await {
            Ok(()) => {
                self.ports_mapped_for = Some(sandbox.id.clone());
                self.holds.lift(&Hold::HostPorts);
                true
            }
            Err(why) => {
                let text = format!("Failed to map the host ports of the pod: {why}");
                self.core.events.pod(pod, EventKind::Warning, "FailedCreatePodSandBox", &text);
                self.holds.set(Hold::HostPorts, self.core.now() + RETRY_SANDBOX);
                false
            }
        }
    }

    /// Measures the start of a pod once all its containers have run.
    fn note_start(&mut self, pod: &Pod, observed: &Observed) {
        let mut regular = spec::all_containers(pod).filter(|(kind, _)| *kind == spec::Kind::Main);
        if regular.all(|(_, container)| observed.latest(&container.name).is_some_and(|run| run.started_at.is_some()))
            && let Some(since) = self.starting_since.take()
        {
            self.core.metrics.pod_runs(since.elapsed());
        }
    }

    /// Whether the pod must fail without a container having a say.
    async fn judge(&mut self, pod: &Pod, observed: &Observed) -> Result<Option<Verdict>> {
        if !self.admitted && observed.sandboxes.is_empty() && pod.status.as_ref().is_none_or(|s| s.start_time.is_none()) {
            let strict_groups = if admit::wants_strict_groups(pod) {
                self.core.runtime.status().await?.features.is_some_and(|f| f.supplemental_groups_policy)
            } else {
                true
            };
            let node = self.core.node.read().clone();
            let host = admit::Host {
                node: node.as_deref(),
                allocatable: &self.core.allocatable,
                allowed_unsafe_sysctls: &self.core.options.allowed_unsafe_sysctls,
                strict_groups,
            };
            let verdict = admit::admit(pod, &self.core.pods.list(), &host);
            if verdict.is_some() {
                return Ok(verdict);
            }
            if let Some(refused) = self.allocate_devices(pod).await? {
                return Ok(Some(refused));
            }
        }
        self.admitted = true;
        if let Some(sentence) = self.signals.sentence.lock().take() {
            return Ok(Some(sentence));
        }
        let passed = deadline(pod).is_some_and(|deadline| self.core.now() >= deadline);
        let message = "Pod was active on the node longer than the specified deadline";
        Ok(passed.then(|| Verdict::new("DeadlineExceeded", message.into())))
    }

    /// Gives the pod its devices. It is refused if it cannot have them.
    async fn allocate_devices(&self, pod: &Pod) -> Result<Option<Verdict>> {
        // A plugin may take its time; a pod that is being deleted does not wait for it.
        let outcome = tokio::select! {
            outcome = self.core.devices.allocate(pod) => outcome,
            () = ending(self.desired.clone()) => Err(Error::Waiting("the pod ends before it has its devices".into())),
        };
        match outcome {
            Ok(()) => Ok(None),
            Err(error @ Error::Waiting(_)) => Err(error),
            Err(error) => {
                let message = format!("Pod was rejected: Allocate failed due to {error}, which is unexpected");
                Ok(Some(Verdict::new("UnexpectedAdmissionError", message)))
            }
        }
    }

    fn note_back_off(&mut self, pod: &Pod, plan: &Plan, observed: &Observed) {
        for wait in &plan.back_off {
            let shown = if wait.delay.as_secs() >= 60 {
                format!("{}m{}s", wait.delay.as_secs() / 60, wait.delay.as_secs() % 60)
            } else {
                format!("{}s", wait.delay.as_secs())
            };
            let message = format!("back-off {shown} restarting failed container={} pod={}", wait.name, spec::display(pod));
            let waiting = Waiting { reason: "CrashLoopBackOff".into(), message };
            if self.waiting.get(&wait.name) != Some(&waiting) {
                let text = format!("Back-off restarting failed container {} in pod {}", wait.name, spec::display(pod));
                self.core.events.container(pod, &wait.name, EventKind::Warning, "BackOff", &text);
                self.waiting.insert(wait.name.clone(), waiting);
            }
        }
        self.waiting.retain(|name, _| observed.latest(name).is_none_or(|run| run.state != State::Running));
    }
}

/// The termination message: from its file, or, if the policy says so, the end of the log.
async fn termination_message(pod: &Pod, pod_dir: &std::path::Path, run: &ContainerRun) -> String {
    let policy = spec::container(pod, &run.name).and_then(|(_, c)| c.termination_message_policy.clone());
    let file = config::termination_message_file(pod_dir, &run.name, run.attempt);
    let text = read_limited(&file).await;
    if text.is_empty() && run.exit_code != 0 && policy.as_deref() == Some("FallbackToLogsOnError") {
        return logs::tail(std::path::Path::new(&run.log_path), FALLBACK_LINES, FALLBACK_BYTES).await;
    }
    text
}

/// The container may make this file as long as it likes.
async fn read_limited(path: &std::path::Path) -> String {
    use tokio::io::AsyncReadExt;
    let Ok(file) = tokio::fs::File::open(path).await else { return String::new() };
    let mut bytes = Vec::new();
    let _ = file.take(MAX_MESSAGE_BYTES).read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}
