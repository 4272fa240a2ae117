//! Stopping containers and pods, gracefully. Answers to
//! <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination>.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use k8s_openapi::api::core::v1::{LifecycleHandler, Pod};
use tokio::time::Instant;
use trireme_client::EventKind;

use super::{
    observed::{ContainerRun, Observed, State},
    spec::{self, Kind},
};
use crate::{core::Core, error::Result, probe};

/// A container gets at least this long after its preStop hook.
const MIN_GRACE_SECS: i64 = 2;

/// Runs a postStart or preStop hook to its end, or to the deadline.
pub(crate) async fn hook(
    core: &Core,
    pod: &Pod,
    run_id: &str,
    container: &str,
    pod_ip: &str,
    handler: &LifecycleHandler,
    timeout: Option<Duration>,
) -> Result<(), String> {
    let Some((_, container)) = spec::container(pod, container) else { return Ok(()) };
    if let Some(exec) = &handler.exec {
        let command = exec.command.clone().unwrap_or_default();
        let response = core.runtime.exec_sync(run_id, command.clone(), timeout.unwrap_or_default()).await.map_err(|e| e.to_string())?;
        return match response.exit_code {
            0 => Ok(()),
            code => Err(format!(
                "command '{}' exited with {code}: {}{}",
                command.join(" "),
                String::from_utf8_lossy(&response.stderr),
                String::from_utf8_lossy(&response.stdout)
            )),
        };
    }
    if let Some(action) = &handler.http_get {
        let (status, _) = probe::http::get(action, container, pod_ip, timeout.unwrap_or(Duration::from_secs(60))).await?;
        return if (200..400).contains(&status) { Ok(()) } else { Err(format!("HTTP hook failed with statuscode: {status}")) };
    }
    if let Some(sleep) = &handler.sleep {
        let wanted = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or_default());
        tokio::time::sleep(timeout.map_or(wanted, |t| t.min(wanted))).await;
    }
    Ok(())
}

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
    let pre_stop = spec::container(pod, &run.name).and_then(|(_, c)| c.lifecycle.as_ref()).and_then(|l| l.pre_stop.as_ref());
    if let Some(handler) = pre_stop.filter(|_| run.state == State::Running && grace_secs > 0) {
        let allowed = Duration::from_secs(u64::try_from(grace_secs).unwrap_or_default());
        let outcome = tokio::time::timeout(allowed, hook(core, pod, &run.id, &run.name, pod_ip, handler, Some(allowed))).await;
        if let Ok(Err(why)) = outcome {
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
    // Also the ones that are not ready: only stopping gives their network back.
    for sandbox in &observed.sandboxes {
        failure = core.runtime.stop_sandbox(&sandbox.id).await.err().or(failure);
    }
    failure.map_or(Ok(()), Err)
}
