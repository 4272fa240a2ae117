//! hostPath: what is at a path of the host, checked or made as its type says.

use std::{
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use crate::error::{Error, Result};

/// Checks (or makes) the path.
pub(crate) fn prepare(source: &HostPathVolumeSource) -> Result<PathBuf> {
    let path = PathBuf::from(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    match kind {
        "" => return Ok(path),
        "DirectoryOrCreate" if !path.exists() => {
            std::fs::create_dir_all(&path).map_err(Error::io(format!("create {}", path.display())))?;
            set_mode(&path, 0o755)?;
        }
        "FileOrCreate" if !path.exists() => {
            std::fs::File::create(&path).map_err(Error::io(format!("create {}", path.display())))?;
            set_mode(&path, 0o644)?;
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

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(Error::io(format!("chmod {}", path.display())))
}
