//! Changes the resources of running containers.

use std::sync::Arc;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use trireme_client::EventKind;
use trireme_proto::cri;

use super::Worker;
use crate::{
    clock::blocking,
    container::resources,
    error::{Error, Result},
    pod::{
        holds::Hold,
        kill,
        observed::Observed,
        resize::{Pending, Step},
        spec,
    },
};

/// A size that did not fit, or could not be set, is tried again after this: other pods come and go.
const RETRY_RESIZE: SignedDuration = SignedDuration::from_secs(10);

impl Worker {
    /// Gives the containers the size that the specification asks for. Returns the pod with the resources that its containers have
    /// been given, and whether something was done to them.
    pub(super) async fn resize(&mut self, pod: &Arc<Pod>, observed: &Observed) -> Result<(Arc<Pod>, bool)> {
        self.resizing.learn(pod, observed);
        let before = self.resizing.pending.clone();
        self.resizing.allocate(pod, &self.core.pods.list(), &self.core.allocatable);
        if let Some(pending) = self.resizing.pending.clone() {
            if before.as_ref() != Some(&pending) {
                self.tell_pending(pod, &pending);
            }
            self.holds.set(Hold::Resize, self.core.now() + RETRY_RESIZE);
        }
        let effective = self.resizing.effective(pod);
        if self.resizing.in_progress.is_none() && self.resizing.steps(&effective, observed).is_empty() {
            return Ok((effective, false));
        }
        if self.resizing.in_progress.as_ref().is_some_and(Option::is_some) && self.holds.until(&Hold::Resize, self.core.now()).is_some() {
            return Ok((effective, false));
        }
        let outcome = self.apply(&effective, observed).await;
        match outcome {
            Ok(()) => {
                self.resizing.in_progress = None;
                self.holds.lift(&Hold::Resize);
            }
            Err(error) if error.is_runtime_away() => return Err(error),
            Err(error) => {
                self.core.events.pod(pod, EventKind::Warning, "ResizeError", &format!("Error resizing the pod: {error}"));
                self.resizing.in_progress = Some(Some(error.to_string()));
                self.holds.set(Hold::Resize, self.core.now() + RETRY_RESIZE);
            }
        }
        Ok((effective, true))
    }

    fn tell_pending(&self, pod: &Pod, pending: &Pending) {
        let reason = format!("Resize{}", pending.reason);
        self.core.events.pod(pod, EventKind::Warning, &reason, &pending.message);
    }

    async fn apply(&mut self, pod: &Arc<Pod>, observed: &Observed) -> Result<()> {
        let steps = self.resizing.steps(pod, observed);
        // A pod's cgroup bounds its containers': it has to grow before them and shrink after them. What is refused now is set below.
        let _ = blocking(|| self.core.cgroups.create_pod(pod));
        for (name, step) in steps {
            let (Some(run), Some((_, container))) = (observed.latest(&name), spec::container(pod, &name)) else { continue };
            match step {
                Step::Restart => {
                    let pod_ip = self.core.place(pod, observed).pod_ips.first().cloned().unwrap_or_default();
                    let message = format!("Container {name} resize requires restart");
                    kill::kill_container(&self.core, pod, run, &pod_ip, Some(&message), spec::grace_period_secs(pod)).await?;
                }
                Step::Update => {
                    self.check_memory(&name, &run.id).await?;
                    let wanted = resources::container(pod, &container, self.core.machine.memory_bytes);
                    self.core.runtime.update_resources(&run.id, wanted).await?;
                    self.resizing.applied(&name, &run.id);
                }
            }
        }
        blocking(|| self.core.cgroups.create_pod(pod))
    }

    /// A limit below what is in use would end the container.
    async fn check_memory(&self, name: &str, id: &str) -> Result<()> {
        let Some(limit) = self.resizing.shrinks_memory_to(name, id) else { return Ok(()) };
        let usage = |stats: &cri::ContainerStats| Some(stats.memory.as_ref()?.usage_bytes.as_ref()?.value);
        let all = self.core.runtime.container_stats().await?;
        let used = all.iter().find(|s| s.attributes.as_ref().is_some_and(|a| a.id == id)).and_then(usage).unwrap_or_default();
        if i64::try_from(used).unwrap_or(i64::MAX) >= limit {
            return Err(Error::Config(format!(
                "attempting to set the memory limit of container {name} ({limit}) below its current usage ({used})"
            )));
        }
        Ok(())
    }
}
