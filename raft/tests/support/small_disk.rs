//! A disk that is soon full: a tmpfs in a mount namespace of its own.

#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const DISK: &str = "TRIREME_TEST_SMALL_DISK";

/// Runs `test` again in a process of its own with a small disk of `mebibytes`, whose folder that process gets. Returns None in the outer
/// process once the inner one has passed.
pub fn on_small_disk(test: &str, mebibytes: u32) -> Option<PathBuf> {
    if let Some(disk) = std::env::var_os(DISK) {
        return Some(disk.into());
    }
    let folder = tempfile::tempdir().unwrap();
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let script = format!("mount -t tmpfs -o size={mebibytes}m tmpfs \"${DISK}\" && exec \"$0\" --exact {test} --nocapture");
    let status = Command::new("unshare")
        .args(if root { ["--mount", "--propagation=private"].as_slice() } else { ["--map-root-user", "--mount"].as_slice() })
        .args(["sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(DISK, folder.path())
        .status()
        .unwrap();
    assert!(status.success(), "{test} on a small disk: {status}");
    None
}

/// Takes the disk's last byte.
pub fn fill(disk: &Path) -> PathBuf {
    let path = disk.join("somebody-elses");
    let mut file = File::options().append(true).create(true).open(&path).unwrap();
    for block in [1 << 20, 1 << 12, 1] {
        let zeros = vec![0; block];
        let error = loop {
            if let Err(error) = file.write_all(&zeros) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    }
    path
}
