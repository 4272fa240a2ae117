//! A real container runtime, over CRI v1 on its unix socket.
//!
//! Owns the connection and the deadlines of the calls. The channel is lazy: while the runtime is away every call fails with
//! `Unavailable` and the next one connects again, so that no caller needs to know about restarts. Must not speak any other interface
//! of the runtime, and run no program of it.

use std::{
    collections::HashMap,
    future::Future,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::Instant};
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint, Uri},
};
use trireme_proto::cri::{self, image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient};

use super::{Answer, Runtime, keys};
use crate::{
    error::{Error, Result},
    metrics::Operations,
};

/// Pod sandboxes wait for CNI plugins.
const SLOW_CALL: Duration = Duration::from_secs(240);
const CALL: Duration = Duration::from_secs(120);
const STATUS_CALL: Duration = Duration::from_secs(10);
/// An image pull has no deadline but this: upstream relies on the runtime's own progress timeout.
const PULL: Duration = Duration::from_secs(30 * 60);
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// A cheap handle on the runtime.
#[derive(Clone)]
pub(crate) struct CriRuntime {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    operations: Operations,
}

impl CriRuntime {
    /// A handle for the socket at `path`; connects on first use. Calls are counted in `operations`.
    pub(crate) fn new(path: PathBuf, operations: Operations) -> CriRuntime {
        // The authority is never used: the connector below ignores it.
        let channel = Endpoint::from_static("http://runtime.invalid").connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }));
        CriRuntime {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES),
            operations,
        }
    }

    async fn call<T>(
        &self,
        name: &'static str,
        deadline: Duration,
        future: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T> {
        let began = Instant::now();
        let answer = answer_of(name, deadline, future).await;
        self.operations.observe(name, answer.is_ok(), began.elapsed());
        answer
    }
}

async fn answer_of<T>(name: &'static str, deadline: Duration, future: impl Future<Output = Result<Response<T>, Status>>) -> Result<T> {
    match tokio::time::timeout(deadline, future).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => {
            let mut message = status.message().to_string();
            let mut code = status.code();
            // A lazy channel reports a refused or missing socket as a transport error of several codes.
            if std::error::Error::source(&status).is_some() && matches!(code, Code::Unknown | Code::Unavailable | Code::Cancelled) {
                code = Code::Unavailable;
                message = format!("container runtime is down: {message}");
            }
            Err(Error::Runtime { call: name, code, message })
        }
        Err(_) => Err(Error::Runtime { call: name, code: Code::DeadlineExceeded, message: "context deadline exceeded".into() }),
    }
}

