//! A container runtime in memory, for tests: the same calls give the same answers, and nothing happens by itself.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tonic::Code;
use trireme_proto::cri::{
    self, AttachRequest, AuthConfig, CgroupDriver, Container, ContainerConfig, ContainerState, ContainerStats, ContainerStatus,
    ExecRequest, ExecSyncResponse, Image, ImageSpec, LinuxContainerResources, PodSandbox, PodSandboxConfig, PodSandboxState,
    PodSandboxStatus, StatusResponse, VersionResponse,
};

use super::{Answer, Runtime, keys};
use crate::{
    clock::Clock,
    error::{Error, Result},
};

struct Sandbox {
    id: String,
    config: PodSandboxConfig,
    handler: String,
    ready: bool,
    ip: String,
}

struct Run {
    id: String,
    sandbox_id: String,
    config: ContainerConfig,
    status: ContainerStatus,
}

#[derive(Default)]
struct State {
    sandboxes: Vec<Sandbox>,
    runs: Vec<Run>,
    next: u32,
    stops_slowly: bool,
    calls: Vec<String>,
    failures: HashMap<&'static str, Vec<(Code, String)>>,
    updates: BTreeMap<String, LinuxContainerResources>,
    features: cri::RuntimeFeatures,
    handlers: Vec<cri::RuntimeHandler>,
    images: Vec<Image>,
}

/// The double. Clones share one state.
#[derive(Clone)]
pub(crate) struct Double {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

impl Double {
    pub(crate) fn new(clock: Clock) -> Double {
        Double { clock, state: Arc::default() }
    }

    /// The images that it has.
    pub(crate) fn set_images(&self, images: Vec<Image>) {
        self.state.lock().images = images;
    }

    /// Lets the next call of this name fail.
    pub(crate) fn fail(&self, call: &'static str, code: Code, message: &str) {
        self.state.lock().failures.entry(call).or_default().push((code, message.into()));
    }

    /// The calls that changed something, in order: `create a.0`, `start a.0`, ...
    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().calls.clone()
    }

    /// What the runtime can do.
    pub(crate) fn set_features(&self, features: cri::RuntimeFeatures) {
        self.state.lock().features = features;
    }

    /// The default handler mounts recursively read-only.
    pub(crate) fn mount_recursively_read_only(&self) {
        let features = cri::RuntimeHandlerFeatures { recursive_read_only_mounts: true, ..Default::default() };
        self.state.lock().handlers = vec![cri::RuntimeHandler { name: String::new(), features: Some(features) }];
    }

    /// From now on a stop with a grace period does not return.
    pub(crate) fn stop_slowly(&self) {
        self.state.lock().stops_slowly = true;
    }

    /// The container's process ends by itself.
    pub(crate) fn exit(&self, name: &str, code: i32) {
        let now = self.nanos();
        let mut state = self.state.lock();
        let run = state.runs.iter_mut().rev().find(|r| name_of(&r.config) == name).expect("there is such a container");
        end(run, code, now);
    }

    /// The whole pod ends without a request, as in a reboot.
    pub(crate) fn reboot(&self) {
        let now = self.nanos();
        let mut state = self.state.lock();
        state.sandboxes.iter_mut().for_each(|s| s.ready = false);
        state.runs.iter_mut().for_each(|run| end(run, 255, now));
    }

    /// The configuration of the newest container of that name.
    pub(crate) fn config(&self, name: &str) -> Option<ContainerConfig> {
        self.state.lock().runs.iter().rev().find(|r| name_of(&r.config) == name).map(|r| r.config.clone())
    }

    /// The resources that the newest container of that name was set to while it ran.
    pub(crate) fn update_of(&self, name: &str) -> Option<LinuxContainerResources> {
        let state = self.state.lock();
        let run = state.runs.iter().rev().find(|r| name_of(&r.config) == name)?;
        state.updates.get(&run.id).cloned()
    }

    /// The handler of the newest sandbox.
    pub(crate) fn handler(&self) -> Option<String> {
        self.state.lock().sandboxes.last().map(|s| s.handler.clone())
    }

    fn nanos(&self) -> i64 {
        i64::try_from(self.clock.now().as_nanosecond()).unwrap_or(i64::MAX)
    }

    /// Notes the call; an error if one was ordered.
    fn enter(&self, call: &'static str, what: String) -> Result<()> {
        let mut state = self.state.lock();
        if let Some(failures) = state.failures.get_mut(call).filter(|f| !f.is_empty()) {
            let (code, message) = failures.remove(0);
            return Err(Error::Runtime { call, code, message });
        }
        if !what.is_empty() {
            state.calls.push(what);
        }
        Ok(())
    }

    fn run<T>(&self, id: &str, work: impl FnOnce(&mut Run) -> T) -> Result<T> {
        let mut state = self.state.lock();
        let run = state.runs.iter_mut().find(|r| r.id == id);
        run.map(work).ok_or_else(|| Error::Runtime { call: "double", code: Code::NotFound, message: format!("no container {id}") })
    }

