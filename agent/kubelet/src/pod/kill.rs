//! Stopping containers and pods, gracefully. Answers to
//! <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination>.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;
use trireme_client::EventKind;

use super::{
    hook::{self, Hook},
    observed::{ContainerRun, Observed, Observer, State},
    spec::{self, Kind},
};
use crate::{
    core::Core,
    error::{Error, Result},
};

/// What is left of a shutdown's time for stopping sandboxes.
const SANDBOX_TIME: Duration = Duration::from_secs(3);
/// For what did not end in a shutdown's time. With it, the time stays below `TimeoutStopSec` of the units.
const KILL_TIME: Duration = Duration::from_secs(15);
/// A container gets at least this long after its preStop hook.
const MIN_GRACE_SECS: i64 = 2;

/// Stops one container: preStop hook, SIGTERM, and SIGKILL when the grace period is over.
pub(crate) async fn kill_container(
    core: &Core,
    pod: &Pod,
    run: &ContainerRun,
    pod_ip: &str,
    message: Option<&str>,
    grace_secs: i64,
) -> Result<()> {
    if run.state != State::Exited {
        let text = message.map_or_else(|| format!("Stopping container {}", run.name), str::to_string);
        core.events.container(pod, &run.name, EventKind::Normal, "Killing", &text);
    }
    let began = Instant::now();
    let pre_stop = spec::container(pod, &run.name).and_then(|(_, c)| c.lifecycle.clone()).and_then(|l| l.pre_stop);
    if let Some(handler) = pre_stop.filter(|_| run.state == State::Running && grace_secs > 0) {
        let allowed = Duration::from_secs(u64::try_from(grace_secs).unwrap_or_default());
        let hook = Hook { pod, container: &run.name, id: &run.id, pod_ip, handler: &handler };
        if let Ok(Err(why)) = tokio::time::timeout(allowed, hook::run(core, &hook)).await {
            tracing::info!(pod = spec::name(pod), container = run.name, %why, "preStop hook failed");
            core.events.container(pod, &run.name, EventKind::Warning, "FailedPreStopHook", "PreStopHook failed");
        }
    }
    if run.state == State::Created {
        // The runtime died, or the pod was deleted, between creation and start. Stopping does nothing to such a container: it would stay for ever.
        return core.runtime.remove_container(&run.id).await;
    }
    let spent = i64::try_from(began.elapsed().as_secs()).unwrap_or(i64::MAX);
    let left = if grace_secs == 0 { 0 } else { (grace_secs - spent).max(MIN_GRACE_SECS.min(grace_secs)) };
    core.runtime.stop_container(&run.id, left).await
}

/// Stops all of a pod: regular containers together, then the sidecars in reverse order, then the sandboxes.
pub(crate) async fn kill_pod(core: &Arc<Core>, pod: &Pod, observed: &Observed, message: Option<&str>, grace_secs: i64) -> Result<()> {
    let began = Instant::now();
    let pod_ip = core.place(pod, observed).pod_ips.first().cloned().unwrap_or_default();
    let alive = || observed.containers.iter().filter(|c| c.state != State::Exited);
    let is_sidecar = |run: &&ContainerRun| spec::container(pod, &run.name).is_some_and(|(kind, _)| kind == Kind::Sidecar);
    let regular = alive().filter(|run| !is_sidecar(run)).map(|run| kill_container(core, pod, run, &pod_ip, message, grace_secs));
    let mut failure = join_all(regular).await.into_iter().find_map(Result::err);
    for container in spec::init_containers(pod).iter().rev() {
        let spent = i64::try_from(began.elapsed().as_secs()).unwrap_or(i64::MAX);
        for run in alive().filter(|run| is_sidecar(run) && run.name == container.name) {
            failure = kill_container(core, pod, run, &pod_ip, message, (grace_secs - spent).max(0)).await.err().or(failure);
        }
    }
    // Before the sandbox: once it is stopped its address may be another pod's.
    let cleared = core.options.host_ports.clear(spec::uid(pod)).await;
    failure = cleared.err().map(|why| Error::Config(format!("cannot unmap the host ports of the pod: {why}"))).or(failure);
    // Also the ones that are not ready: only stopping gives their network back.
    for sandbox in &observed.sandboxes {
        failure = core.runtime.stop_sandbox(&sandbox.id).await.err().or(failure);
    }
    failure.map_or(Ok(()), Err)
}

/// Ends all pods at once, each within its own grace period and `within`. What is left then is killed: the host's shutdown would wait for it.
pub(crate) async fn end_pods(core: &Arc<Core>, within: Duration) {
    if tokio::time::timeout(within, end_each(core, within)).await.is_ok() {
        return;
    }
    tracing::warn!("not all pods ended in time, the others are killed");
    if tokio::time::timeout(KILL_TIME, end_each(core, Duration::ZERO)).await.is_err() {
        tracing::warn!("not all containers could be killed in time");
    }
}

async fn end_each(core: &Arc<Core>, within: Duration) {
    let most = i64::try_from(within.saturating_sub(SANDBOX_TIME).as_secs()).unwrap_or(i64::MAX);
    let pods = core.pods.list();
    let ended = pods.iter().map(|pod| async move {
        let grace = spec::grace_period_secs(pod).min(most);
        let outcome = async {
            let observed = Observer::default().observe(core.runtime.as_ref(), spec::uid(pod)).await?;
            kill_pod(core, pod, &observed, Some("The node is shutting down"), grace).await
        };
        if let Err(error) = outcome.await {
            tracing::warn!(pod = spec::display(pod), %error, "not ended before the shutdown");
        }
    });
    join_all(ended).await;
}
