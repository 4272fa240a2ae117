//! emptyDir: a directory, or a tmpfs, that lives as long as its pod.

use std::{
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

use k8s_openapi::api::core::v1::EmptyDirVolumeSource;

use super::mounts;
use crate::{
    amount,
    error::{Error, Result},
};

/// Makes the directory once; a second call leaves content and modes alone.
pub(crate) async fn prepare(
    source: &EmptyDirVolumeSource,
    path: &Path,
    pod_dir: &Path,
    fs_group: Option<i64>,
    node_memory_bytes: i64,
) -> Result<()> {
    let ready = pod_dir.join("plugins").join("kubernetes.io~empty-dir").join(path.file_name().unwrap_or_default()).join("ready");
    let wrap = |what: &str| Error::io(format!("{what} {}", path.display()));
    std::fs::create_dir_all(path).map_err(wrap("create"))?;
    match source.medium.as_deref().unwrap_or_default() {
        "" => {}
        "Memory" => {
            let limit = source.size_limit.as_ref().and_then(amount::of).map(|l| l.units()).filter(|l| *l > 0).unwrap_or(node_memory_bytes);
            mounts::ensure_tmpfs(path, &format!("size={limit},mode=0777"))?;
        }
        other => return Err(Error::Config(format!("storage medium {other:?} of an emptyDir is not supported by this node"))),
    }
    if ready.exists() {
        return Ok(());
    }
    let mode = match fs_group {
        Some(group) => {
            chown(path, None, u32::try_from(group).ok()).map_err(wrap("chown"))?;
            0o2777
        }
        None => 0o777,
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(wrap("chmod"))?;
    if let Some(parent) = ready.parent() {
        std::fs::create_dir_all(parent).map_err(wrap("mark as ready"))?;
    }
    std::fs::write(&ready, []).map_err(wrap("mark as ready"))
}
