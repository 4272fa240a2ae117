//! The pod resources API v1, on `pod-resources/kubelet.sock`: which devices the containers of this node's pods have.
//!
//! Processors and memory are not listed: nothing is pinned (policy `none`). Of the API's older version v1alpha1 nothing is served.
//! Answers to
//! <https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/#monitoring-device-plugin-resources>.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::{net::UnixListener, time::Instant};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, transport::Server};
use trireme_proto::podresources::{
    self as wire,
    pod_resources_lister_server::{PodResourcesLister, PodResourcesListerServer},
};

use crate::{
    clock::blocking,
    device::{Devices, Share},
    error::{Error, Result},
    files,
    pod::spec::{self, Kind},
};

/// Upstream's bounds for callers: so many calls a second, and so many at once after a pause.
const CALLS_PER_SECOND: f64 = 100.0;
const CALLS_AT_ONCE: f64 = 10.0;
/// A request names a pod, and no more.
const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// The pods of this node.
pub(crate) type ListPods = Box<dyn Fn() -> Vec<Arc<Pod>> + Send + Sync>;

/// Answers readers.
pub(crate) struct PodResources {
    devices: Arc<Devices>,
    pods: ListPods,
    calls: Mutex<Bucket>,
}

/// What is left of the calls that may be made now.
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn full(at: Instant) -> Bucket {
        Bucket { left: CALLS_AT_ONCE, at }
    }

    fn take(&mut self, now: Instant) -> bool {
        let gained = now.duration_since(self.at).as_secs_f64() * CALLS_PER_SECOND;
        self.at = now;
        self.left = (self.left + gained).min(CALLS_AT_ONCE);
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }
}

/// Serves below the kubelet's root, until dropped.
pub(crate) async fn serve(root: PathBuf, devices: Arc<Devices>, pods: ListPods) {
    if let Err(error) = listen(&root, devices, pods).await {
        tracing::error!(%error, "the resources of pods cannot be read on this node");
    }
}

async fn listen(root: &Path, devices: Arc<Devices>, pods: ListPods) -> Result<()> {
    let folder = root.join("pod-resources");
    let socket = folder.join("kubelet.sock");
    let listener = blocking(|| {
        files::make_directories(&folder, 0o750)?;
        // The one of an earlier agent.
        let _ = std::fs::remove_file(&socket);
        let wrap = Error::io(format!("listen on {} (a socket's path has at most 107 bytes)", socket.display()));
        UnixListener::bind(&socket).map_err(wrap)
    })?;
    let service = PodResources { devices, pods, calls: Mutex::new(Bucket::full(Instant::now())) };
    let service = PodResourcesListerServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let served = Server::builder().add_service(service).serve_with_incoming(UnixListenerStream::new(listener)).await;
    served.map_err(|error| Error::Config(format!("serve {}: {error}", socket.display())))
}

/// As upstream: one entry for each device on each of its NUMA nodes.
fn shown(shares: Vec<Share>) -> Vec<wire::ContainerDevices> {
    let entry = |share: &Share, node: Option<i64>| wire::ContainerDevices {
        resource_name: share.resource.clone(),
        device_ids: vec![share.id.clone()],
        topology: node.map(|id| wire::TopologyInfo { nodes: vec![wire::NumaNode { id }] }),
    };
    let entries = |share: &Share| -> Vec<wire::ContainerDevices> {
        match share.numa_nodes.is_empty() {
            true => vec![entry(share, None)],
            false => share.numa_nodes.iter().map(|id| entry(share, Some(*id))).collect(),
        }
    };
    shares.iter().flat_map(entries).collect()
}

impl PodResources {
    fn admit(&self) -> std::result::Result<(), Status> {
        match self.calls.lock().take(Instant::now()) {
            true => Ok(()),
            false => Err(Status::resource_exhausted("rejected by rate limit")),
        }
    }

    /// Init containers are left out: those that run to their end have no devices of their own.
    fn of(&self, pod: &Pod) -> wire::PodResources {
        let lasting = spec::all_containers(pod).filter(|(kind, _)| *kind != Kind::Init);
        let containers = lasting.map(|(_, container)| wire::ContainerResources {
            name: container.name.clone(),
            devices: shown(self.devices.of_container(spec::uid(pod), &container.name)),
            ..Default::default()
        });
        wire::PodResources { name: spec::name(pod).into(), namespace: spec::namespace(pod).into(), containers: containers.collect() }
    }
}

#[tonic::async_trait]
impl PodResourcesLister for PodResources {
    async fn list(
        &self,
        _: Request<wire::ListPodResourcesRequest>,
    ) -> std::result::Result<Response<wire::ListPodResourcesResponse>, Status> {
        self.admit()?;
        let pods = (self.pods)();
        let active = pods.iter().filter(|pod| !spec::is_finished(pod));
        Ok(Response::new(wire::ListPodResourcesResponse { pod_resources: active.map(|pod| self.of(pod)).collect() }))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<wire::AllocatableResourcesRequest>,
    ) -> std::result::Result<Response<wire::AllocatableResourcesResponse>, Status> {
        self.admit()?;
        Ok(Response::new(wire::AllocatableResourcesResponse { devices: shown(self.devices.healthy()), ..Default::default() }))
    }

    async fn get(
        &self,
        request: Request<wire::GetPodResourcesRequest>,
    ) -> std::result::Result<Response<wire::GetPodResourcesResponse>, Status> {
        self.admit()?;
        let wire::GetPodResourcesRequest { pod_name, pod_namespace } = request.into_inner();
        let pods = (self.pods)();
        let found = pods.iter().find(|pod| spec::name(pod) == pod_name && spec::namespace(pod) == pod_namespace);
        let pod = found.ok_or_else(|| Status::not_found(format!("pod {pod_name} in namespace {pod_namespace} not found")))?;
        Ok(Response::new(wire::GetPodResourcesResponse { pod_resources: Some(self.of(pod)) }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn readers_are_bounded_as_upstreams() {
        let start = Instant::now();
        let mut bucket = Bucket::full(start);
        let granted = |bucket: &mut Bucket, at: Instant| (0..50).filter(|_| bucket.take(at)).count();
        assert_eq!(granted(&mut bucket, start), 10);
        assert_eq!(granted(&mut bucket, start + Duration::from_millis(35)), 3);
        assert_eq!(granted(&mut bucket, start + Duration::from_secs(60)), 10);
    }

    #[test]
    fn a_device_is_listed_once_for_each_of_its_nodes() {
        let share = |id: &str, nodes: &[i64]| Share { resource: "r".into(), id: id.into(), numa_nodes: nodes.iter().copied().collect() };
        let listed = shown(vec![share("a", &[]), share("b", &[0, 1])]);
        let nodes = |entry: &wire::ContainerDevices| entry.topology.as_ref().map(|t| t.nodes.iter().map(|n| n.id).collect::<Vec<_>>());
        let summary: Vec<_> = listed.iter().map(|entry| (entry.device_ids[0].as_str(), nodes(entry))).collect();
        assert_eq!(summary, [("a", None), ("b", Some(vec![0])), ("b", Some(vec![1]))]);
    }
}
