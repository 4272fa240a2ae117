//! What a host's containerd says, asked over CRI on its socket (a path, so it is reached from outside the host).

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use trireme_proto::cri::{self, runtime_service_client::RuntimeServiceClient};

use crate::Host;

const CALL: Duration = Duration::from_secs(5);

/// A connection to a host's containerd; dials again by itself after a restart.
#[derive(Debug, Clone)]
pub struct Containers {
    client: RuntimeServiceClient<Channel>,
}

/// Everything the runtime knows at one moment.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Pod sandboxes, running or not.
    pub sandboxes: Vec<cri::PodSandbox>,
    /// Containers, running or not.
    pub containers: Vec<cri::Container>,
}

impl Containers {
    /// The containers of a host.
    pub fn of(host: &Host) -> Self {
        let socket: PathBuf = host.directory().join("containerd/containerd.sock");
        let channel =
            Endpoint::from_static("http://runtime.invalid").timeout(CALL).connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let socket = socket.clone();
                async move { UnixStream::connect(socket).await.map(TokioIo::new) }
            }));
        Self { client: RuntimeServiceClient::new(channel) }
    }

    /// What there is.
    pub async fn list(&self) -> anyhow::Result<Listing> {
        let mut client = self.client.clone();
        let sandboxes = client.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await.context("ListPodSandbox")?.into_inner().items;
        let containers =
            client.list_containers(cri::ListContainersRequest::default()).await.context("ListContainers")?.into_inner().containers;
        Ok(Listing { sandboxes, containers })
    }
}