impl Runtime for CriRuntime {
    fn version(&self) -> Answer<'_, cri::VersionResponse> {
        Box::pin(async {
            let request = cri::VersionRequest { version: "v1".into() };
            self.call("Version", CALL, self.runtime.clone().version(request)).await
        })
    }

    fn status(&self) -> Answer<'_, cri::StatusResponse> {
        Box::pin(async {
            let request = cri::StatusRequest { verbose: false };
            self.call("Status", STATUS_CALL, self.runtime.clone().status(request)).await
        })
    }

    fn cgroup_driver(&self) -> Answer<'_, Option<cri::CgroupDriver>> {
        Box::pin(async {
            let request = cri::RuntimeConfigRequest {};
            match self.call("RuntimeConfig", STATUS_CALL, self.runtime.clone().runtime_config(request)).await {
                Ok(response) => Ok(response.linux.and_then(|linux| cri::CgroupDriver::try_from(linux.cgroup_driver).ok())),
                Err(Error::Runtime { code: Code::Unimplemented, .. }) => {
                    let request = cri::StatusRequest { verbose: true };
                    let status = self.call("Status", STATUS_CALL, self.runtime.clone().status(request)).await?;
                    Ok(status.info.get("config").and_then(|config| containerd_driver(config)))
                }
                Err(e) => Err(e),
            }
        })
    }

    fn list_sandboxes<'a>(&'a self, pod_uid: Option<&'a str>) -> Answer<'a, Vec<cri::PodSandbox>> {
        Box::pin(async move {
            let filter = pod_uid.map(|uid| cri::PodSandboxFilter { label_selector: by_uid(uid), ..Default::default() });
            let request = cri::ListPodSandboxRequest { filter };
            Ok(self.call("ListPodSandbox", CALL, self.runtime.clone().list_pod_sandbox(request)).await?.items)
        })
    }

    fn run_sandbox(&self, config: cri::PodSandboxConfig, handler: String) -> Answer<'_, String> {
        Box::pin(async move {
            let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler: handler };
            Ok(self.call("RunPodSandbox", SLOW_CALL, self.runtime.clone().run_pod_sandbox(request)).await?.pod_sandbox_id)
        })
    }

    fn stop_sandbox<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.into() };
            gone_is_fine(self.call("StopPodSandbox", SLOW_CALL, self.runtime.clone().stop_pod_sandbox(request)).await.map(drop))
        })
    }

    fn remove_sandbox<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.into() };
            gone_is_fine(self.call("RemovePodSandbox", SLOW_CALL, self.runtime.clone().remove_pod_sandbox(request)).await.map(drop))
        })
    }

    fn sandbox_status<'a>(&'a self, id: &'a str) -> Answer<'a, cri::PodSandboxStatus> {
        Box::pin(async move {
            let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: false };
            let response = self.call("PodSandboxStatus", CALL, self.runtime.clone().pod_sandbox_status(request)).await?;
            Ok(response.status.unwrap_or_default())
        })
    }

    fn list_containers<'a>(&'a self, pod_uid: Option<&'a str>) -> Answer<'a, Vec<cri::Container>> {
        Box::pin(async move {
            let filter = pod_uid.map(|uid| cri::ContainerFilter { label_selector: by_uid(uid), ..Default::default() });
            let request = cri::ListContainersRequest { filter };
            Ok(self.call("ListContainers", CALL, self.runtime.clone().list_containers(request)).await?.containers)
        })
    }

    fn create_container<'a>(
        &'a self,
        sandbox_id: &'a str,
        config: cri::ContainerConfig,
        sandbox: cri::PodSandboxConfig,
    ) -> Answer<'a, String> {
        Box::pin(async move {
            let request =
                cri::CreateContainerRequest { pod_sandbox_id: sandbox_id.into(), config: Some(config), sandbox_config: Some(sandbox) };
            Ok(self.call("CreateContainer", CALL, self.runtime.clone().create_container(request)).await?.container_id)
        })
    }

    fn start_container<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let request = cri::StartContainerRequest { container_id: id.into() };
            self.call("StartContainer", CALL, self.runtime.clone().start_container(request)).await.map(drop)
        })
    }

    fn stop_container<'a>(&'a self, id: &'a str, grace_secs: i64) -> Answer<'a, ()> {
        Box::pin(async move {
            let request = cri::StopContainerRequest { container_id: id.into(), timeout: grace_secs };
            let grace = Duration::from_secs(u64::try_from(grace_secs).unwrap_or_default());
            let deadline = CALL.saturating_add(grace);
            gone_is_fine(self.call("StopContainer", deadline, self.runtime.clone().stop_container(request)).await.map(drop))
        })
    }

    fn remove_container<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let request = cri::RemoveContainerRequest { container_id: id.into() };
            gone_is_fine(self.call("RemoveContainer", CALL, self.runtime.clone().remove_container(request)).await.map(drop))
        })
    }

    fn container_status<'a>(&'a self, id: &'a str) -> Answer<'a, cri::ContainerStatus> {
        Box::pin(async move {
            let request = cri::ContainerStatusRequest { container_id: id.into(), verbose: false };
            let response = self.call("ContainerStatus", CALL, self.runtime.clone().container_status(request)).await?;
            Ok(response.status.unwrap_or_default())
        })
    }

    fn update_resources<'a>(&'a self, id: &'a str, resources: cri::LinuxContainerResources) -> Answer<'a, ()> {
        Box::pin(async move {
            let request =
                cri::UpdateContainerResourcesRequest { container_id: id.into(), linux: Some(resources), annotations: HashMap::new() };
            self.call("UpdateContainerResources", CALL, self.runtime.clone().update_container_resources(request)).await.map(drop)
        })
    }

    fn reopen_log<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let request = cri::ReopenContainerLogRequest { container_id: id.into() };
            self.call("ReopenContainerLog", CALL, self.runtime.clone().reopen_container_log(request)).await.map(drop)
        })
    }

    fn container_stats(&self) -> Answer<'_, Vec<cri::ContainerStats>> {
        Box::pin(async {
            let request = cri::ListContainerStatsRequest::default();
            Ok(self.call("ListContainerStats", CALL, self.runtime.clone().list_container_stats(request)).await?.stats)
        })
    }

    fn checkpoint<'a>(&'a self, id: &'a str, archive: &'a Path, timeout: Duration) -> Answer<'a, ()> {
        Box::pin(async move {
            let request = cri::CheckpointContainerRequest {
                container_id: id.into(),
                location: archive.to_string_lossy().into_owned(),
                timeout: i64::try_from(timeout.as_secs()).unwrap_or_default(),
            };
            let deadline = if timeout.is_zero() { SLOW_CALL } else { timeout + CALL };
            self.call("CheckpointContainer", deadline, self.runtime.clone().checkpoint_container(request)).await.map(drop)
        })
    }

    fn exec_sync<'a>(&'a self, id: &'a str, cmd: Vec<String>, timeout: Duration) -> Answer<'a, cri::ExecSyncResponse> {
        Box::pin(async move {
            let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
            let request = cri::ExecSyncRequest { container_id: id.into(), cmd, timeout: seconds };
            let deadline = if timeout.is_zero() { PULL } else { timeout.saturating_add(Duration::from_secs(10)) };
            self.call("ExecSync", deadline, self.runtime.clone().exec_sync(request)).await
        })
    }

    fn exec(&self, request: cri::ExecRequest) -> Answer<'_, String> {
        Box::pin(async move { Ok(self.call("Exec", CALL, self.runtime.clone().exec(request)).await?.url) })
    }

    fn attach(&self, request: cri::AttachRequest) -> Answer<'_, String> {
        Box::pin(async move { Ok(self.call("Attach", CALL, self.runtime.clone().attach(request)).await?.url) })
    }

    fn port_forward<'a>(&'a self, sandbox_id: &'a str, ports: Vec<i32>) -> Answer<'a, String> {
        Box::pin(async move {
            let request = cri::PortForwardRequest { pod_sandbox_id: sandbox_id.into(), port: ports };
            Ok(self.call("PortForward", CALL, self.runtime.clone().port_forward(request)).await?.url)
        })
    }

    fn list_images(&self) -> Answer<'_, Vec<cri::Image>> {
        Box::pin(async {
            let request = cri::ListImagesRequest::default();
            Ok(self.call("ListImages", CALL, self.images.clone().list_images(request)).await?.images)
        })
    }

    fn image_folder(&self) -> Answer<'_, Option<PathBuf>> {
        Box::pin(async {
            let answer = self.call("ImageFsInfo", CALL, self.images.clone().image_fs_info(cri::ImageFsInfoRequest {})).await?;
            let named = answer.image_filesystems.into_iter().find_map(|fs| fs.fs_id);
            Ok(named.map(|id| PathBuf::from(id.mountpoint)).filter(|path| path.is_absolute()))
        })
    }

    fn sandbox_image(&self) -> Answer<'_, Option<String>> {
        Box::pin(async {
            let request = cri::StatusRequest { verbose: true };
            let status = self.call("Status", STATUS_CALL, self.runtime.clone().status(request)).await?;
            Ok(status.info.get("config").and_then(|config| containerd_sandbox_image(config)))
        })
    }

    fn remove_image<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let request = cri::RemoveImageRequest { image: Some(image_spec(id)) };
            gone_is_fine(self.call("RemoveImage", SLOW_CALL, self.images.clone().remove_image(request)).await.map(drop))
        })
    }

    fn image_status<'a>(&'a self, image: &'a str) -> Answer<'a, Option<cri::Image>> {
        Box::pin(async move {
            let request = cri::ImageStatusRequest { image: Some(image_spec(image)), verbose: false };
            Ok(self.call("ImageStatus", CALL, self.images.clone().image_status(request)).await?.image)
        })
    }

    fn pull_image<'a>(
        &'a self,
        image: &'a str,
        auth: Option<cri::AuthConfig>,
        sandbox: Option<cri::PodSandboxConfig>,
    ) -> Answer<'a, String> {
        Box::pin(async move {
            let request = cri::PullImageRequest { image: Some(image_spec(image)), auth, sandbox_config: sandbox };
            Ok(self.call("PullImage", PULL, self.images.clone().pull_image(request)).await?.image_ref)
        })
    }
}

