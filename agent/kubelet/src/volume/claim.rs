//! persistentVolumeClaim, and ephemeral, whose claim is made for the pod: the volume that the claim is bound to, of the types that this node
//! supports. Answers to <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#claims-as-volumes>.
//!
//! The volume's files stay where they are and are bound into the containers from there; below the pod's directory is only an empty
//! directory, which records that the pod got the volume.

use std::path::{Path, PathBuf};

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, LocalVolumeSource, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Volume,
};
use trireme_client::{Object, storage};

use super::{
    hostpath, local, ownership,
    plugin::{Context, Plugin, Ready},
};
use crate::{
    clock::blocking,
    csi::{Claimed, Source, Wanted},
    error::{Error, Result},
    files,
    pod::spec,
};

/// What a volume's specification says beside its source.
const NOT_SOURCES: &[&str] = &[
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

pub(crate) struct Claim;

impl Plugin for Claim {
    fn directory(&self) -> &'static str {
        "kubernetes.io~persistent-volume-claim"
    }

    fn handles(&self, volume: &Volume) -> bool {
        volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some()
    }

    fn set_up<'a>(&'a self, volume: &'a Volume, path: PathBuf, context: &'a Context<'_>) -> BoxFuture<'a, Result<Ready>> {
        Box::pin(async move {
            let source = volume.persistent_volume_claim.as_ref();
            let name = source.map_or_else(|| storage::ephemeral_name(context.pod, &volume.name), |source| source.claim_name.clone());
            let read_only = source.is_some_and(|source| source.read_only == Some(true));
            let namespace = spec::namespace(context.pod);
            let wrong = |why: String| Error::Config(format!("error processing PVC {namespace}/{name}: {why}"));
            let claim = context.objects.claim(namespace, &name).await?;
            let claim = claim.ok_or_else(|| wrong(format!("persistentvolumeclaim {name:?} not found")))?;
            if source.is_none() {
                storage::made_for(&claim, context.pod).map_err(wrong)?;
            }
            // A pod that has the volume keeps it, also when the agent or a container starts again.
            if claim.metadata.deletion_timestamp.is_some() && !path.is_dir() {
                return Err(wrong("PVC is being deleted".into()));
            }
            if storage::claim_phase(&claim) != "Bound" || storage::volume_of(&claim).is_empty() {
                return Err(wrong("PVC is not bound".into()));
            }
            let bound = context.objects.volume(storage::volume_of(&claim)).await?;
            let bound = bound.ok_or_else(|| wrong(format!("persistentvolume {:?} not found", storage::volume_of(&claim))))?;
            check(volume, &bound, &claim, context).map_err(wrong)?;
            let ready = match bound.spec.as_ref().and_then(|spec| spec.csi.as_ref()) {
                Some(source) => {
                    let claimed = Claimed { source, volume: &bound, claim: &claim, read_only };
                    context.csi.mount(&Wanted::new(volume, &Source::Claim(claimed), context.pod), context).await?
                }
                None => Ready::new(blocking(|| provide(&bound, read_only, context))?, read_only),
            };
            blocking(|| files::make_directories(&path, 0o755))?;
            Ok(ready)
        })
    }

    /// Drivers are told again after a start of the agent.
    fn follows_objects(&self) -> bool {
        true
    }
}

