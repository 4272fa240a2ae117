//! Starting one container: image, configuration, create, start, postStart hook.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use trireme_client::EventKind;
use trireme_proto::cri;

use super::{
    handler::mounts_recursively_read_only,
    hook::{self, Hook},
    kill,
    observed::{ContainerRun, Observed, State},
    plan::Start,
    spec,
    status::Waiting,
};
use crate::{
    clock::blocking,
    container::{config, env, fields::Place},
    core::Core,
    error::Error,
    volume::Mounted,
};

/// After a failed creation the next try comes this much later, as upstream's pod workers do it.
const RETRY: Duration = Duration::from_secs(10);
/// The runtime still holds the name of a creation that was cut off: look again soon.
const RETRY_RESERVED: Duration = Duration::from_secs(1);

/// Where a container is started.
pub(crate) struct Target<'a> {
    pub(crate) sandbox_id: &'a str,
    pub(crate) sandbox: &'a cri::PodSandboxConfig,
    pub(crate) place: &'a Place,
    pub(crate) volumes: &'a BTreeMap<String, Mounted>,
    /// The pod as the runtime had it when the start was planned.
    pub(crate) observed: &'a Observed,
}

/// Why a container did not start. `waiting` is None when its status must stay as it is.
pub(crate) struct NotStarted {
    pub(crate) waiting: Option<Waiting>,
    pub(crate) retry_at: Option<Timestamp>,
}

/// Starts one container as planned.
pub(crate) async fn start(core: &Arc<Core>, pod: &Pod, planned: &Start, target: &Target<'_>) -> Result<(), NotStarted> {
    let id = match &planned.existing {
        Some(id) => id.clone(),
        None => create(core, pod, planned, target).await?,
    };
    let failed = |reason: &str, error: Error| {
        core.events.container(pod, &planned.name, EventKind::Warning, "Failed", &format!("Error: {error}"));
        not_started(core, reason, &error)
    };
    core.runtime.start_container(&id).await.map_err(|e| failed("RunContainerError", e))?;
    core.events.container(pod, &planned.name, EventKind::Normal, "Started", &format!("Started container {}", planned.name));
    let post_start = spec::container(pod, &planned.name).and_then(|(_, c)| c.lifecycle.clone()).and_then(|l| l.post_start);
    if let Some(handler) = post_start {
        let pod_ip = target.place.pod_ips.first().cloned().unwrap_or_default();
        let hook = Hook { pod, container: &planned.name, id: &id, pod_ip: &pod_ip, handler: &handler };
        if let Err(why) = hook::run(core, &hook).await {
            tracing::info!(pod = spec::name(pod), container = planned.name, %why, "postStart hook failed");
            core.events.container(pod, &planned.name, EventKind::Warning, "FailedPostStartHook", "PostStartHook failed");
            let run = just_started(&id, planned);
            let killed = kill::kill_container(core, pod, &run, &pod_ip, Some("FailedPostStartHook"), spec::grace_period_secs(pod)).await;
            if let Err(error) = killed {
                tracing::warn!(pod = spec::name(pod), container = planned.name, %error, "cannot stop a container whose postStart hook failed");
            }
            return Err(NotStarted { waiting: Some(Waiting { reason: "PostStartHookError".into(), message: why }), retry_at: None });
        }
    }
    Ok(())
}

fn just_started(id: &str, planned: &Start) -> ContainerRun {
    ContainerRun {
        id: id.into(),
        sandbox_id: String::new(),
        name: planned.name.clone(),
        attempt: planned.attempt,
        state: State::Running,
        hash: String::new(),
        image: String::new(),
        image_ref: String::new(),
        created_at: Timestamp::default(),
        started_at: None,
        finished_at: None,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        log_path: String::new(),
    }
}

