//! The kernel: its version, modules and settings, and who may change them.

use std::path::Path;

use super::finding::Finding;
use crate::host::modules::{self, Module};

/// What upstream's nftables proxy asks for.
const RECOMMENDED: (u32, u32) = (5, 13);
/// Maps with concatenated keys.
const LEAST: (u32, u32) = (5, 6);

pub(super) fn user() -> Finding {
    let user = nix::unistd::geteuid();
    if user.is_root() { Finding::fine("user", "root") } else { Finding::fatal("user", format!("user id {user}"), "run this as root") }
}

pub(super) fn version() -> Finding {
    let release = nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default();
    match parse(&release) {
        Some(version) if version >= RECOMMENDED => Finding::fine("kernel", release),
        Some(version) if version >= LEAST => Finding::warning("kernel", release, "use Linux 5.13 or later"),
        _ => Finding::fatal("kernel", release, "use Linux 5.13 or later"),
    }
}

fn parse(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

pub(super) fn modules(own_network: bool) -> Vec<Finding> {
    let mut wanted = vec![modules::OVERLAY, modules::NF_CONNTRACK];
    if own_network {
        wanted.extend([modules::BR_NETFILTER, modules::VXLAN]);
    }
    wanted.into_iter().map(module).collect()
}

fn module(module: Module) -> Finding {
    let subject = format!("module {}", module.name);
    if module.is_present() {
        return Finding::fine(subject, "present");
    }
    match module.can_be_loaded() {
        true => Finding::fine(subject, "loaded when the node starts"),
        false => Finding::fatal(
            subject,
            format!("not in this kernel; needed for: {}", module.purpose),
            format!(
                "install the kernel's modules (Debian, Ubuntu: the linux-image or linux-modules package of this kernel), then: modprobe {}",
                module.name
            ),
        ),
    }
}

pub(super) fn settings(own_network: bool) -> Vec<Finding> {
    let mut wanted = vec![("net/ipv4/ip_forward", "1")];
    if own_network && Path::new("/proc/sys/net/bridge").exists() {
        wanted.push(("net/bridge/bridge-nf-call-iptables", "1"));
    }
    wanted.into_iter().map(|(setting, value)| self::setting(setting, value)).collect()
}

fn setting(setting: &str, value: &str) -> Finding {
    let path = Path::new("/proc/sys").join(setting);
    let name = setting.rsplit('/').next().unwrap_or(setting);
    let now = std::fs::read_to_string(&path).unwrap_or_default();
    let can_be_set = || std::fs::OpenOptions::new().write(true).open(&path).is_ok();
    if now.trim() == value {
        Finding::fine(name, value)
    } else if can_be_set() {
        Finding::fine(name, format!("{} (set to {value} when the node starts)", now.trim()))
    } else {
        Finding::fatal(
            name,
            format!("{:?}, and it cannot be changed from here", now.trim()),
            format!("sysctl -w {}={value}", setting.replace('/', ".")),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_compared_by_number() {
        assert_eq!(parse("6.1.0-18-cloud-amd64"), Some((6, 1)));
        assert!(parse("5.9.1") < Some(RECOMMENDED) && parse("5.15") >= Some(RECOMMENDED) && parse("x").is_none());
    }
}
