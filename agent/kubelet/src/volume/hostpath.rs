//! hostPath: what is at a path of the host, checked or made as its type says. Answers to
//! <https://kubernetes.io/docs/concepts/storage/volumes/#hostpath>.

use std::{
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::PathBuf,
};

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{HostPathVolumeSource, Volume};

use super::plugin::{Context, Plugin, Ready};
use crate::{
    clock::blocking,
    error::{Error, Result},
    files,
};

pub(crate) struct HostPath;

impl Plugin for HostPath {
    fn directory(&self) -> &'static str {
        "kubernetes.io~host-path"
    }

    fn handles(&self, volume: &Volume) -> bool {
        volume.host_path.is_some()
    }

    fn set_up<'a>(&'a self, volume: &'a Volume, _: PathBuf, _: &'a Context<'_>) -> BoxFuture<'a, Result<Ready>> {
        Box::pin(async move {
            let path = volume.host_path.as_ref().map(|source| blocking(|| prepare(source))).transpose()?;
            Ok(Ready::new(path.unwrap_or_default(), false))
        })
    }
}

/// Checks (or makes) the path.
pub(super) fn prepare(source: &HostPathVolumeSource) -> Result<PathBuf> {
    let path = PathBuf::from(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    match kind {
        "" => return Ok(path),
        "DirectoryOrCreate" if !path.exists() => files::make_directories(&path, 0o755)?,
        "FileOrCreate" if !path.exists() => {
            let file = std::fs::File::create_new(&path).map_err(Error::io(format!("create {}", path.display())))?;
            let mode = std::fs::Permissions::from_mode(0o644);
            file.set_permissions(mode).map_err(Error::io(format!("chmod {}", path.display())))?;
        }
        _ => {}
    }
    let metadata = std::fs::metadata(&path);
    let fits = metadata.as_ref().is_ok_and(|m| match kind {
        "Directory" | "DirectoryOrCreate" => m.is_dir(),
        "File" | "FileOrCreate" => m.is_file(),
        "Socket" => m.file_type().is_socket(),
        "CharDevice" => m.file_type().is_char_device(),
        "BlockDevice" => m.file_type().is_block_device(),
        _ => false,
    });
    if fits {
        return Ok(path);
    }
    let wanted = match kind {
        "Directory" | "DirectoryOrCreate" => "a directory",
        "File" | "FileOrCreate" => "a file",
        "Socket" => "a socket file",
        "CharDevice" => "a character device",
        "BlockDevice" => "a block device",
        _ => "of a known type",
    };
    Err(Error::Config(format!("hostPath type check failed: {} is not {wanted}", path.display())))
}