/// Why the volume is not the claim's, or not for this node, in upstream's words where it has some.
fn check(volume: &Volume, bound: &PersistentVolume, claim: &PersistentVolumeClaim, context: &Context<'_>) -> Result<(), String> {
    let name = bound.name();
    let spec = bound.spec.as_ref();
    let Some(owner) = spec.and_then(|spec| spec.claim_ref.as_ref()) else {
        return Err(format!("found PV object {name} but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"));
    };
    let owner = owner.uid.as_deref().unwrap_or_default();
    if owner != claim.uid() {
        return Err(format!("found PV object {name} but its pv.Spec.ClaimRef.UID {owner:?} does not point to claim.UID {:?}", claim.uid()));
    }
    let containers = || spec::all_containers(context.pod);
    let is_csi = spec.is_some_and(|spec| spec.csi.is_some());
    let is_device =
        || containers().any(|(_, container)| container.volume_devices.iter().flatten().any(|device| device.name == volume.name));
    let is_mounted = || containers().any(|(_, container)| container.volume_mounts.iter().flatten().any(|mount| mount.name == volume.name));
    match spec.and_then(|spec| spec.volume_mode.as_deref()) {
        Some("Block") if !is_csi => {
            return Err(format!("volume {} has volumeMode Block, which this node supports for CSI only", volume.name));
        }
        Some("Block") if is_mounted() => {
            return Err(format!("volume {} has volumeMode Block, but is specified in volumeMounts", volume.name));
        }
        Some("Block") => {}
        _ if is_device() => return Err(format!("volume {} has volumeMode Filesystem, but is specified in volumeDevices", volume.name)),
        _ => {}
    }
    if !is_csi && spec.is_some_and(|spec| spec.mount_options.as_ref().is_some_and(|options| !options.is_empty())) {
        return Err(format!("mount options are not supported for the type of PV {name}"));
    }
    let bounded = spec.is_some_and(|spec| spec.node_affinity.is_some());
    match context.node {
        _ if !bounded => Ok(()),
        None => Err("this node is not registered yet".into()),
        Some(node) if storage::is_usable_on(bound, node) => Ok(()),
        Some(_) => Err(format!("MountVolume.NodeAffinity check failed for volume {name:?}: no matching NodeSelectorTerms")),
    }
}

/// Where the volume's files are.
fn provide(bound: &PersistentVolume, read_only: bool, context: &Context<'_>) -> Result<PathBuf> {
    let spec = bound.spec.as_ref();
    if let Some(source) = spec.and_then(|spec| spec.host_path.as_ref()) {
        if storage::annotation(bound, storage::PROVISIONED_BY) == Some(storage::LOCAL_PROVISIONER) {
            make_folder(source, context.local_volumes)?;
        }
        return hostpath::prepare(source);
    }
    if let Some(source) = spec.and_then(|spec| spec.local.as_ref()) {
        return local_path(source, read_only, context);
    }
    let kind = spec.map(source_name).unwrap_or_default();
    Err(Error::Config(format!("PV {} is of a type that this node does not support ({kind})", bound.name())))
}

/// The folder of a volume that the controller made for this node.
fn make_folder(source: &HostPathVolumeSource, base: &Path) -> Result<()> {
    let path = Path::new(&source.path);
    match (path.parent(), path.file_name().and_then(|name| name.to_str())) {
        (Some(parent), Some(name)) if parent == base => local::make(base, name),
        // The node now keeps new volumes elsewhere. A folder that was made earlier is used; a missing one is not made.
        _ if path.is_dir() => Ok(()),
        _ => Err(Error::Config(format!("{} does not exist, and this node keeps volumes in {}", path.display(), base.display()))),
    }
}

fn local_path(source: &LocalVolumeSource, read_only: bool, context: &Context<'_>) -> Result<PathBuf> {
    let path = PathBuf::from(&source.path);
    let metadata = std::fs::metadata(&path).map_err(|_| Error::Config(format!("path {:?} does not exist", source.path)))?;
    if !metadata.is_dir() {
        return Err(Error::Config(format!(
            "local path {:?} is not a directory: block devices are not supported by this node",
            source.path
        )));
    }
    if let (Some(group), false) = (context.fs_group().and_then(|group| u32::try_from(group).ok()), read_only) {
        let security = spec::pod_spec(context.pod).security_context.as_ref();
        let policy = security.and_then(|security| security.fs_group_change_policy.as_deref());
        ownership::give(&path, group, policy == Some("OnRootMismatch"))?;
    }
    Ok(path)
}

/// What a specification names as its source, for messages.
fn source_name(spec: &PersistentVolumeSpec) -> String {
    let value = serde_json::to_value(spec).unwrap_or_default();
    let source = value.as_object().and_then(|map| map.keys().find(|key| !NOT_SOURCES.contains(&key.as_str())).cloned());
    source.unwrap_or_else(|| "no source".into())
}
