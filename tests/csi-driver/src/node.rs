//! The node service: a volume is a folder, bound where it is published.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tonic::{Request, Response, Status};
use trireme_proto::csi::{self, node_server::Node};

use crate::{Faults, Options, faults};

type Answer<T> = Result<Response<T>, Status>;

pub(crate) struct NodeService {
    options: Arc<Options>,
    faults: Faults,
}

impl NodeService {
    pub(crate) fn new(options: Arc<Options>) -> NodeService {
        NodeService { faults: Faults::new(&options.data), options }
    }

    /// Notes a call and does as ordered. True: nothing more is to be done.
    async fn begin(&self, call: &str, about: &str) -> Result<bool, Status> {
        faults::note(&self.options.data, format!("{call} {about}").trim());
        self.faults.obey(call).await
    }

    /// The folder of a volume, made when it is first needed.
    fn folder(&self, volume: &str) -> Result<PathBuf, Status> {
        if volume.is_empty() || volume.contains('/') || volume.starts_with('.') {
            return Err(Status::invalid_argument(format!("volume {volume:?}")));
        }
        let folder = self.options.data.join("volumes").join(volume);
        std::fs::create_dir_all(&folder).map_err(internal)?;
        Ok(folder)
    }

    fn bind(&self, from: &Path, to: &Path, read_only: bool) -> Result<(), Status> {
        std::fs::create_dir_all(to).map_err(internal)?;
        if !self.options.mounts || is_mounted(to) {
            return Ok(());
        }
        let none = None::<&str>;
        mount(Some(from), to, none, MsFlags::MS_BIND, none).map_err(internal)?;
        if read_only {
            mount(none, to, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none).map_err(internal)?;
        }
        Ok(())
    }

    fn unbind(&self, path: &Path) -> Result<(), Status> {
        while is_mounted(path) {
            umount2(path, MntFlags::empty()).map_err(internal)?;
        }
        Ok(())
    }
}

fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

