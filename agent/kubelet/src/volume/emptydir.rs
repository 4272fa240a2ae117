//! emptyDir: a directory, or a tmpfs, that lives as long as its pod. Answers to
//! <https://kubernetes.io/docs/concepts/storage/volumes/#emptydir>.

use std::{
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Volume};

use super::{
    mounts,
    plugin::{Context, Plugin, Ready},
};
use crate::{
    amount,
    clock::blocking,
    error::{Error, Result},
    files,
};

pub(crate) struct EmptyDir;

impl Plugin for EmptyDir {
    fn directory(&self) -> &'static str {
        "kubernetes.io~empty-dir"
    }

    fn handles(&self, volume: &Volume) -> bool {
        volume.empty_dir.is_some()
    }

    fn set_up<'a>(&'a self, volume: &'a Volume, path: PathBuf, context: &'a Context<'_>) -> BoxFuture<'a, Result<Ready>> {
        Box::pin(async move {
            if let Some(source) = &volume.empty_dir {
                blocking(|| make(source, &path, context))?;
            }
            Ok(Ready::new(path, false))
        })
    }
}

/// Makes the directory once; a second call leaves content and modes alone.
fn make(source: &EmptyDirVolumeSource, path: &Path, context: &Context<'_>) -> Result<()> {
    let name = path.file_name().unwrap_or_default();
    let ready = context.pod_dir.join("plugins").join("kubernetes.io~empty-dir").join(name).join("ready");
    let wrap = |what: &str| Error::io(format!("{what} {}", path.display()));
    files::make_directories(path, 0o755)?;
    match source.medium.as_deref().unwrap_or_default() {
        "" => {}
        "Memory" => {
            let limit =
                source.size_limit.as_ref().and_then(amount::of).map(|l| l.units()).filter(|l| *l > 0).unwrap_or(context.node_memory_bytes);
            mounts::ensure_tmpfs(path, &format!("size={limit},mode=0777"))?;
        }
        other => return Err(Error::Config(format!("storage medium {other:?} of an emptyDir is not supported by this node"))),
    }
    if ready.exists() {
        return Ok(());
    }
    let mode = match context.fs_group() {
        Some(group) => {
            chown(path, None, u32::try_from(group).ok()).map_err(wrap("chown"))?;
            0o2777
        }
        None => 0o777,
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(wrap("chmod"))?;
    files::make_file(&ready, 0o644)
}
