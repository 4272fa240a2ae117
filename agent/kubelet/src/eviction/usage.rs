//! What a pod uses of its node's memory, disk and process ids.

use std::{
    collections::BTreeMap,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::Pod;
use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
};
use trireme_proto::cri;

use crate::{container::sandbox, node::signal::Resource, options::KubeletOptions, pod::spec, runtime::keys};

/// Folders within folders that are counted; deeper ones are left out.
const MAX_DEPTH: usize = 64;

/// What a container uses, in bytes and numbers.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct ContainerUsage {
    pub(super) memory: i64,
    /// Its writable layer and its logs.
    pub(super) disk: i64,
    pub(super) inodes: i64,
}

/// What a pod uses.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct PodUsage {
    pub(super) containers: BTreeMap<String, ContainerUsage>,
    /// Each emptyDir that lies on disk.
    pub(super) volumes: BTreeMap<String, Files>,
    /// Processes and threads.
    pub(super) pids: i64,
}

/// What files take of a disk.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Files {
    pub(super) bytes: i64,
    pub(super) inodes: i64,
}

impl PodUsage {
    pub(super) fn of(&self, resource: Resource) -> i64 {
        match resource {
            Resource::Memory => self.containers.values().map(|usage| usage.memory).sum(),
            Resource::Disk => {
                let containers: i64 = self.containers.values().map(|usage| usage.disk).sum();
                containers + self.volumes.values().map(|files| files.bytes).sum::<i64>()
            }
            Resource::Inodes => {
                let containers: i64 = self.containers.values().map(|usage| usage.inodes).sum();
                containers + self.volumes.values().map(|files| files.inodes).sum::<i64>()
            }
            Resource::Pids => self.pids,
        }
    }
}

/// Measures a pod; its disk usage only where that is asked for, because files have to be counted.
pub(super) async fn measure(pod: &Pod, stats: &[&cri::ContainerStats], options: &KubeletOptions, disk: bool) -> PodUsage {
    let number = |value: &Option<cri::UInt64Value>| value.as_ref().map_or(0, |value| i64::try_from(value.value).unwrap_or(i64::MAX));
    let mut usage = PodUsage::default();
    for stats in stats {
        let Some(name) = stats.attributes.as_ref().and_then(|attributes| attributes.labels.get(keys::CONTAINER_NAME)) else { continue };
        let container = usage.containers.entry(name.clone()).or_default();
        container.memory += stats.memory.as_ref().map_or(0, |memory| number(&memory.working_set_bytes));
        container.disk += stats.writable_layer.as_ref().map_or(0, |layer| number(&layer.used_bytes));
        container.inodes += stats.writable_layer.as_ref().map_or(0, |layer| number(&layer.inodes_used));
    }
    if disk {
        let logs = sandbox::log_directory(pod, options);
        let logs: Vec<(String, PathBuf)> = spec::all_containers(pod).map(|(_, c)| (c.name.clone(), logs.join(&c.name))).collect();
        let volumes = on_disk(pod, &options.pod_dir(spec::uid(pod)));
        let counted = tokio::task::spawn_blocking(move || {
            let logs: Vec<(String, Files)> = logs.into_iter().map(|(name, path)| (name, disk_usage(&path))).collect();
            let volumes: BTreeMap<String, Files> = volumes.into_iter().map(|(name, path)| (name, disk_usage(&path))).collect();
            (logs, volumes)
        });
        if let Ok((logs, volumes)) = counted.await {
            for (name, files) in logs.into_iter().filter(|(_, files)| files.bytes > 0) {
                let container = usage.containers.entry(name).or_default();
                container.disk += files.bytes;
                container.inodes += files.inodes;
            }
            usage.volumes = volumes;
        }
    }
    usage
}

/// The emptyDirs of a pod that lie on disk.
fn on_disk(pod: &Pod, pod_dir: &Path) -> Vec<(String, PathBuf)> {
    let volumes = spec::pod_spec(pod).volumes.iter().flatten();
    volumes
        .filter(|volume| volume.empty_dir.as_ref().is_some_and(|source| source.medium.as_deref().unwrap_or_default().is_empty()))
        .map(|volume| (volume.name.clone(), pod_dir.join("volumes/kubernetes.io~empty-dir").join(&volume.name)))
        .collect()
}

/// What a folder's files take of its disk. The pod may change it meanwhile: links are never followed.
fn disk_usage(folder: &Path) -> Files {
    let mut files = Files::default();
    if let Ok(device) = std::fs::symlink_metadata(folder).map(|meta| meta.dev()) {
        count(folder, device, 0, &mut files);
    }
    files
}

fn count(folder: &Path, device: u64, depth: usize, files: &mut Files) {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let Ok(opened) = open(folder, flags, Mode::empty()) else { return };
    // By its number: what has the name now may be something else.
    let by_number = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    let Ok(entries) = std::fs::read_dir(&by_number) else { return };
    for entry in entries.flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if meta.dev() != device {
            continue;
        }
        files.bytes = files.bytes.saturating_add(i64::try_from(meta.blocks().saturating_mul(512)).unwrap_or(i64::MAX));
        files.inodes = files.inodes.saturating_add(1);
        if meta.is_dir() && depth < MAX_DEPTH {
            count(&by_number.join(entry.file_name()), device, depth + 1, files);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_are_counted_and_links_are_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let (inside, outside) = (home.path().join("inside"), home.path().join("outside"));
        std::fs::create_dir_all(inside.join("a/b")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(inside.join("a/b/file"), vec![1; 100_000]).unwrap();
        std::fs::write(outside.join("large"), vec![1; 10_000_000]).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        std::os::unix::fs::symlink(outside.join("large"), inside.join("a/link")).unwrap();
        let found = disk_usage(&inside);
        assert!((100_000..1_000_000).contains(&found.bytes), "{found:?}");
        assert_eq!(found.inodes, 5, "a, a/b, a/b/file and two links");
        assert_eq!(disk_usage(&inside.join("link")), Files::default());
        assert_eq!(disk_usage(&home.path().join("missing")), Files::default());
    }
}