async fn create(core: &Arc<Core>, pod: &Pod, planned: &Start, target: &Target<'_>) -> Result<String, NotStarted> {
    let Some((_, container)) = spec::container(pod, &planned.name) else {
        return Err(NotStarted { waiting: None, retry_at: None });
    };
    let image = core.images.ensure(pod, &container, target.sandbox, &core.objects, &core.events).await.map_err(|missing| {
        if matches!(missing.waiting.reason.as_str(), "ErrImagePull" | "ErrImageNeverPull" | "InvalidImageName") {
            core.events.container(pod, &planned.name, EventKind::Warning, "Failed", &format!("Error: {}", missing.waiting.reason));
        } else if missing.waiting.reason == "ImagePullBackOff" {
            core.events.container(pod, &planned.name, EventKind::Warning, "Failed", "Error: ImagePullBackOff");
        }
        NotStarted { waiting: Some(missing.waiting), retry_at: missing.retry_at.or(Some(core.now() + RETRY * 6)) }
    })?;
    let failed = |reason: &str, error: Error| {
        core.events.container(pod, &planned.name, EventKind::Warning, "Failed", &format!("Error: {error}"));
        not_started(core, reason, &error)
    };
    let configuration = configure(core, pod, planned, target, &image).await.map_err(|e| failed("CreateContainerConfigError", e))?;
    match core.runtime.create_container(target.sandbox_id, configuration, target.sandbox.clone()).await {
        Ok(id) => {
            core.events.container(pod, &planned.name, EventKind::Normal, "Created", &format!("Created container: {}", planned.name));
            Ok(id)
        }
        Err(e) if e.is_name_reserved() || e.is_runtime_away() => {
            Err(NotStarted { waiting: None, retry_at: Some(core.now() + RETRY_RESERVED) })
        }
        Err(e) => Err(failed("CreateContainerError", e)),
    }
}

async fn configure(
    core: &Arc<Core>,
    pod: &Pod,
    planned: &Start,
    target: &Target<'_>,
    image: &cri::Image,
) -> Result<cri::ContainerConfig, Error> {
    let Some((_, container)) = spec::container(pod, &planned.name) else {
        return Err(Error::Config(format!("container {} not found", planned.name)));
    };
    // A static pod does not wait for the API server.
    if !core.services.is_synced() && !core.pods.is_static(spec::uid(pod)) {
        return Err(Error::Config("services have not yet been read at least once, cannot construct envs".into()));
    }
    let links = spec::pod_spec(pod).enable_service_links != Some(false);
    let relevant: Vec<_> =
        core.services.list_namespace(spec::namespace(pod)).into_iter().chain(core.services.get("default", "kubernetes")).collect();
    let services = env::service_variables(&relevant, spec::namespace(pod), links);
    let can_recurse = mounts_recursively_read_only(core, pod, &container).await?;
    let target_id = target_id(pod, &planned.name, target.observed)?;
    let sources = env::Sources { pod, container: &container, place: target.place, volumes: target.volumes, objects: &core.objects };
    let environment = env::environment(&sources, &services).await?;
    let extras = core.devices.prepare(pod, &container).await?;
    blocking(|| {
        config::compose(config::Parts {
            pod,
            container: &container,
            attempt: planned.attempt,
            image,
            environment,
            extras,
            volumes: target.volumes,
            pod_dir: &core.options.pod_dir(spec::uid(pod)),
            seccomp_dir: &core.seccomp_dir(),
            node_memory_bytes: core.machine.memory_bytes,
            grace_secs: spec::grace_period_secs(pod),
            target_id: target_id.as_deref(),
            can_mount_recursively_read_only: can_recurse,
        })
    })
}

/// The id of the container that an ephemeral one looks into, if it names one.
fn target_id(pod: &Pod, name: &str, observed: &Observed) -> Result<Option<String>, Error> {
    let Some(target) = spec::ephemeral_target(pod, name) else { return Ok(None) };
    match observed.latest(target) {
        Some(run) if run.state == State::Running => Ok(Some(run.id.clone())),
        _ => Err(Error::Config(format!("unable to find target container {target:?}"))),
    }
}

fn not_started(core: &Core, reason: &str, error: &Error) -> NotStarted {
    NotStarted { waiting: Some(Waiting { reason: reason.into(), message: error.to_string() }), retry_at: Some(core.now() + RETRY) }
}
