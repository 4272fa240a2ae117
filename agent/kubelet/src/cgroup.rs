//! The cgroups between the root and a pod's containers: `<root>/kubepods[/burstable|/besteffort]/pod<uid>`.
//!
//! Containers' own cgroups are the runtime's. Works with cgroup v1 (each controller its own tree) and v2. Never touches a
//! cgroup outside the root it was given.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::{
    amount::Amount,
    container::resources,
    error::{Error, Result},
    pod::spec::{self, Qos},
};

const MOUNT: &str = "/sys/fs/cgroup";
/// The v1 controllers in which we set something ourselves.
const OURS: [&str; 3] = ["cpu", "memory", "pids"];

/// The tree below one root.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    root: String,
    unified: bool,
}

impl Cgroups {
    pub(crate) fn new(root: &str) -> Cgroups {
        let root = root.trim_matches('/');
        let root = if root.is_empty() { String::new() } else { format!("/{root}") };
        Cgroups { root, unified: Path::new(MOUNT).join("cgroup.controllers").exists() }
    }

    /// The cgroup that a pod's containers are children of.
    pub(crate) fn pod_parent(&self, pod: &Pod) -> String {
        self.pod_path(spec::qos(pod), spec::uid(pod))
    }

    fn pod_path(&self, qos: Qos, uid: &str) -> String {
        let class = match qos {
            Qos::Guaranteed => "",
            Qos::Burstable => "/burstable",
            Qos::BestEffort => "/besteffort",
        };
        format!("{}/kubepods{class}/pod{uid}", self.root)
    }

    /// Makes `kubepods` and the classes. Best effort pods together get the least weight there is.
    pub(crate) fn prepare(&self) -> Result<()> {
        for class in ["kubepods", "kubepods/burstable", "kubepods/besteffort"] {
            self.make(&format!("{}/{class}", self.root))?;
        }
        self.set_cpu_shares(&format!("{}/kubepods/besteffort", self.root), 2)
    }

    /// Burstable pods together weigh as much as they ask for.
    pub(crate) fn set_burstable_cpu(&self, requested_milli: i64) -> Result<()> {
        self.set_cpu_shares(&format!("{}/kubepods/burstable", self.root), resources::cpu_shares(requested_milli))
    }

    /// Makes a pod's cgroup with the pod's limits. Idempotent.
    pub(crate) fn create_pod(&self, pod: &Pod) -> Result<()> {
        let path = self.pod_parent(pod);
        self.make(&path)?;
        self.set_cpu_shares(&path, resources::cpu_shares(resources::pod_request(pod, "cpu").milli()))?;
        if let Some(limit) = resources::pod_limit(pod, "cpu") {
            let quota = resources::cpu_quota_us(limit.milli());
            match self.unified {
                true => self.set(&path, "", "cpu.max", &format!("{quota} {}", resources::CPU_PERIOD_US))?,
                false => {
                    self.set(&path, "cpu", "cpu.cfs_period_us", &resources::CPU_PERIOD_US.to_string())?;
                    self.set(&path, "cpu", "cpu.cfs_quota_us", &quota.to_string())?;
                }
            }
        }
        if let Some(limit) = resources::pod_limit(pod, "memory").map(Amount::units) {
            match self.unified {
                true => self.set(&path, "", "memory.max", &limit.to_string())?,
                false => self.set(&path, "memory", "memory.limit_in_bytes", &limit.to_string())?,
            }
        }
        Ok(())
    }

    /// Removes a stopped pod's cgroup from every controller. A runtime that is killed while it starts or removes a container forgets
    /// its processes: those still in the cgroup are killed, and the removal is an error until they are gone.
    pub(crate) fn remove_pod(&self, uid: &str) -> Result<()> {
        for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
            let path = self.pod_path(qos, uid);
            if let Err(error) = self.remove(&path) {
                for tree in self.trees() {
                    kill_processes(&tree.join(path.trim_start_matches('/')));
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// The UIDs of all pods that have a cgroup.
    pub(crate) fn pods(&self) -> Vec<String> {
        let mut found = Vec::new();
        for class in ["kubepods", "kubepods/burstable", "kubepods/besteffort"] {
            let directory = self.trees().first().map(|tree| tree.join(self.root.trim_start_matches('/')).join(class));
            let entries = directory.and_then(|d| std::fs::read_dir(d).ok());
            found.extend(
                entries
                    .into_iter()
                    .flatten()
                    .flatten()
                    .filter_map(|e| e.file_name().to_string_lossy().strip_prefix("pod").map(str::to_string)),
            );
        }
        found
    }

    /// Removes the whole tree, for clean-up. Fails on what still runs.
    pub(crate) fn remove_all(&self) -> Result<()> {
        self.remove(&format!("{}/kubepods", self.root))
    }

    fn set_cpu_shares(&self, path: &str, shares: i64) -> Result<()> {
        match self.unified {
            // The kernel's and upstream's formula from 2..262144 to 1..10000.
            true => self.set(path, "", "cpu.weight", &(1 + ((shares - 2) * 9999) / 262_142).to_string()),
            false => self.set(path, "cpu", "cpu.shares", &shares.to_string()),
        }
    }

    fn set(&self, path: &str, controller: &str, file: &str, value: &str) -> Result<()> {
        let target = Path::new(MOUNT).join(controller).join(path.trim_start_matches('/')).join(file);
        std::fs::write(&target, value).map_err(Error::io(format!("write {value} to {}", target.display())))
    }

    fn make(&self, path: &str) -> Result<()> {
        let relative = path.trim_start_matches('/');
        let trees: Vec<PathBuf> = if self.unified { vec![MOUNT.into()] } else { OURS.iter().map(|c| Path::new(MOUNT).join(c)).collect() };
        for tree in trees {
            let full = tree.join(relative);
            std::fs::create_dir_all(&full).map_err(Error::io(format!("create cgroup {}", full.display())))?;
            if self.unified {
                self.delegate(&tree, relative);
            }
        }
        Ok(())
    }

    /// Under v2 a controller must be switched on in every ancestor. What the machine refuses shows when a limit is set.
    fn delegate(&self, tree: &Path, relative: &str) {
        let mut current = tree.to_path_buf();
        for part in std::iter::once("").chain(relative.split('/')) {
            current.push(part);
            for controller in ["cpu", "memory", "pids", "cpuset", "io", "hugetlb"] {
                let _ = std::fs::write(current.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
    }

    /// Every tree in which a cgroup may have been made, by us or by the runtime below ours.
    fn trees(&self) -> Vec<PathBuf> {
        if self.unified {
            return vec![MOUNT.into()];
        }
        let mut trees: Vec<PathBuf> =
            std::fs::read_dir(MOUNT).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir() && !p.is_symlink()).collect();
        trees.sort_by_key(|tree| !tree.ends_with("cpu"));
        trees
    }

    fn remove(&self, path: &str) -> Result<()> {
        for tree in self.trees() {
            let full = tree.join(path.trim_start_matches('/'));
            if full.exists() {
                remove_tree(&full).map_err(Error::io(format!("remove cgroup {}", full.display())))?;
            }
        }
        Ok(())
    }
}

/// SIGKILL to every process in a cgroup and below.
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
        tracing::warn!(pid, cgroup = %path.display(), ?outcome, "killed what a dead pod had left");
    }
}

/// Children first; the files in a cgroup go with its directory.
fn remove_tree(path: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(path)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match std::fs::remove_dir(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
