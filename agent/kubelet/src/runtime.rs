//! The container runtime, spoken to over CRI v1 on its unix socket, and nothing but CRI.
//!
//! Owns the connection and the deadlines of the calls. The channel is lazy: while the runtime is away every call fails
//! with `Unavailable` and the next one dials again, so nobody here needs to know about restarts. What to do about
//! a failure is the caller's business.

use std::{collections::HashMap, future::Future, path::PathBuf, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::Instant};
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint, Uri},
};
use trireme_proto::cri::{self, image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient};

use crate::{
    error::{Error, Result},
    metrics::Operations,
    pod::observed::keys,
};

/// Pod sandboxes and image pulls wait for CNI plugins and registries; everything else answers in less.
const SLOW_CALL: Duration = Duration::from_secs(240);
const CALL: Duration = Duration::from_secs(120);
/// An image pull has no deadline but this: upstream relies on the runtime's own progress timeout.
const PULL: Duration = Duration::from_secs(30 * 60);
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// A cheap handle on the runtime.
#[derive(Clone)]
pub struct Runtime {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    operations: Operations,
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

impl Runtime {
    /// A handle for the socket at `path`; dials on first use.
    pub fn new(path: PathBuf) -> Runtime {
        // The authority is never used: the connector below ignores it.
        let channel = Endpoint::from_static("http://runtime.invalid").connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }));
        Runtime {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES),
            operations: Operations::new(),
        }
    }

    /// What is counted of all calls.
    pub(crate) fn operations(&self) -> &Operations {
        &self.operations
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

    /// Name and version of the runtime.
    pub async fn version(&self) -> Result<cri::VersionResponse> {
        self.call("Version", CALL, self.runtime.clone().version(cri::VersionRequest { version: "v1".into() })).await
    }

    /// The runtime's own conditions (RuntimeReady, NetworkReady).
    pub async fn status(&self) -> Result<cri::RuntimeStatus> {
        let response =
            self.call("Status", Duration::from_secs(10), self.runtime.clone().status(cri::StatusRequest { verbose: false })).await?;
        Ok(response.status.unwrap_or_default())
    }

    /// Sandboxes, running or not: all, or those of one pod.
    pub async fn list_sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<cri::PodSandbox>> {
        let filter = pod_uid.map(|uid| cri::PodSandboxFilter { label_selector: by_uid(uid), ..Default::default() });
        Ok(self.call("ListPodSandbox", CALL, self.runtime.clone().list_pod_sandbox(cri::ListPodSandboxRequest { filter })).await?.items)
    }

    /// Containers, running or not: all, or those of one pod.
    pub async fn list_containers(&self, pod_uid: Option<&str>) -> Result<Vec<cri::Container>> {
        let filter = pod_uid.map(|uid| cri::ContainerFilter { label_selector: by_uid(uid), ..Default::default() });
        Ok(self.call("ListContainers", CALL, self.runtime.clone().list_containers(cri::ListContainersRequest { filter })).await?.containers)
    }

    /// Creates and starts a sandbox; returns its id.
    pub async fn run_sandbox(&self, config: cri::PodSandboxConfig) -> Result<String> {
        let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        Ok(self.call("RunPodSandbox", SLOW_CALL, self.runtime.clone().run_pod_sandbox(request)).await?.pod_sandbox_id)
    }

    /// Kills what runs in a sandbox and takes its network down. Idempotent.
    pub async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.into() };
        gone_is_fine(self.call("StopPodSandbox", SLOW_CALL, self.runtime.clone().stop_pod_sandbox(request)).await.map(drop))
    }

    /// Forgets a sandbox and its containers. Idempotent.
    pub async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.into() };
        gone_is_fine(self.call("RemovePodSandbox", SLOW_CALL, self.runtime.clone().remove_pod_sandbox(request)).await.map(drop))
    }

    /// One sandbox's status, with its addresses.
    pub async fn sandbox_status(&self, id: &str) -> Result<cri::PodSandboxStatus> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: false };
        let response = self.call("PodSandboxStatus", CALL, self.runtime.clone().pod_sandbox_status(request)).await?;
        Ok(response.status.unwrap_or_default())
    }

    /// Creates a container in a sandbox; returns its id.
    pub async fn create_container(&self, sandbox_id: &str, config: cri::ContainerConfig, sandbox: cri::PodSandboxConfig) -> Result<String> {
        let request =
            cri::CreateContainerRequest { pod_sandbox_id: sandbox_id.into(), config: Some(config), sandbox_config: Some(sandbox) };
        Ok(self.call("CreateContainer", CALL, self.runtime.clone().create_container(request)).await?.container_id)
    }

    /// Starts a created container.
    pub async fn start_container(&self, id: &str) -> Result<()> {
        self.call("StartContainer", CALL, self.runtime.clone().start_container(cri::StartContainerRequest { container_id: id.into() }))
            .await
            .map(drop)
    }

    /// Stops a container: SIGTERM, and SIGKILL after `grace_secs`. Returns when it is dead. Idempotent.
    pub async fn stop_container(&self, id: &str, grace_secs: i64) -> Result<()> {
        let request = cri::StopContainerRequest { container_id: id.into(), timeout: grace_secs };
        let deadline = CALL + Duration::from_secs(grace_secs.max(0) as u64);
        gone_is_fine(self.call("StopContainer", deadline, self.runtime.clone().stop_container(request)).await.map(drop))
    }

    /// Removes a container that does not run. Idempotent.
    pub async fn remove_container(&self, id: &str) -> Result<()> {
        let request = cri::RemoveContainerRequest { container_id: id.into() };
        gone_is_fine(self.call("RemoveContainer", CALL, self.runtime.clone().remove_container(request)).await.map(drop))
    }

    /// One container's full status.
    pub async fn container_status(&self, id: &str) -> Result<cri::ContainerStatus> {
        let request = cri::ContainerStatusRequest { container_id: id.into(), verbose: false };
        let response = self.call("ContainerStatus", CALL, self.runtime.clone().container_status(request)).await?;
        Ok(response.status.unwrap_or_default())
    }

    /// Makes the runtime open the log file anew, after we renamed the old one.
    pub async fn reopen_log(&self, id: &str) -> Result<()> {
        let request = cri::ReopenContainerLogRequest { container_id: id.into() };
        self.call("ReopenContainerLog", CALL, self.runtime.clone().reopen_container_log(request)).await.map(drop)
    }

    /// Runs a command in a container and collects its output. A timeout is an error of code DeadlineExceeded.
    pub async fn exec_sync(&self, id: &str, cmd: Vec<String>, timeout: Duration) -> Result<cri::ExecSyncResponse> {
        let request = cri::ExecSyncRequest { container_id: id.into(), cmd, timeout: timeout.as_secs() as i64 };
        let deadline = if timeout.is_zero() { PULL } else { timeout + Duration::from_secs(10) };
        self.call("ExecSync", deadline, self.runtime.clone().exec_sync(request)).await
    }

    /// The URL at which the runtime serves an exec stream.
    pub async fn exec(&self, request: cri::ExecRequest) -> Result<String> {
        Ok(self.call("Exec", CALL, self.runtime.clone().exec(request)).await?.url)
    }

    /// The URL at which the runtime serves an attach stream.
    pub async fn attach(&self, request: cri::AttachRequest) -> Result<String> {
        Ok(self.call("Attach", CALL, self.runtime.clone().attach(request)).await?.url)
    }

    /// The URL at which the runtime serves a port-forward stream.
    pub async fn port_forward(&self, sandbox_id: &str, ports: Vec<i32>) -> Result<String> {
        let request = cri::PortForwardRequest { pod_sandbox_id: sandbox_id.into(), port: ports };
        Ok(self.call("PortForward", CALL, self.runtime.clone().port_forward(request)).await?.url)
    }

    /// CPU and memory use of all running containers.
    pub async fn container_stats(&self) -> Result<Vec<cri::ContainerStats>> {
        let request = cri::ListContainerStatsRequest::default();
        Ok(self.call("ListContainerStats", CALL, self.runtime.clone().list_container_stats(request)).await?.stats)
    }

    /// All images.
    pub async fn list_images(&self) -> Result<Vec<cri::Image>> {
        Ok(self.call("ListImages", CALL, self.images.clone().list_images(cri::ListImagesRequest::default())).await?.images)
    }

    /// One image, or None when the runtime does not have it.
    pub async fn image_status(&self, image: &str) -> Result<Option<cri::Image>> {
        let request = cri::ImageStatusRequest { image: Some(image_spec(image)), verbose: false };
        Ok(self.call("ImageStatus", CALL, self.images.clone().image_status(request)).await?.image)
    }

    /// Pulls an image; returns the runtime's reference for it.
    pub async fn pull_image(&self, image: &str, auth: Option<cri::AuthConfig>, sandbox: Option<cri::PodSandboxConfig>) -> Result<String> {
        let request = cri::PullImageRequest { image: Some(image_spec(image)), auth, sandbox_config: sandbox };
        Ok(self.call("PullImage", PULL, self.images.clone().pull_image(request)).await?.image_ref)
    }
}

/// An image by name, as CRI wants it.
pub(crate) fn image_spec(image: &str) -> cri::ImageSpec {
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