/// The driver in the configuration that containerd before 2.0 shows with its status: that of the default runtime handler.
fn containerd_driver(config: &str) -> Option<cri::CgroupDriver> {
    let config: serde_json::Value = serde_json::from_str(config).ok()?;
    let containerd = config.get("containerd")?;
    let default = containerd.get("defaultRuntimeName").and_then(|n| n.as_str()).unwrap_or("runc");
    let runtime = containerd.get("runtimes")?.get(default)?;
    let is_systemd = runtime.get("options").and_then(|o| o.get("SystemdCgroup")).and_then(serde_json::Value::as_bool).unwrap_or_default()
        || config.get("systemdCgroup").and_then(serde_json::Value::as_bool).unwrap_or_default();
    Some(if is_systemd { cri::CgroupDriver::Systemd } else { cri::CgroupDriver::Cgroupfs })
}

/// The image of sandboxes in that configuration. Later versions say over CRI that this image is pinned.
fn containerd_sandbox_image(config: &str) -> Option<String> {
    let config: serde_json::Value = serde_json::from_str(config).ok()?;
    config.get("sandboxImage")?.as_str().filter(|image| !image.is_empty()).map(str::to_owned)
}

/// An image by name, as CRI wants it.
fn image_spec(image: &str) -> cri::ImageSpec {
    cri::ImageSpec { image: image.into(), user_specified_image: image.into(), ..Default::default() }
}

fn by_uid(uid: &str) -> HashMap<String, String> {
    HashMap::from([(keys::POD_UID.to_string(), uid.to_string())])
}

fn gone_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(e) if e.is_runtime_not_found() => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d13_an_old_containerd_tells_its_driver_in_its_configuration() {
        let config = |options: &str| {
            format!(r#"{{"containerd": {{"defaultRuntimeName": "runc", "runtimes": {{"runc": {{"options": {options}}}}}}}}}"#)
        };
        assert_eq!(containerd_driver(&config(r#"{"SystemdCgroup": true}"#)), Some(cri::CgroupDriver::Systemd));
        assert_eq!(containerd_driver(&config(r#"{"SystemdCgroup": false}"#)), Some(cri::CgroupDriver::Cgroupfs));
        assert_eq!(containerd_driver(&config("null")), Some(cri::CgroupDriver::Cgroupfs));
        assert_eq!(containerd_driver("{}"), None);
        assert_eq!(containerd_driver("nonsense"), None);
        assert_eq!(containerd_sandbox_image(r#"{"sandboxImage": "a/pause:3"}"#).as_deref(), Some("a/pause:3"));
        assert_eq!(containerd_sandbox_image("{}"), None);
    }
}
