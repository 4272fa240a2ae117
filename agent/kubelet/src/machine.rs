//! Facts about this machine, read once from /proc, /sys and /etc.

use std::{collections::BTreeMap, path::Path};

use crate::amount::{self, Amount};

/// What this machine is and has.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) cpus: i64,
    pub(crate) memory_bytes: i64,
    pub(crate) disk_bytes: i64,
    pub(crate) max_pids: i64,
    pub(crate) machine_id: String,
    pub(crate) system_uuid: String,
    pub(crate) boot_id: String,
    pub(crate) kernel: String,
    pub(crate) os_image: String,
    pub(crate) architecture: &'static str,
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map(|text| text.trim().to_string()).unwrap_or_default()
}

impl Machine {
    /// Looks around. What cannot be read stays empty: a container without DMI is still a node.
    pub(crate) fn look(data_dir: &Path) -> Machine {
        let kb = |key: &str| {
            read("/proc/meminfo")
                .lines()
                .find_map(|l| l.strip_prefix(key)?.trim().strip_suffix("kB")?.trim().parse::<i64>().ok())
                .unwrap_or_default()
        };
        let disk = nix::sys::statvfs::statvfs(data_dir).map(|fs| fs.blocks() as i64 * fs.fragment_size() as i64).unwrap_or_default();
        let os = read("/etc/os-release");
        let os_image = os.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).map(|name| name.trim_matches('"').to_string());
        let machine_id = read("/etc/machine-id");
        let dmi = read("/sys/class/dmi/id/product_uuid");
        Machine {
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as i64),
            memory_bytes: kb("MemTotal:") * 1024,
            disk_bytes: disk,
            max_pids: read("/proc/sys/kernel/pid_max").parse().unwrap_or(32768),
            system_uuid: if dmi.is_empty() { machine_id.clone() } else { dmi },
            machine_id,
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            kernel: read("/proc/sys/kernel/osrelease"),
            os_image: os_image.unwrap_or_else(|| "Linux".into()),
            architecture: if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        }
    }

    /// What the machine has, by resource name.
    pub(crate) fn capacity(&self, max_pods: u32) -> BTreeMap<String, Amount> {
        let of = |n: i64| Amount::from_units(i128::from(n));
        BTreeMap::from([
            ("cpu".into(), of(self.cpus)),
            ("memory".into(), of(self.memory_bytes)),
            ("ephemeral-storage".into(), of(self.disk_bytes)),
            ("pods".into(), of(i64::from(max_pods))),
        ])
    }

    /// What of it pods may have.
    pub(crate) fn allocatable(&self, max_pods: u32, reserved: &BTreeMap<String, String>) -> BTreeMap<String, Amount> {
        let mut all = self.capacity(max_pods);
        for (resource, kept) in reserved {
            if let (Some(have), Some(kept)) = (all.get_mut(resource), amount::parse(kept)) {
                *have = (*have - kept).max(Amount::default());
            }
        }
        all
    }
}

/// Memory that could be had without swapping, and the free and total bytes of the file system at `path`.
pub(crate) fn pressure(path: &Path) -> (i64, i64, i64) {
    let text = read("/proc/meminfo");
    let available = text
        .lines()
        .find_map(|l| l.strip_prefix("MemAvailable:")?.trim().strip_suffix("kB")?.trim().parse::<i64>().ok())
        .unwrap_or(i64::MAX / 1024)
        * 1024;
    let (free, total) = nix::sys::statvfs::statvfs(path)
        .map(|fs| (fs.blocks_available() as i64 * fs.fragment_size() as i64, fs.blocks() as i64 * fs.fragment_size() as i64))
        .unwrap_or((i64::MAX, i64::MAX));
    (available, free, total)
}
