//! The cgroups between the root and a pod's containers: `<root>/kubepods[/burstable|/besteffort]/pod<uid>`, or the same as slices.
//!
//! Containers' own cgroups are the runtime's, and the runtime decides who makes cgroups on this host: the kubelet asks it for its
//! driver and follows. Works with cgroup v1 (each controller its own tree) and v2. Never touches a cgroup outside the root it was given.
//! Answers to <https://kubernetes.io/docs/setup/production-environment/container-runtimes/#cgroup-drivers>.

mod limits;
mod name;
mod systemd;
mod tree;

use std::{path::Path, sync::OnceLock};

use k8s_openapi::api::core::v1::Pod;
use trireme_proto::cri::CgroupDriver;

use crate::{
    amount::Amount,
    container::resources,
    error::Result,
    pod::spec::{self, Qos},
};
use limits::{Bound, Limits};
use name::Name;
use systemd::Systemd;
use tree::Tree;

const MOUNT: &str = "/sys/fs/cgroup";
const KUBEPODS: &str = "kubepods";
const CLASSES: [Qos; 3] = [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort];

/// Who makes cgroups.
#[derive(Clone, Debug)]
enum Driver {
    Cgroupfs,
    Systemd(Systemd),
}

/// The tree below one root.
#[derive(Debug)]
pub(crate) struct Cgroups {
    root: Name,
    tree: Tree,
    /// Known once the runtime has answered.
    driver: OnceLock<Driver>,
}

impl Cgroups {
    pub(crate) fn new(root: &str) -> Cgroups {
        Cgroups::below(root, Path::new(MOUNT))
    }

    /// The same for a tree mounted elsewhere.
    pub(crate) fn below(root: &str, mount: &Path) -> Cgroups {
        Cgroups { root: Name::parse(root), tree: Tree::new(mount), driver: OnceLock::new() }
    }

    /// Follows the runtime's driver from now on. An error where this host cannot: the node must not take pods then.
    pub(crate) fn follow(&self, driver: CgroupDriver) -> Result<()> {
        let driver = match driver {
            CgroupDriver::Cgroupfs => Driver::Cgroupfs,
            CgroupDriver::Systemd => Driver::Systemd(Systemd::connect()?),
        };
        let _ = self.driver.set(driver);
        Ok(())
    }

    /// Whether this is the driver that is followed.
    pub(crate) fn follows(&self, driver: CgroupDriver) -> bool {
        match self.driver.get() {
            None => true,
            Some(Driver::Cgroupfs) => driver == CgroupDriver::Cgroupfs,
            Some(Driver::Systemd(_)) => driver == CgroupDriver::Systemd,
        }
    }

    /// The cgroup that a pod's containers are children of, as the runtime wants it.
    pub(crate) fn pod_parent(&self, pod: &Pod) -> String {
        format!("/{}", self.path(&self.pod_name(spec::qos(pod), spec::uid(pod))))
    }

    fn class_name(&self, qos: Qos) -> Name {
        let kubepods = self.root.child(KUBEPODS);
        match qos {
            Qos::Guaranteed => kubepods,
            Qos::Burstable => kubepods.child("burstable"),
            Qos::BestEffort => kubepods.child("besteffort"),
        }
    }

    fn pod_name(&self, qos: Qos, uid: &str) -> Name {
        self.class_name(qos).child(&format!("pod{uid}"))
    }

    fn path(&self, name: &Name) -> String {
        match self.driver.get() {
            Some(Driver::Systemd(_)) => name.slices(),
            _ => name.cgroupfs(),
        }
    }

    fn make(&self, name: &Name, limits: &Limits) -> Result<()> {
        match self.driver.get() {
            Some(Driver::Systemd(systemd)) => systemd.make(&self.tree, name, limits),
            _ => {
                let path = name.cgroupfs();
                self.tree.make(&path)?;
                self.tree.set(&path, limits)
            }
        }
    }

    fn set(&self, name: &Name, limits: &Limits) -> Result<()> {
        match self.driver.get() {
            Some(Driver::Systemd(systemd)) => systemd.set(&self.tree, name, limits),
            _ => self.tree.set(&name.cgroupfs(), limits),
        }
    }

    /// Makes `kubepods` and the classes. Pods together get what the node allocates to them and no more; best effort pods together get
    /// the least weight there is.
    pub(crate) fn prepare(&self, cpu: Amount, memory: Amount) -> Result<()> {
        let allocatable = Limits {
            cpu_shares: Some(resources::cpu_shares(cpu.milli())),
            memory_bytes: Some(Bound::from(Some(memory.units()).filter(|bytes| *bytes > 0))),
            ..Limits::default()
        };
        self.make(&self.class_name(Qos::Guaranteed), &allocatable)?;
        self.make(&self.class_name(Qos::Burstable), &Limits::default())?;
        let least = Limits { cpu_shares: Some(resources::cpu_shares(0)), ..Limits::default() };
        self.make(&self.class_name(Qos::BestEffort), &least)
    }

    /// Burstable pods together weigh as much as they ask for.
    pub(crate) fn set_burstable_cpu(&self, requested_milli: i64) -> Result<()> {
        let limits = Limits { cpu_shares: Some(resources::cpu_shares(requested_milli)), ..Limits::default() };
        self.set(&self.class_name(Qos::Burstable), &limits)
    }

    /// Makes a pod's cgroup with the pod's limits, or sets them on the one that is there.
    pub(crate) fn create_pod(&self, pod: &Pod) -> Result<()> {
        let limits = Limits {
            cpu_shares: Some(resources::cpu_shares(resources::pod_request(pod, "cpu").milli())),
            cpu_quota_us: Some(resources::pod_limit(pod, "cpu").map(|l| resources::cpu_quota_us(l.milli())).into()),
            memory_bytes: Some(resources::pod_limit(pod, "memory").map(Amount::units).into()),
        };
        self.make(&self.pod_name(spec::qos(pod), spec::uid(pod)), &limits)
    }

