//! Control groups: the unified hierarchy (v2), or one hierarchy for each controller (v1).

use std::fs;

use super::finding::Finding;

const UNIFIED: &str = "/sys/fs/cgroup/cgroup.controllers";
const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];

pub(super) fn look() -> Vec<Finding> {
    let (kind, available) = match fs::read_to_string(UNIFIED) {
        Ok(text) => ("v2", text.split_whitespace().map(str::to_owned).collect()),
        Err(_) => ("v1", separate(&fs::read_to_string("/proc/self/cgroup").unwrap_or_default())),
    };
    vec![judge(kind, &available)]
}

/// Controllers that are mounted, from lines such as `4:cpu,cpuacct:/`.
fn separate(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.split(':').nth(1)).flat_map(|names| names.split(',')).map(str::to_owned).collect()
}

fn judge(kind: &str, available: &[String]) -> Finding {
    let missing: Vec<&str> = NEEDED.into_iter().filter(|name| !available.iter().any(|a| a == name)).collect();
    let subject = format!("cgroups ({kind})");
    if missing.is_empty() {
        return Finding::fine(subject, format!("{} are there", NEEDED.join(", ")));
    }
    let remedy = if missing.contains(&"memory") {
        "boot the kernel with cgroup_enable=memory (Raspberry Pi: /boot/firmware/cmdline.txt), or mount /sys/fs/cgroup"
    } else {
        "mount the controllers below /sys/fs/cgroup, or boot with systemd.unified_cgroup_hierarchy=1"
    };
    Finding::fatal(subject, format!("no {}: limits of pods cannot be kept", missing.join(", ")), remedy)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_missing_controller_is_named() {
        let found = separate("12:pids:/\n4:cpu,cpuacct:/\n0::/\n");
        let finding = judge("v1", &found);
        assert_eq!(finding.verdict, Verdict::Fatal);
        assert!(finding.found.starts_with("no memory:") && finding.remedy.contains("cgroup_enable=memory"), "{finding:?}");
    }
}
