//! The container runtime as the kubelet needs it: CRI's calls, and nothing of one particular runtime.
//!
//! [`cri::CriRuntime`] speaks to a real one; the worker's tests use a deterministic double. Callers decide what to do about a failure.

pub(crate) mod cri;
#[cfg(test)]
pub(crate) mod double;
pub(crate) mod keys;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use futures::future::BoxFuture;
use trireme_proto::cri::{
    AttachRequest, AuthConfig, CgroupDriver, Container, ContainerConfig, ContainerStats, ContainerStatus, ExecRequest, ExecSyncResponse,
    Image, LinuxContainerResources, PodSandbox, PodSandboxConfig, PodSandboxStatus, StatusResponse, VersionResponse,
};

use crate::error::Result;

/// What a call returns.
pub(crate) type Answer<'a, T> = BoxFuture<'a, Result<T>>;

/// CRI's calls. A call to a sandbox or container that is gone succeeds where it asks for its end, and is
/// [`crate::Error::is_runtime_not_found`] elsewhere.
pub(crate) trait Runtime: Send + Sync {
    /// Name and version of the runtime.
    fn version(&self) -> Answer<'_, VersionResponse>;
    /// The runtime's conditions, handlers and features.
    fn status(&self) -> Answer<'_, StatusResponse>;
    /// The cgroup driver; None where the runtime does not offer this call.
    fn cgroup_driver(&self) -> Answer<'_, Option<CgroupDriver>>;

    /// Sandboxes, running or not: all, or those of one pod.
    fn list_sandboxes<'a>(&'a self, pod_uid: Option<&'a str>) -> Answer<'a, Vec<PodSandbox>>;
    /// Creates and starts a sandbox with a runtime handler (empty: the default one); returns its id.
    fn run_sandbox(&self, config: PodSandboxConfig, handler: String) -> Answer<'_, String>;
    /// Kills what runs in a sandbox and takes its network down. Idempotent.
    fn stop_sandbox<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// Forgets a sandbox and its containers. Idempotent.
    fn remove_sandbox<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// One sandbox's status, with its addresses.
    fn sandbox_status<'a>(&'a self, id: &'a str) -> Answer<'a, PodSandboxStatus>;

    /// Containers, running or not: all, or those of one pod.
    fn list_containers<'a>(&'a self, pod_uid: Option<&'a str>) -> Answer<'a, Vec<Container>>;
    /// Creates a container in a sandbox; returns its id.
    fn create_container<'a>(&'a self, sandbox_id: &'a str, config: ContainerConfig, sandbox: PodSandboxConfig) -> Answer<'a, String>;
    /// Starts a created container.
    fn start_container<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// Stops a container: SIGTERM, and SIGKILL after `grace_secs`. Returns when it is dead. Idempotent.
    fn stop_container<'a>(&'a self, id: &'a str, grace_secs: i64) -> Answer<'a, ()>;
    /// Removes a container that does not run. Idempotent.
    fn remove_container<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// One container's full status.
    fn container_status<'a>(&'a self, id: &'a str) -> Answer<'a, ContainerStatus>;
    /// Changes the resources of a running container.
    fn update_resources<'a>(&'a self, id: &'a str, resources: LinuxContainerResources) -> Answer<'a, ()>;
    /// Makes the runtime open the log file anew, after the old one was renamed.
    fn reopen_log<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// CPU and memory use of all running containers.
    fn container_stats(&self) -> Answer<'_, Vec<ContainerStats>>;

    /// Writes a container's state to an archive; a timeout of zero is the runtime's own.
    fn checkpoint<'a>(&'a self, id: &'a str, archive: &'a Path, timeout: Duration) -> Answer<'a, ()>;

    /// Runs a command in a container and collects its output. A timeout is an error of code DeadlineExceeded; zero means none.
    fn exec_sync<'a>(&'a self, id: &'a str, command: Vec<String>, timeout: Duration) -> Answer<'a, ExecSyncResponse>;
    /// The URL at which the runtime serves an exec stream.
    fn exec(&self, request: ExecRequest) -> Answer<'_, String>;
    /// The URL at which the runtime serves an attach stream.
    fn attach(&self, request: AttachRequest) -> Answer<'_, String>;
    /// The URL at which the runtime serves a port-forward stream.
    fn port_forward<'a>(&'a self, sandbox_id: &'a str, ports: Vec<i32>) -> Answer<'a, String>;

    /// All images.
    fn list_images(&self) -> Answer<'_, Vec<Image>>;
    /// The folder in which images lie, if the runtime names one.
    fn image_folder(&self) -> Answer<'_, Option<PathBuf>>;
    /// The image of every sandbox, if the runtime says which.
    fn sandbox_image(&self) -> Answer<'_, Option<String>>;
    /// Removes an image. Idempotent.
    fn remove_image<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// One image, or None when the runtime does not have it.
    fn image_status<'a>(&'a self, image: &'a str) -> Answer<'a, Option<Image>>;
    /// Pulls an image; returns the runtime's reference for it.
    fn pull_image<'a>(&'a self, image: &'a str, auth: Option<AuthConfig>, sandbox: Option<PodSandboxConfig>) -> Answer<'a, String>;
}
