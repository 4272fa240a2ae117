//! Takes everything off this host that a kubelet made: for `ops/down` and an uninstall, never for a restart.
//!
//! What was made is known from the data directory: a pod's directory is made before its sandbox, so only sandboxes of pods that
//! have one are touched, and other users of the same runtime are not.

use std::path::{Path, PathBuf};

use crate::{
    cgroup::Cgroups,
    clock::blocking,
    error::{Error, Result},
    metrics::Operations,
    runtime::{Runtime, cri::CriRuntime},
    volume,
};

/// Stops and removes all pods of this data directory, their mounts, directories, logs and cgroups. The kubelet must not be running.
pub async fn clean_up(data_dir: &Path, pod_logs_dir: &Path, runtime_socket: PathBuf, cgroup_root: &str) -> Result<()> {
    let runtime = CriRuntime::new(runtime_socket, Operations::new());
    let pods = data_dir.join("pods");
    let entries = match std::fs::read_dir(&pods) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io(format!("read {}", pods.display()))(e)),
    };
    let mut failure = None;
    for uid in entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()) {
        if let Err(error) = remove_pod(&runtime, &pods.join(&uid), pod_logs_dir, &uid).await {
            tracing::warn!(%error, uid, "pod not removed");
            failure = Some(error);
        }
    }
    // Staged volumes hold data: these folders must not be removed while a volume is mounted there.
    blocking(|| volume::mounts::unmount_below(&data_dir.join("plugins")))?;
    Cgroups::new(cgroup_root).remove_all()?;
    for file in ["device-plugins/kubelet.sock", "device-plugins/kubelet_internal_checkpoint", "pod-resources/kubelet.sock"] {
        let path = data_dir.join(file);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(format!("remove {}", path.display()))(e)),
            _ => {}
        }
    }
    failure.map_or(Ok(()), Err)
}

async fn remove_pod(runtime: &dyn Runtime, pod_dir: &Path, pod_logs_dir: &Path, uid: &str) -> Result<()> {
    // A runtime that is away for good has taken its containers with it.
    match runtime.list_sandboxes(Some(uid)).await {
        Ok(sandboxes) => {
            for sandbox in sandboxes {
                runtime.stop_sandbox(&sandbox.id).await?;
                runtime.remove_sandbox(&sandbox.id).await?;
            }
        }
        Err(e) if e.is_runtime_away() => {}
        Err(e) => return Err(e),
    }
    let logs = std::fs::read_dir(pod_logs_dir).into_iter().flatten().flatten();
    for entry in logs.filter(|e| e.file_name().to_string_lossy().ends_with(&format!("_{uid}"))) {
        let _ = std::fs::remove_dir_all(entry.path());
    }
    blocking(|| volume::tear_down(pod_dir))
}