    /// Removes a stopped pod's cgroup. A runtime that is killed while it starts or removes a container forgets its processes: those
    /// still in the cgroup are killed, and the removal is an error until they are gone.
    pub(crate) fn remove_pod(&self, uid: &str) -> Result<()> {
        for qos in CLASSES {
            let name = self.pod_name(qos, uid);
            if let Err(error) = self.remove(&name) {
                spellings(&name).iter().for_each(|path| self.tree.kill(path));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whichever driver made it: a pod that runs while the runtime's driver is changed keeps the cgroup it has.
    fn remove(&self, name: &Name) -> Result<()> {
        if self.tree.exists(&name.slices())
            && let Ok(systemd) = Systemd::connect()
        {
            systemd.stop(name)?;
        }
        spellings(name).iter().try_for_each(|path| self.tree.remove(path))
    }

    /// The processes and threads of a pod; none where its cgroup does not count them.
    pub(crate) fn pids(&self, pod: &Pod) -> i64 {
        let name = self.pod_name(spec::qos(pod), spec::uid(pod));
        spellings(&name).iter().find_map(|path| self.tree.pids(path)).unwrap_or_default()
    }

    /// The UIDs of all pods that have a cgroup.
    pub(crate) fn pods(&self) -> Vec<String> {
        let classes = CLASSES.iter().flat_map(|qos| spellings(&self.class_name(*qos)));
        let mut uids: Vec<String> = classes.flat_map(|path| self.tree.children(&path)).filter_map(|child| name::pod_uid(&child)).collect();
        uids.sort();
        uids.dedup();
        uids
    }

    /// Removes the whole tree, for clean-up. Fails on what still runs.
    pub(crate) fn remove_all(&self) -> Result<()> {
        CLASSES.iter().rev().try_for_each(|qos| self.remove(&self.class_name(*qos)))
    }
}

/// Where the two drivers have a cgroup.
fn spellings(name: &Name) -> [String; 2] {
    [name.slices(), name.cgroupfs()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({"metadata": {"uid": "1-2"}, "spec": {"containers": [{"name": "a", "resources": {
            "requests": {"cpu": "250m"}, "limits": {"cpu": "1.5", "memory": "64Mi"}}}]}}))
        .unwrap()
    }

    fn prepared(mount: &Path) -> Cgroups {
        let cgroups = Cgroups::below("/r", mount);
        cgroups.follow(CgroupDriver::Cgroupfs).unwrap();
        cgroups.prepare(Amount::from_units(2), Amount::from_units(1 << 30)).unwrap();
        cgroups.create_pod(&pod()).unwrap();
        cgroups
    }

    #[test]
    fn d13_cgroup_v2_gets_its_own_files_and_node_allocatable_is_enforced() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cgroup.controllers"), "cpu memory").unwrap();
        let cgroups = prepared(dir.path());
        let read = |file: &str| std::fs::read_to_string(dir.path().join("r/kubepods").join(file)).unwrap();
        assert_eq!((read("memory.max"), read("cpu.weight")), ((1 << 30).to_string(), "79".into()));
        assert_eq!(read("besteffort/cpu.weight"), "1");
        assert_eq!(
            (read("burstable/pod1-2/cpu.max"), read("burstable/pod1-2/memory.max")),
            ("150000 100000".into(), (64 << 20).to_string())
        );
        assert_eq!(cgroups.pod_parent(&pod()), "/r/kubepods/burstable/pod1-2");
        assert_eq!(cgroups.pods(), ["1-2"]);
    }

    #[test]
    fn d13_cgroup_v1_gets_one_tree_for_each_controller() {
        let dir = tempfile::tempdir().unwrap();
        for controller in ["cpu", "memory", "pids"] {
            std::fs::create_dir(dir.path().join(controller)).unwrap();
        }
        let cgroups = prepared(dir.path());
        let read = |file: &str| std::fs::read_to_string(dir.path().join(file)).unwrap();
        assert_eq!(read("memory/r/kubepods/memory.limit_in_bytes"), (1 << 30).to_string());
        assert_eq!(read("cpu/r/kubepods/cpu.shares"), "2048");
        assert_eq!(read("cpu/r/kubepods/burstable/pod1-2/cpu.cfs_quota_us"), "150000");
        assert_eq!(cgroups.pods(), ["1-2"]);
    }

    #[test]
    fn a_pod_of_the_other_driver_is_known_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cgroup.controllers"), "cpu memory").unwrap();
        let cgroups = prepared(dir.path());
        let slice = dir.path().join("r.slice/r-kubepods.slice/r-kubepods-burstable.slice/r-kubepods-burstable-pod3_4.slice");
        std::fs::create_dir_all(&slice).unwrap();
        assert_eq!(cgroups.pods(), ["1-2", "3-4"]);
        cgroups.remove_pod("3-4").unwrap();
        cgroups.remove_pod("1-2").unwrap();
        assert!(cgroups.pods().is_empty());
        cgroups.remove_all().unwrap();
        assert!(!dir.path().join("r/kubepods").exists() && !dir.path().join("r.slice/r-kubepods.slice").exists());
    }

    #[test]
    fn d13_vm_03_with_systemd_the_parent_is_a_slice() {
        let cgroups = Cgroups::below("/", Path::new("/nowhere"));
        cgroups.driver.set(Driver::Systemd(Systemd)).unwrap();
        assert_eq!(cgroups.pod_parent(&pod()), "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice");
    }
}
