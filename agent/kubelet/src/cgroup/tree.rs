//! The cgroup file system: one tree under v2, one for each controller under v1. Never touches a cgroup that it was not told of.

use std::path::{Path, PathBuf};

use super::limits::Limits;
use crate::error::{Error, Result};

/// The v1 controllers in which we set something ourselves.
const OURS: [&str; 3] = ["cpu", "memory", "pids"];
const DELEGATED: [&str; 6] = ["cpu", "memory", "pids", "cpuset", "io", "hugetlb"];

/// Where the trees are.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    mount: PathBuf,
    unified: bool,
}

impl Tree {
    /// The trees below a mount point, usually `/sys/fs/cgroup`.
    pub(crate) fn new(mount: &Path) -> Tree {
        Tree { mount: mount.into(), unified: mount.join("cgroup.controllers").exists() }
    }

    pub(crate) fn is_unified(&self) -> bool {
        self.unified
    }

    /// Makes a cgroup in every tree in which we set something.
    pub(crate) fn make(&self, path: &str) -> Result<()> {
        let trees = if self.unified { vec![self.mount.clone()] } else { OURS.iter().map(|c| self.mount.join(c)).collect() };
        for tree in trees {
            let full = tree.join(path);
            std::fs::create_dir_all(&full).map_err(Error::io(format!("create cgroup {}", full.display())))?;
            if self.unified {
                delegate(&tree, path);
            }
        }
        Ok(())
    }

    /// Whether a cgroup is there.
    pub(crate) fn exists(&self, path: &str) -> bool {
        if self.unified { self.mount.join(path).is_dir() } else { self.mount.join("memory").join(path).is_dir() }
    }

    /// Sets limits of a cgroup.
    pub(crate) fn set(&self, path: &str, limits: &Limits) -> Result<()> {
        let files: Vec<(PathBuf, String)> = if self.unified {
            limits.v2().into_iter().map(|(file, value)| (self.mount.join(path).join(file), value)).collect()
        } else {
            limits.v1().into_iter().map(|(controller, file, value)| (self.mount.join(controller).join(path).join(file), value)).collect()
        };
        for (file, value) in files {
            // A kernel without a controller's feature has nothing to lift.
            if (value == "-1" || value.starts_with("max")) && !file.exists() {
                continue;
            }
            std::fs::write(&file, &value).map_err(Error::io(format!("write {value} to {}", file.display())))?;
        }
        Ok(())
    }

    /// The processes and threads in a cgroup and below it.
    pub(crate) fn pids(&self, path: &str) -> Option<i64> {
        let tree = if self.unified { self.mount.clone() } else { self.mount.join("pids") };
        std::fs::read_to_string(tree.join(path).join("pids.current")).ok()?.trim().parse().ok()
    }

    /// The names of the cgroups right below one.
    pub(crate) fn children(&self, path: &str) -> Vec<String> {
        let directory = self.all().first().map(|tree| tree.join(path));
        let entries = directory.and_then(|d| std::fs::read_dir(d).ok()).into_iter().flatten().flatten();
        entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Every tree in which a cgroup may have been made, by us or by the runtime below ours.
    fn all(&self) -> Vec<PathBuf> {
        if self.unified {
            return vec![self.mount.clone()];
        }
        let entries = std::fs::read_dir(&self.mount).into_iter().flatten().flatten();
        let mut trees: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| p.is_dir() && !p.is_symlink()).collect();
        trees.sort_by_key(|tree| !tree.ends_with("cpu"));
        trees
    }

    /// Removes a cgroup from every tree. Fails on what still runs.
    pub(crate) fn remove(&self, path: &str) -> Result<()> {
        for tree in self.all() {
            let full = tree.join(path);
            if full.exists() {
                remove_directory(&full).map_err(Error::io(format!("remove cgroup {}", full.display())))?;
            }
        }
        Ok(())
    }

    /// SIGKILL to every process in a cgroup and below it.
    pub(crate) fn kill(&self, path: &str) {
        for tree in self.all() {
            kill_processes(&tree.join(path));
        }
    }
}

/// Under v2 a controller must be switched on in every ancestor. What the machine refuses shows when a limit is set.
fn delegate(tree: &Path, path: &str) {
    let mut current = tree.to_path_buf();
    for part in std::iter::once("").chain(path.split('/')) {
        current.push(part);
        for controller in DELEGATED {
            let _ = std::fs::write(current.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }
}

fn kill_processes(path: &Path) {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            kill_processes(&entry.path());
        }
    }
    let processes = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    // 0 stands for a process outside our view, and to kill(2) for our own group.
    for pid in processes.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0) {
        let outcome = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        tracing::warn!(pid, cgroup = %path.display(), ?outcome, "killed a process that a dead pod had left");
    }
}

/// Children first; the files in a cgroup go with its directory.
fn remove_directory(path: &Path) -> std::io::Result<()> {
    // Systemd removes what it stops at the same time.
    let gone = |e: &std::io::Error| e.kind() == std::io::ErrorKind::NotFound;
    let entries = match std::fs::read_dir(path) {
        Err(e) if gone(&e) => return Ok(()),
        other => other?,
    };
    for entry in entries.flatten() {
        if entry.file_type()?.is_dir() {
            remove_directory(&entry.path())?;
        } else if cfg!(test) {
            // A plain directory stands in for the tree.
            std::fs::remove_file(entry.path())?;
        }
    }
    match std::fs::remove_dir(path) {
        Err(e) if gone(&e) => Ok(()),
        other => other,
    }
}
