//! Takes a pod's volumes down. What has to be taken down is found on disk, so an agent that did not set it up can do it.

use std::path::{Path, PathBuf};

use super::{mounts, plugin::Plugin, plugins};
use crate::error::{Error, Result};

/// A volume that is on disk.
struct Found {
    plugin: &'static dyn Plugin,
    path: PathBuf,
}

/// The volumes of a pod that are on disk, by the plugins that own their directories.
fn reconstruct(pod_dir: &Path) -> Vec<Found> {
    let children = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect::<Vec<_>>();
    let owned = children(&pod_dir.join("volumes")).into_iter().filter_map(|dir| {
        let plugin = plugins::of_directory(dir.file_name()?.to_str()?)?;
        Some(children(&dir).into_iter().map(move |path| Found { plugin, path }))
    });
    owned.flatten().collect()
}

/// Unmounts everything below a pod's directory: sub paths first, since they are parts of volumes. Idempotent.
pub(crate) fn unmount(pod_dir: &Path) -> Result<()> {
    mounts::unmount_below(&pod_dir.join("volume-subpaths"))?;
    for found in reconstruct(pod_dir) {
        found.plugin.tear_down(&found.path)?;
    }
    mounts::unmount_below(pod_dir)
}

/// Unmounts and deletes everything below a pod's directory. Idempotent. Never follows a mount or a link out of it: what is still
/// mounted after unmounting is left alone, and the error says so.
pub(crate) fn tear_down(pod_dir: &Path) -> Result<()> {
    unmount(pod_dir)?;
    match std::fs::remove_dir_all(pod_dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(format!("remove {}", pod_dir.display()))(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_of_an_earlier_agent_are_found_and_taken_down() {
        let dir = tempfile::tempdir().unwrap();
        let pod_dir = dir.path().join("uid");
        for volume in ["kubernetes.io~empty-dir/a", "kubernetes.io~configmap/b", "kubernetes.io~unknown/c"] {
            std::fs::create_dir_all(pod_dir.join("volumes").join(volume)).unwrap();
        }
        let mut found: Vec<_> = reconstruct(&pod_dir).iter().map(|f| f.path.file_name().unwrap().to_owned()).collect();
        found.sort();
        assert_eq!(found, ["a", "b"]);
        tear_down(&pod_dir).unwrap();
        assert!(!pod_dir.exists());
        tear_down(&pod_dir).unwrap();
    }
}
