//! Carries a plan out: volumes, sandbox, containers.

use std::{collections::BTreeMap, sync::Arc};

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;
use trireme_client::EventKind;
use trireme_proto::cri;

use super::{Desired, Worker};
use crate::{
    clock::blocking,
    container::{dns, hosts, sandbox},
    error::{Error, Result},
    files,
    pod::{
        backoff,
        handler::runtime_handler,
        holds::Hold,
        kill,
        observed::Observed,
        plan::Plan,
        spec,
        start::{self, Target},
    },
    volume::{self, Mounted},
};

pub(super) const RETRY_SANDBOX: SignedDuration = SignedDuration::from_secs(10);
/// The runtime still holds the name of a creation that was cut off: look again soon.
const RETRY_RESERVED: SignedDuration = SignedDuration::from_secs(1);
/// Volumes that others have to attach first.
const RETRY_WAITING: SignedDuration = SignedDuration::from_millis(500);
/// Upstream's kubelet says after so long that a volume does not come.
const TELL_WAITING: SignedDuration = SignedDuration::from_secs(123);
/// While tarballs are imported.
const LOOK_FOR_IMAGES: SignedDuration = SignedDuration::from_millis(250);

impl Worker {
    /// Carries a plan out. True when something was done, so that a fresh look is worth it.
    pub(super) async fn act(&mut self, pod: &Arc<Pod>, observed: &Observed, plan: &Plan) -> Result<bool> {
        if plan.kill_pod {
            kill::kill_pod(&self.core, pod, observed, None, spec::grace_period_secs(pod)).await?;
        }
        for id in &plan.stop_sandboxes {
            self.core.runtime.stop_sandbox(id).await?;
        }
        let pod_ip = self.core.place(pod, observed).pod_ips.first().cloned().unwrap_or_default();
        for kill in &plan.kill {
            if let Some(run) = observed.containers.iter().find(|c| c.id == kill.id) {
                let grace = kill.grace_secs.unwrap_or(spec::grace_period_secs(pod));
                kill::kill_container(&self.core, pod, run, &pod_ip, Some(&kill.message), grace).await?;
                let before = observed.last_exited(&run.name, Some(&run.id));
                self.stopped.insert(run.id.clone(), before.and_then(|b| b.finished_at));
            }
        }
        let acted = plan.kill_pod || !plan.kill.is_empty();
        let refresh = self.volumes_refresh_at.is_some_and(|at| at <= self.core.clock.now());
        if plan.new_sandbox.is_none() && plan.start.is_empty() && !refresh {
            return Ok(acted);
        }
        if plan.new_sandbox.is_some() && self.core.images_are_coming() && !self.core.images.has_all(pod).await? {
            self.holds.set(Hold::Images, self.core.clock.now() + LOOK_FOR_IMAGES);
            return Ok(acted);
        }
        blocking(|| self.core.cgroups.create_pod(pod))?;
        let Some(volumes) = self.prepare_volumes(pod, observed).await? else { return Ok(acted) };
        if let Some(attempt) = plan.new_sandbox {
            return Ok(self.make_sandbox(pod, attempt).await? || acted);
        }
        if observed.ready_sandbox().is_none() || plan.start.is_empty() {
            return Ok(acted);
        }
        Ok(self.start_containers(pod, observed, plan, &volumes).await? || acted)
    }

    async fn start_containers(
        &mut self,
        pod: &Arc<Pod>,
        observed: &Observed,
        plan: &Plan,
        volumes: &BTreeMap<String, Mounted>,
    ) -> Result<bool> {
        let Some(current) = observed.ready_sandbox() else { return Ok(false) };
        let mut acted = false;
        let configuration = self.sandbox_config(pod, current.attempt).await?;
        let place = self.core.place(pod, observed);
        let hosts_file = self.core.options.pod_dir(&self.uid).join("etc-hosts");
        blocking(|| hosts::write(&hosts_file, pod, &place.pod_ips, &self.core.options.cluster_domain))?;
        for planned in &plan.start {
            let target = Target { sandbox_id: &current.id, sandbox: &configuration, place: &place, volumes, observed };
            let core = self.core.clone();
            let starting = start::start(&core, pod, planned, &target);
            // A pull may take long; a pod that is being deleted does not wait for it.
            let outcome = tokio::select! {
                outcome = starting => outcome,
                () = ending(self.desired.clone()) => return Ok(false),
            };
            if let Some(failed_at) = planned.failed_at {
                self.backoffs.entry(planned.name.clone()).or_default().retried(failed_at, self.core.now());
            }
            let hold = Hold::Container(planned.name.clone());
            self.holds.lift(&hold);
            let kind = match spec::container(pod, &planned.name) {
                Some((spec::Kind::Init | spec::Kind::Sidecar, _)) => "init_container",
                Some((spec::Kind::Ephemeral, _)) => "ephemeral_container",
                _ => "container",
            };
            let refused = outcome.as_ref().err().map(|n| n.waiting.as_ref().map_or("Unknown", |w| w.reason.as_str()));
            self.core.metrics.container(kind, refused);
            match outcome {
                Ok(()) => {
                    self.waiting.remove(&planned.name);
                    acted = true;
                }
                Err(not_started) => {
                    if let Some(waiting) = not_started.waiting {
                        acted |= waiting.reason == "PostStartHookError";
                        self.waiting.insert(planned.name.clone(), waiting);
                    }
                    if let Some(at) = not_started.retry_at {
                        self.holds.set(hold, at);
                    }
                }
            }
        }
        Ok(acted)
    }

