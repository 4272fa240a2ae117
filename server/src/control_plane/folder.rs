//! Checks that a data directory belongs to Trireme before anything is written into it.

use std::path::Path;

use crate::commands::Failure;

/// What Trireme keeps in a data directory; `lost+found` belongs to the file system.
/// A restore that was killed leaves its unfinished folder.
const FOLDERS: [&str; 4] = ["server", "agent", "lost+found", "server.restoring"];
/// What it keeps in `server/`.
const IN_SERVER: [&str; 6] = ["tls", "cred", "db", "manifests", "token", "node-token"];
/// What the store keeps in `server/db/`.
const IN_STORE: [&str; 9] = ["LOCK", "member", "member.new", "log", "state", "snapshot", "incoming", "snapshots", "reserve"];

/// Refuses a folder with files of another product. A folder that has
/// a cluster of ours may hold more: an administrator may keep other files beside it.
pub fn check(data_dir: &Path) -> Result<(), Failure> {
    let server = data_dir.join("server");
    if server.join("cred/cluster.json").exists() {
        return Ok(());
    }
    let strange = match stranger_in(data_dir, &FOLDERS, true)? {
        None => match stranger_in(&server, &IN_SERVER, false)? {
            None => stranger_in(&server.join("db"), &IN_STORE, false)?,
            some => some,
        },
        some => some,
    };
    match strange {
        Some(strange) => Err(Failure::from(format!(
            "--data-dir {}: not a data directory of Trireme, it contains {strange}; give an empty one",
            data_dir.display()
        ))),
        None => Ok(()),
    }
}

/// The first entry that is not known. Files may be allowed: a token or a configuration is often put there before the first start.
fn stranger_in(folder: &Path, known: &[&str], only_folders: bool) -> Result<Option<String>, Failure> {
    let unusable = |e: std::io::Error| Failure::from(format!("--data-dir: {} cannot be used: {e}", folder.display()));
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(unusable)?,
    };
    for entry in entries {
        let path = entry.map_err(unusable)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Files that were being written when the process was killed.
        let unfinished = name.ends_with(".tmp");
        if !known.contains(&name.as_ref()) && !unfinished && (path.is_dir() || !only_folders) {
            return Ok(Some(path.display().to_string()));
        }
    }
    Ok(None)
}