fn is_mounted(path: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

/// What a call was about, for the log: keys in order, values of secrets as they are, because these are none.
fn shown(map: &std::collections::HashMap<String, String>) -> String {
    let sorted: BTreeMap<_, _> = map.iter().collect();
    sorted.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn is_block(capability: Option<&csi::VolumeCapability>) -> bool {
    use csi::volume_capability::AccessType;
    matches!(capability.and_then(|capability| capability.access_type.as_ref()), Some(AccessType::Block(_)))
}

fn use_of(capability: Option<&csi::VolumeCapability>) -> String {
    let Some(capability) = capability else { return "none".to_owned() };
    let mode = capability.access_mode.map(|mode| mode.mode().as_str_name()).unwrap_or_default();
    match &capability.access_type {
        Some(csi::volume_capability::AccessType::Mount(mount)) => {
            format!("{mode} fs={} flags={} group={}", mount.fs_type, mount.mount_flags.join("+"), mount.volume_mount_group)
        }
        Some(csi::volume_capability::AccessType::Block(_)) => format!("{mode} block"),
        None => mode.to_owned(),
    }
}

#[tonic::async_trait]
impl Node for NodeService {
    async fn node_stage_volume(&self, request: Request<csi::NodeStageVolumeRequest>) -> Answer<csi::NodeStageVolumeResponse> {
        let asked = request.into_inner();
        let capability = use_of(asked.volume_capability.as_ref());
        let about = format!("{} {capability} publish={} secrets={}", asked.volume_id, shown(&asked.publish_context), shown(&asked.secrets));
        if !self.begin("NodeStageVolume", &about).await? {
            self.bind(&self.folder(&asked.volume_id)?, Path::new(&asked.staging_target_path), false)?;
        }
        Ok(Response::new(csi::NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(&self, request: Request<csi::NodeUnstageVolumeRequest>) -> Answer<csi::NodeUnstageVolumeResponse> {
        let asked = request.into_inner();
        if !self.begin("NodeUnstageVolume", &asked.volume_id).await? {
            self.unbind(Path::new(&asked.staging_target_path))?;
        }
        Ok(Response::new(csi::NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(&self, request: Request<csi::NodePublishVolumeRequest>) -> Answer<csi::NodePublishVolumeResponse> {
        let asked = request.into_inner();
        let capability = use_of(asked.volume_capability.as_ref());
        let about = format!(
            "{} {capability} readonly={} context={} secrets={}",
            asked.volume_id,
            asked.readonly,
            shown(&asked.volume_context),
            shown(&asked.secrets)
        );
        if self.begin("NodePublishVolume", &about).await? {
            return Ok(Response::new(csi::NodePublishVolumeResponse {}));
        }
        let target = Path::new(&asked.target_path);
        if is_block(asked.volume_capability.as_ref()) {
            // No device, but something that a kubelet can hand on.
            std::fs::write(target, "").map_err(internal)?;
        } else {
            let staged = PathBuf::from(&asked.staging_target_path);
            let from = if asked.staging_target_path.is_empty() { self.folder(&asked.volume_id)? } else { staged };
            self.bind(&from, target, asked.readonly)?;
        }
        Ok(Response::new(csi::NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(&self, request: Request<csi::NodeUnpublishVolumeRequest>) -> Answer<csi::NodeUnpublishVolumeResponse> {
        let asked = request.into_inner();
        if !self.begin("NodeUnpublishVolume", &asked.volume_id).await? {
            let target = Path::new(&asked.target_path);
            self.unbind(target)?;
            let _ = std::fs::remove_dir(target).or_else(|_| std::fs::remove_file(target));
        }
        Ok(Response::new(csi::NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(&self, request: Request<csi::NodeGetVolumeStatsRequest>) -> Answer<csi::NodeGetVolumeStatsResponse> {
        self.begin("NodeGetVolumeStats", &request.into_inner().volume_id).await?;
        let amount = |unit: csi::volume_usage::Unit, total: i64, used: i64| csi::VolumeUsage {
            available: total - used,
            total,
            used,
            unit: unit as i32,
        };
        Ok(Response::new(csi::NodeGetVolumeStatsResponse {
            usage: vec![amount(csi::volume_usage::Unit::Bytes, 1 << 20, 1 << 10), amount(csi::volume_usage::Unit::Inodes, 100, 7)],
            volume_condition: None,
        }))
    }

    async fn node_expand_volume(&self, request: Request<csi::NodeExpandVolumeRequest>) -> Answer<csi::NodeExpandVolumeResponse> {
        let asked = request.into_inner();
        let bytes = asked.capacity_range.map(|range| range.required_bytes).unwrap_or_default();
        self.begin("NodeExpandVolume", &format!("{} {bytes}", asked.volume_id)).await?;
        Ok(Response::new(csi::NodeExpandVolumeResponse { capacity_bytes: bytes }))
    }

    async fn node_get_capabilities(&self, _: Request<csi::NodeGetCapabilitiesRequest>) -> Answer<csi::NodeGetCapabilitiesResponse> {
        use csi::node_service_capability::{Rpc, Type};
        let capability = |ability: &csi::node_service_capability::rpc::Type| csi::NodeServiceCapability {
            r#type: Some(Type::Rpc(Rpc { r#type: *ability as i32 })),
        };
        Ok(Response::new(csi::NodeGetCapabilitiesResponse { capabilities: self.options.abilities.iter().map(capability).collect() }))
    }

    async fn node_get_info(&self, _: Request<csi::NodeGetInfoRequest>) -> Answer<csi::NodeGetInfoResponse> {
        self.begin("NodeGetInfo", "").await?;
        let topology = csi::Topology { segments: self.options.topology.iter().cloned().collect() };
        Ok(Response::new(csi::NodeGetInfoResponse {
            node_id: self.options.node_id.clone(),
            max_volumes_per_node: self.options.max_volumes,
            accessible_topology: (!self.options.topology.is_empty()).then_some(topology),
        }))
    }
}
