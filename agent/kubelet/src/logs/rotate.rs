//! Keeps container logs bounded: a file over the limit is renamed and the runtime told to open a new one; old ones are
//! kept uncompressed, and deleted beyond the allowed number.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use trireme_proto::cri;

use crate::{
    clock::blocking,
    core::Core,
    error::{Error, Result},
};

/// Upstream's interval.
const EVERY: Duration = Duration::from_secs(10);

/// Runs until dropped.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        tokio::time::sleep(EVERY).await;
        if let Err(error) = round(&core).await {
            tracing::debug!(%error, "log rotation");
        }
    }
}

async fn round(core: &Core) -> Result<()> {
    // Directories are cheap to read; the runtime is only asked when a file is too large.
    let large = blocking(|| oversized(&core.options.pod_logs_dir, core.options.container_log_max_bytes));
    if large.is_empty() {
        return Ok(());
    }
    for container in core.runtime.list_containers(None).await? {
        if container.state != cri::ContainerState::ContainerRunning as i32 {
            continue;
        }
        let path = PathBuf::from(core.runtime.container_status(&container.id).await?.log_path);
        if large.contains(&path) {
            rotate(core, &container.id, &path).await?;
        }
    }
    Ok(())
}

/// `<pod>/<container>/<n>.log` files above the limit.
fn oversized(root: &Path, limit: u64) -> Vec<PathBuf> {
    let children = |dir: &Path| -> Vec<PathBuf> { std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect() };
    children(root)
        .iter()
        .flat_map(|pod| children(pod))
        .flat_map(|container| children(&container))
        .filter(|file| file.extension().is_some_and(|e| e == "log") && file.metadata().is_ok_and(|m| m.len() >= limit))
        .collect()
}

async fn rotate(core: &Core, id: &str, path: &Path) -> Result<()> {
    let stamp = core.clock.now().strftime("%Y%m%d-%H%M%S");
    let old = PathBuf::from(format!("{}.{stamp}", path.display()));
    tokio::fs::rename(path, &old).await.map_err(Error::io(format!("rotate {}", path.display())))?;
    if let Err(error) = core.runtime.reopen_log(id).await {
        // The runtime still writes to the old file: give it its name back.
        let _ = tokio::fs::rename(&old, path).await;
        return Err(error);
    }
    let mut kept = rotated(path);
    kept.sort();
    let excess = (kept.len() + 1).saturating_sub(core.options.container_log_max_files.max(2));
    for file in kept.into_iter().take(excess) {
        let _ = tokio::fs::remove_file(file).await;
    }
    Ok(())
}

/// The rotated files of a log, in no order.
fn rotated(path: &Path) -> Vec<PathBuf> {
    let prefix = format!("{}.", path.file_name().unwrap_or_default().to_string_lossy());
    let entries = path.parent().and_then(|dir| std::fs::read_dir(dir).ok()).into_iter().flatten().flatten();
    entries.filter(|e| e.file_name().to_string_lossy().starts_with(&prefix)).map(|e| e.path()).collect()
}