    fn label(&self, id: &str) -> String {
        self.run(id, |r| format!("{}.{}", name_of(&r.config), r.config.metadata.as_ref().map_or(0, |m| m.attempt))).unwrap_or_default()
    }
}

fn name_of(config: &ContainerConfig) -> &str {
    config.metadata.as_ref().map_or("", |m| m.name.as_str())
}

fn end(run: &mut Run, code: i32, now: i64) {
    if run.status.state != ContainerState::ContainerExited as i32 {
        run.status.state = ContainerState::ContainerExited as i32;
        run.status.exit_code = code;
        run.status.finished_at = now;
    }
}

fn is_of(labels: &HashMap<String, String>, uid: Option<&str>) -> bool {
    uid.is_none_or(|uid| labels.get(keys::POD_UID).is_some_and(|l| l == uid))
}

impl Runtime for Double {
    fn version(&self) -> Answer<'_, VersionResponse> {
        Box::pin(async { Ok(VersionResponse { runtime_name: "double".into(), runtime_version: "1".into(), ..Default::default() }) })
    }

    fn status(&self) -> Answer<'_, StatusResponse> {
        Box::pin(async {
            self.enter("Status", String::new())?;
            let state = self.state.lock();
            Ok(StatusResponse { features: Some(state.features), runtime_handlers: state.handlers.clone(), ..Default::default() })
        })
    }

    fn cgroup_driver(&self) -> Answer<'_, Option<CgroupDriver>> {
        Box::pin(async { Ok(Some(CgroupDriver::Cgroupfs)) })
    }

    fn list_sandboxes<'a>(&'a self, pod_uid: Option<&'a str>) -> Answer<'a, Vec<PodSandbox>> {
        Box::pin(async move {
            self.enter("ListPodSandbox", String::new())?;
            let state = self.state.lock();
            let ours = state.sandboxes.iter().filter(|s| is_of(&s.config.labels, pod_uid));
            let shown = ours.map(|s| PodSandbox {
                id: s.id.clone(),
                metadata: s.config.metadata.clone(),
                state: if s.ready { PodSandboxState::SandboxReady } else { PodSandboxState::SandboxNotready } as i32,
                labels: s.config.labels.clone(),
                ..Default::default()
            });
            Ok(shown.collect())
        })
    }

    fn run_sandbox(&self, config: PodSandboxConfig, handler: String) -> Answer<'_, String> {
        Box::pin(async move {
            let attempt = config.metadata.as_ref().map_or(0, |m| m.attempt);
            self.enter("RunPodSandbox", format!("sandbox {attempt}"))?;
            let mut state = self.state.lock();
            state.next += 1;
            let (id, ip) = (format!("s{}", state.next), format!("10.0.0.{}", state.next));
            state.sandboxes.push(Sandbox { id: id.clone(), config, handler, ready: true, ip });
            Ok(id)
        })
    }

    fn stop_sandbox<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            self.enter("StopPodSandbox", format!("stop sandbox {id}"))?;
            let now = self.nanos();
            let mut state = self.state.lock();
            state.sandboxes.iter_mut().filter(|s| s.id == id).for_each(|s| s.ready = false);
            state.runs.iter_mut().filter(|r| r.sandbox_id == id).for_each(|r| end(r, 137, now));
            Ok(())
        })
    }

    fn remove_sandbox<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            self.enter("RemovePodSandbox", format!("remove sandbox {id}"))?;
            let mut state = self.state.lock();
            state.sandboxes.retain(|s| s.id != id);
            state.runs.retain(|r| r.sandbox_id != id);
            Ok(())
        })
    }

    fn sandbox_status<'a>(&'a self, id: &'a str) -> Answer<'a, PodSandboxStatus> {
        Box::pin(async move {
            let state = self.state.lock();
            let ip = state.sandboxes.iter().find(|s| s.id == id).map(|s| s.ip.clone()).unwrap_or_default();
            Ok(PodSandboxStatus { network: Some(cri::PodSandboxNetworkStatus { ip, ..Default::default() }), ..Default::default() })
        })
    }

    fn list_containers<'a>(&'a self, pod_uid: Option<&'a str>) -> Answer<'a, Vec<Container>> {
        Box::pin(async move {
            let state = self.state.lock();
            let ours = state.runs.iter().filter(|r| is_of(&r.config.labels, pod_uid));
            let shown = ours.map(|r| Container {
                id: r.id.clone(),
                pod_sandbox_id: r.sandbox_id.clone(),
                metadata: r.config.metadata.clone(),
                state: r.status.state,
                image_ref: r.status.image_ref.clone(),
                labels: r.config.labels.clone(),
                annotations: r.config.annotations.clone(),
                ..Default::default()
            });
            Ok(shown.collect())
        })
    }

    fn create_container<'a>(&'a self, sandbox_id: &'a str, config: ContainerConfig, _: PodSandboxConfig) -> Answer<'a, String> {
        Box::pin(async move {
            let metadata = config.metadata.clone().unwrap_or_default();
            self.enter("CreateContainer", format!("create {}.{}", metadata.name, metadata.attempt))?;
            let created_at = self.nanos();
            let mut state = self.state.lock();
            state.next += 1;
            let id = format!("c{}", state.next);
            let status = ContainerStatus {
                id: id.clone(),
                metadata: Some(metadata),
                state: ContainerState::ContainerCreated as i32,
                created_at,
                image: config.image.clone(),
                image_ref: "sha256:1".into(),
                ..Default::default()
            };
            state.runs.push(Run { id: id.clone(), sandbox_id: sandbox_id.into(), config, status });
            Ok(id)
        })
    }

    fn start_container<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            self.enter("StartContainer", format!("start {}", self.label(id)))?;
            let now = self.nanos();
            self.run(id, |r| {
                r.status.state = ContainerState::ContainerRunning as i32;
                r.status.started_at = now;
            })
        })
    }

    fn stop_container<'a>(&'a self, id: &'a str, grace_secs: i64) -> Answer<'a, ()> {
        Box::pin(async move {
            self.enter("StopContainer", format!("stop {} within {grace_secs}", self.label(id)))?;
            if grace_secs > 0 && self.state.lock().stops_slowly {
                return std::future::pending().await;
            }
            let now = self.nanos();
            self.run(id, |r| end(r, 143, now)).or(Ok(()))
        })
    }

    fn remove_container<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            self.enter("RemoveContainer", format!("remove {}", self.label(id)))?;
            self.state.lock().runs.retain(|r| r.id != id);
            Ok(())
        })
    }

    fn container_status<'a>(&'a self, id: &'a str) -> Answer<'a, ContainerStatus> {
        Box::pin(async move { self.run(id, |r| r.status.clone()) })
    }

    fn update_resources<'a>(&'a self, id: &'a str, resources: LinuxContainerResources) -> Answer<'a, ()> {
        Box::pin(async move {
            self.enter("UpdateContainerResources", format!("update {}", self.label(id)))?;
            self.state.lock().updates.insert(id.into(), resources);
            Ok(())
        })
    }

    fn reopen_log<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn container_stats(&self) -> Answer<'_, Vec<ContainerStats>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn checkpoint<'a>(&'a self, id: &'a str, archive: &'a Path, _: Duration) -> Answer<'a, ()> {
        Box::pin(async move { self.enter("CheckpointContainer", format!("checkpoint {id} to {}", archive.display())).map(drop) })
    }

    fn exec_sync<'a>(&'a self, id: &'a str, command: Vec<String>, _: Duration) -> Answer<'a, ExecSyncResponse> {
        Box::pin(async move {
            let command = command.join(" ");
            self.enter("ExecSync", format!("exec {command} in {}", self.label(id)))?;
            Ok(ExecSyncResponse::default())
        })
    }

    fn exec(&self, _: ExecRequest) -> Answer<'_, String> {
        Box::pin(async { Ok("http://double.invalid/exec".into()) })
    }

    fn attach(&self, _: AttachRequest) -> Answer<'_, String> {
        Box::pin(async { Ok("http://double.invalid/attach".into()) })
    }

    fn port_forward<'a>(&'a self, _: &'a str, _: Vec<i32>) -> Answer<'a, String> {
        Box::pin(async { Ok("http://double.invalid/portforward".into()) })
    }

    fn list_images(&self) -> Answer<'_, Vec<Image>> {
        Box::pin(async { Ok(self.state.lock().images.clone()) })
    }

    fn image_folder(&self) -> Answer<'_, Option<PathBuf>> {
        Box::pin(async { Ok(None) })
    }

    fn sandbox_image(&self) -> Answer<'_, Option<String>> {
        Box::pin(async { Ok(Some("pause:1".to_owned())) })
    }

    fn remove_image<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            self.enter("RemoveImage", format!("remove {id}"))?;
            self.state.lock().images.retain(|image| image.id != id);
            Ok(())
        })
    }

    fn image_status<'a>(&'a self, image: &'a str) -> Answer<'a, Option<Image>> {
        Box::pin(async move {
            self.enter("ImageStatus", String::new())?;
            let spec = Some(ImageSpec { image: image.into(), ..Default::default() });
            Ok((!image.contains("absent")).then(|| Image { id: format!("sha256:{image}"), spec, ..Default::default() }))
        })
    }

    fn pull_image<'a>(&'a self, image: &'a str, _: Option<AuthConfig>, _: Option<PodSandboxConfig>) -> Answer<'a, String> {
        Box::pin(async move {
            self.enter("PullImage", format!("pull {image}"))?;
            Err(Error::Runtime { call: "PullImage", code: Code::NotFound, message: format!("{image}: not found") })
        })
    }
}
