//! A pod's volumes on this host: made before its containers, kept fresh while it runs, taken away after it.
//!
//! Paths are deterministic (`pods/<uid>/volumes/<plugin>/<name>`, upstream's layout) and preparing is idempotent, so a restarted
//! agent finds what it made. Content volumes (configMap, secret, projected, downwardAPI) are written atomically, and those that may
//! hold secrets live in memory. Claims and CSI have their place in [`prepare`]'s match. Answers to
//! <https://kubernetes.io/docs/concepts/storage/volumes/>.

pub(crate) mod atomic;
pub(crate) mod content;
pub(crate) mod empty_dir;
pub(crate) mod host_path;
pub(crate) mod mounts;
pub(crate) mod subpath;
pub(crate) mod token;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};

use crate::{
    container::fields::Place,
    error::{Error, Result},
    objects::Objects,
    pod::spec,
};

/// A volume that is ready to be mounted into containers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mounted {
    pub(crate) path: PathBuf,
    pub(crate) read_only: bool,
}

/// What preparing needs besides the pod.
pub(crate) struct Context<'a> {
    pub(crate) pod_dir: &'a Path,
    pub(crate) place: &'a Place,
    pub(crate) objects: &'a Objects,
    pub(crate) tokens: &'a token::Tokens,
    pub(crate) node_memory_bytes: i64,
    pub(crate) now: Timestamp,
}

/// The outcome for a whole pod.
#[derive(Default)]
pub(crate) struct Prepared {
    pub(crate) mounted: BTreeMap<String, Mounted>,
    /// When a token has to be renewed.
    pub(crate) refresh_at: Option<Timestamp>,
}

/// Which volume could not be prepared, and why.
pub(crate) struct Failure {
    pub(crate) volume: String,
    pub(crate) error: Error,
}

/// Makes or refreshes all volumes of a pod.
pub(crate) async fn prepare(pod: &Pod, context: &Context<'_>) -> Result<Prepared, Failure> {
    let mut prepared = Prepared::default();
    for volume in spec::pod_spec(pod).volumes.iter().flatten() {
        match one(pod, volume, context, &mut prepared.refresh_at).await {
            Ok(mounted) => prepared.mounted.insert(volume.name.clone(), mounted),
            Err(error) => return Err(Failure { volume: volume.name.clone(), error }),
        };
    }
    Ok(prepared)
}

async fn one(pod: &Pod, volume: &Volume, context: &Context<'_>, refresh_at: &mut Option<Timestamp>) -> Result<Mounted> {
    let directory = |plugin: &str| context.pod_dir.join("volumes").join(format!("kubernetes.io~{plugin}")).join(&volume.name);
    let fs_group = spec::pod_spec(pod).security_context.as_ref().and_then(|s| s.fs_group);
    if let Some(source) = &volume.empty_dir {
        let path = directory("empty-dir");
        empty_dir::prepare(source, &path, context.pod_dir, fs_group, context.node_memory_bytes).await?;
        return Ok(Mounted { path, read_only: false });
    }
    if let Some(source) = &volume.host_path {
        return Ok(Mounted { path: host_path::prepare(source)?, read_only: false });
    }
    let (plugin, payload) = if let Some(source) = &volume.config_map {
        ("configmap", content::config_map(pod, source, context).await?)
    } else if let Some(source) = &volume.secret {
        ("secret", content::secret(pod, source, context).await?)
    } else if let Some(source) = &volume.downward_api {
        ("downward-api", content::downward_api(pod, source.items.as_deref().unwrap_or_default(), source.default_mode, context)?)
    } else if let Some(source) = &volume.projected {
        ("projected", content::projected(pod, source, context, refresh_at).await?)
    } else {
        return Err(Error::Config(format!("volume {:?} is of a type that this node does not support yet ({})", volume.name, kind(volume))));
    };
    let path = directory(plugin);
    if matches!(plugin, "secret" | "projected") {
        mounts::ensure_tmpfs(&path, "size=64m,mode=0755")?;
    }
    tokio::task::block_in_place(|| atomic::write(&path, &payload, fs_group, context.now))?;
    Ok(Mounted { path, read_only: true })
}

/// The name of a volume's source, for messages.
fn kind(volume: &Volume) -> String {
    let value = serde_json::to_value(volume).unwrap_or_default();
    let source = value.as_object().and_then(|map| map.keys().find(|k| *k != "name").cloned());
    source.unwrap_or_else(|| "no source".into())
}

/// True when a change of a ConfigMap or Secret has to reach the pod's files.
pub(crate) fn has_content(pod: &Pod) -> bool {
    spec::pod_spec(pod)
        .volumes
        .iter()
        .flatten()
        .any(|v| v.config_map.is_some() || v.secret.is_some() || v.projected.is_some() || v.downward_api.is_some())
}

/// Unmounts and deletes everything below a pod's directory. Idempotent. Never follows a mount or a link out of it:
/// what is still mounted after unmounting is left alone, and the error says so.
pub(crate) fn tear_down(pod_dir: &Path) -> Result<()> {
    mounts::unmount_below(pod_dir)?;
    match std::fs::remove_dir_all(pod_dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(format!("remove {}", pod_dir.display()))(e)),
        _ => Ok(()),
    }
}
