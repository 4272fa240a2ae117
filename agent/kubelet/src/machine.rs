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
    /// Reads the facts. A fact that cannot be read stays empty: a container without DMI is still a node.
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
        let of = |n: i64| Amount::from_units(n);
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

/// How much of something there is, and how much of it is free: bytes, inodes or process ids.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Space {
    pub(crate) free: i64,
    pub(crate) total: i64,
}

/// A file system's room.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Disk {
    pub(crate) bytes: Space,
    pub(crate) inodes: Space,
}

/// Bytes of memory that could be had without swapping.
pub(crate) fn memory_available() -> i64 {
    read("/proc/meminfo")
        .lines()
        .find_map(|l| l.strip_prefix("MemAvailable:")?.trim().strip_suffix("kB")?.trim().parse::<i64>().ok())
        .unwrap_or(i64::MAX / 1024)
        .saturating_mul(1024)
}

/// The room of the file system at `path` that is left to users other than root; None where it cannot be asked.
pub(crate) fn disk(path: &Path) -> Option<Disk> {
    let fs = nix::sys::statvfs::statvfs(path).ok()?;
    let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(fs.fragment_size())).unwrap_or(i64::MAX);
    let count = |inodes: u64| i64::try_from(inodes).unwrap_or(i64::MAX);
    Some(Disk {
        bytes: Space { free: bytes(fs.blocks_available()), total: bytes(fs.blocks()) },
        inodes: Space { free: count(fs.files_available()), total: count(fs.files()) },
    })
}

/// Process ids of this machine that are not in use, of `max`.
pub(crate) fn pids(max: i64) -> Space {
    let running = read("/proc/loadavg").split(['/', ' ']).nth(4).and_then(|n| n.parse::<i64>().ok()).unwrap_or_default();
    Space { free: max.saturating_sub(running), total: max }
}