    async fn sandbox_config(&self, pod: &Pod, attempt: u32) -> Result<cri::PodSandboxConfig> {
        let resolv_conf = blocking(|| dns::read_host_file(&self.core.options.resolv_conf));
        sandbox::config(pod, attempt, &self.core.options, &self.core.cgroups.pod_parent(pod), &resolv_conf)
    }

    async fn make_sandbox(&mut self, pod: &Pod, attempt: u32) -> Result<bool> {
        let made = async {
            let configuration = self.sandbox_config(pod, attempt).await?;
            let handler = runtime_handler(&self.core, pod).await?;
            let logs = sandbox::log_directory(pod, &self.core.options);
            blocking(|| files::make_directories(&logs, 0o755))?;
            self.core.runtime.run_sandbox(configuration, handler).await
        };
        let made = made.await;
        self.core.metrics.sandbox(made.as_ref().err().map(|_| "CreatePodSandboxError"));
        match made {
            Ok(_) => {
                self.holds.lift(&Hold::Sandbox);
                Ok(true)
            }
            Err(error) if error.is_runtime_away() => Err(error),
            Err(error) => {
                let soon = error.is_name_reserved();
                if !soon {
                    let text = format!("Failed to create pod sandbox: {error}");
                    self.core.events.pod(pod, EventKind::Warning, "FailedCreatePodSandBox", &text);
                }
                let delay = if soon { RETRY_RESERVED } else { RETRY_SANDBOX };
                self.holds.set(Hold::Sandbox, self.core.now() + delay);
                Ok(false)
            }
        }
    }

    async fn prepare_volumes(&mut self, pod: &Pod, observed: &Observed) -> Result<Option<BTreeMap<String, Mounted>>> {
        let pod_dir = self.core.options.pod_dir(&self.uid);
        blocking(|| files::make_directories(&pod_dir, 0o755))?;
        let place = self.core.place(pod, observed);
        let node = self.core.node.read().clone();
        let context = volume::Context {
            pod,
            pod_dir: &pod_dir,
            place: &place,
            objects: &self.core.objects,
            tokens: &self.core.tokens,
            csi: &self.core.csi,
            node_memory_bytes: self.core.machine.memory_bytes,
            node: node.as_deref(),
            local_volumes: &self.core.options.local_volumes_dir,
            now: self.core.clock.now(),
        };
        // A driver may take its time; a pod that is being deleted does not wait for it.
        let outcome = tokio::select! {
            outcome = volume::set_up(&context) => outcome,
            () = ending(self.desired.clone()) => return Ok(None),
        };
        match outcome {
            Ok(prepared) => {
                self.last_volume_failure = None;
                self.volume_failures = 0;
                self.volumes_wait_since = None;
                self.holds.lift(&Hold::Volumes);
                self.volumes_refresh_at = prepared.refresh_at;
                Ok(Some(prepared.mounted))
            }
            Err(failure) if matches!(failure.error, Error::Waiting(_)) => {
                tracing::debug!(pod = spec::display(pod), volume = failure.volume, why = %failure.error, "a volume is not there yet");
                self.note_waiting(pod, &failure.volume);
                self.holds.set(Hold::Volumes, self.core.clock.now() + RETRY_WAITING);
                Ok(None)
            }
            Err(failure) => {
                let text = match &failure.error {
                    Error::Mount { .. } => failure.error.to_string(),
                    error => format!("MountVolume.SetUp failed for volume {:?} : {error}", failure.volume),
                };
                if self.last_volume_failure.as_ref() != Some(&text) {
                    self.core.events.pod(pod, EventKind::Warning, "FailedMount", &text);
                }
                self.last_volume_failure = Some(text);
                let again_at = self.core.clock.now() + backoff::volume_retry(self.volume_failures);
                self.volume_failures = self.volume_failures.saturating_add(1);
                self.volumes_refresh_at = self.volumes_refresh_at.map(|_| again_at);
                self.holds.set(Hold::Volumes, again_at);
                Ok(None)
            }
        }
    }

    /// Says, from time to time, that a volume does not come.
    fn note_waiting(&mut self, pod: &Pod, volume: &str) {
        let now = self.core.clock.now();
        let since = *self.volumes_wait_since.get_or_insert(now);
        if now.duration_since(since) >= TELL_WAITING {
            let text = format!(
                "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[{volume}], failed to process \
                 volumes=[]: context deadline exceeded"
            );
            self.core.events.pod(pod, EventKind::Warning, "FailedMount", &text);
            self.volumes_wait_since = Some(now);
        }
    }
}

/// Returns when the pod is to end.
pub(super) async fn ending(mut desired: watch::Receiver<Desired>) {
    // An error means that the kubelet stops: the worker is cancelled anyway.
    if desired.wait_for(Desired::is_ending).await.is_err() {
        std::future::pending::<()>().await;
    }
}
