//! One container's configuration for one attempt.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use trireme_proto::cri;

use super::{
    env::{self, Environment},
    hosts, resources, sandbox, security,
};
use crate::{
    device::Extras,
    error::{Error, Result},
    files,
    pod::spec,
    runtime::keys,
    volume::{Mounted, subpath},
};

/// What a container's configuration is made of.
pub(crate) struct Parts<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) attempt: u32,
    pub(crate) image: &'a cri::Image,
    pub(crate) environment: Environment,
    /// What the plugins of its devices ask for.
    pub(crate) extras: Extras,
    /// Where each of the pod's volumes is on this host.
    pub(crate) volumes: &'a BTreeMap<String, Mounted>,
    pub(crate) pod_dir: &'a Path,
    pub(crate) seccomp_dir: &'a Path,
    pub(crate) node_memory_bytes: i64,
    pub(crate) grace_secs: i64,
    /// The id of the running container whose processes an ephemeral container sees.
    pub(crate) target_id: Option<&'a str>,
    /// Whether the runtime mounts what is below a read-only mount read-only too.
    pub(crate) can_mount_recursively_read_only: bool,
}

/// The path of a container's termination message on the host.
pub(crate) fn termination_message_file(pod_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    pod_dir.join("containers").join(container).join(attempt.to_string())
}

/// Composes the configuration. Makes the few files that it names (termination message, sub paths).
pub(crate) fn compose(parts: Parts<'_>) -> Result<cri::ContainerConfig> {
    let Parts { pod, container, attempt, image, .. } = parts;
    // The container's own variables come last: of two of a name they count.
    let environment: Environment =
        parts.extras.envs.iter().map(|(k, v)| (k.clone(), v.clone())).chain(parts.environment.iter().cloned()).collect();
    let variables: BTreeMap<&str, &str> = environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let expand = |words: &Option<Vec<String>>| -> Vec<String> {
        words.iter().flatten().map(|word| env::expand(word, |name| variables.get(name).map(ToString::to_string))).collect()
    };
    let message_path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    let mut labels: HashMap<String, String> = sandbox::identity(pod).into_iter().collect();
    labels.insert(keys::CONTAINER_NAME.into(), container.name.clone());
    // The kubelet's own annotations win over those of plugins.
    let mut annotations: HashMap<String, String> = parts.extras.annotations.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    annotations.extend([
        (keys::HASH.to_string(), spec::container_hash(container)),
        (keys::RESTART_COUNT.to_string(), attempt.to_string()),
        (keys::MESSAGE_PATH.to_string(), message_path.to_string()),
        (keys::MESSAGE_POLICY.to_string(), container.termination_message_policy.clone().unwrap_or_else(|| "File".into())),
        (keys::GRACE_PERIOD.to_string(), parts.grace_secs.to_string()),
    ]);
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: container.name.clone(), attempt }),
        image: Some(cri::ImageSpec {
            image: image.id.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command: expand(&container.command),
        args: expand(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts: mounts(&parts, message_path, &variables)?,
        devices: devices(&parts)?,
        labels,
        annotations,
        log_path: format!("{}/{attempt}.log", container.name),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources::container(pod, container, parts.node_memory_bytes)),
            security_context: Some(security::container(pod, container, Some(image), parts.seccomp_dir, parts.target_id)?),
        }),
        cdi_devices: parts.extras.cdi_devices.clone(),
        envs: environment.iter().map(|(key, value)| cri::KeyValue { key: key.clone(), value: value.clone() }).collect(),
    })
}

fn mounts(parts: &Parts<'_>, message_path: &str, variables: &BTreeMap<&str, &str>) -> Result<Vec<cri::Mount>> {
    let container = parts.container;
    let mut mounts = parts.extras.mounts.clone();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let volume = parts
            .volumes
            .get(&mount.name)
            .ok_or_else(|| Error::Config(format!("mount.Name {:?} was not found among the pod's volumes", mount.name)))?;
        let host_path = host_path(parts, mount, volume, index, variables)?;
        let container_path = if mount.mount_path.starts_with('/') { mount.mount_path.clone() } else { format!("/{}", mount.mount_path) };
        let propagation = match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer,
            Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional,
            _ => cri::MountPropagation::PropagationPrivate,
        };
        mounts.push(cri::Mount {
            container_path,
            host_path: host_path.to_string_lossy().into_owned(),
            readonly: mount.read_only == Some(true) || volume.read_only,
            propagation: propagation as i32,
            recursive_read_only: recursive_read_only(mount, parts.can_mount_recursively_read_only)?,
            ..Default::default()
        });
    }
    let taken = |path: &str, mounts: &[cri::Mount]| mounts.iter().any(|m| m.container_path.trim_end_matches('/') == path);
    if !taken(hosts::MOUNT_PATH, &mounts) {
        mounts.push(plain_mount(hosts::MOUNT_PATH, &parts.pod_dir.join("etc-hosts"), false));
    }
    if !message_path.is_empty() && !taken(message_path, &mounts) {
        let file = termination_message_file(parts.pod_dir, &container.name, parts.attempt);
        // Any user of the container may write it.
        files::make_file(&file, 0o666)?;
        mounts.push(plain_mount(message_path, &file, false));
    }
    Ok(mounts)
}

/// Whether what is below the mount is read-only too. `Enabled` is an error where the runtime cannot do that.
fn recursive_read_only(mount: &VolumeMount, can: bool) -> Result<bool> {
    match mount.recursive_read_only.as_deref() {
        Some("IfPossible") => Ok(can && mount.read_only == Some(true)),
        Some("Enabled") if !can => {
            let why = "the runtime handler of the pod does not support recursive read-only mounts";
            Err(Error::Config(format!("failed to resolve recursive read-only mode: volume {:?}: {why}", mount.name)))
        }
        Some("Enabled") => Ok(true),
        _ => Ok(false),
    }
}

/// The block devices of the container.
fn devices(parts: &Parts<'_>) -> Result<Vec<cri::Device>> {
    let devices = parts.container.volume_devices.iter().flatten().map(|device| match parts.volumes.get(&device.name) {
        Some(volume) if volume.is_device => Ok(cri::Device {
            container_path: device.device_path.clone(),
            host_path: volume.path.to_string_lossy().into_owned(),
            permissions: if volume.read_only { "r" } else { "mrw" }.into(),
        }),
        _ => Err(Error::Config(format!("volume device {:?} was not found among the pod's block volumes", device.name))),
    });
    parts.extras.devices.iter().cloned().map(Ok).chain(devices).collect()
}

fn plain_mount(container_path: &str, host_path: &Path, readonly: bool) -> cri::Mount {
    cri::Mount {
        container_path: container_path.into(),
        host_path: host_path.to_string_lossy().into_owned(),
        readonly,
        ..Default::default()
    }
}

fn host_path(parts: &Parts<'_>, mount: &VolumeMount, volume: &Mounted, index: usize, variables: &BTreeMap<&str, &str>) -> Result<PathBuf> {
    let sub_path = match (mount.sub_path.as_deref().filter(|p| !p.is_empty()), mount.sub_path_expr.as_deref().filter(|p| !p.is_empty())) {
        (Some(path), _) => path.to_string(),
        (None, Some(expression)) => env::expand(expression, |name| variables.get(name).map(ToString::to_string)),
        (None, None) => return Ok(volume.path.clone()),
    };
    let target = parts.pod_dir.join("volume-subpaths").join(&mount.name).join(&parts.container.name).join(index.to_string());
    subpath::bind(&volume.path, &sub_path, &target, !volume.read_only)?;
    Ok(target)
}
