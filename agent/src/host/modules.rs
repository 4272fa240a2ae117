//! Kernel modules that a node needs.
//!
//! A kernel may have what a module brings built in, and then there is nothing to load. So each is judged by what it brings
//! (a setting, a file system, a folder below `/sys/module`), and `modprobe` is run only where that is missing.

use std::{
    path::Path,
    process::{Command, Stdio},
};

/// One module.
#[derive(Debug, Clone, Copy)]
pub struct Module {
    /// Its name.
    pub name: &'static str,
    /// What needs it.
    pub purpose: &'static str,
    brings: Brings,
}

#[derive(Debug, Clone, Copy)]
enum Brings {
    /// A file below `/proc/sys`.
    Setting(&'static str),
    /// A line of `/proc/filesystems`.
    FileSystem(&'static str),
    /// Nothing else to be seen: `/sys/module`, or the list of built-in modules.
    ModuleOnly,
}

/// Lets rules see what crosses the bridge.
pub const BR_NETFILTER: Module = Module {
    name: "br_netfilter",
    purpose: "a pod reaches a Service whose endpoint is on the same node",
    brings: Brings::Setting("net/bridge/bridge-nf-call-iptables"),
};
/// Tracks connections.
pub const NF_CONNTRACK: Module =
    Module { name: "nf_conntrack", purpose: "Services", brings: Brings::Setting("net/netfilter/nf_conntrack_max") };
/// Container file systems.
pub const OVERLAY: Module = Module { name: "overlay", purpose: "container file systems", brings: Brings::FileSystem("overlay") };
/// Tunnels to other nodes.
pub const VXLAN: Module = Module { name: "vxlan", purpose: "pods on other nodes (--flannel-backend vxlan)", brings: Brings::ModuleOnly };

impl Module {
    /// Whether the kernel has it now.
    pub fn is_present(&self) -> bool {
        match self.brings {
            Brings::Setting(path) => Path::new("/proc/sys").join(path).exists(),
            Brings::FileSystem(name) => {
                let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
                known.lines().any(|line| line.split_whitespace().last() == Some(name))
            }
            Brings::ModuleOnly => Path::new("/sys/module").join(self.name).exists() || is_built_in(self.name),
        }
    }

    /// Whether `modprobe` finds it; loads nothing.
    pub fn can_be_loaded(&self) -> bool {
        let tried = Command::new("modprobe").args(["--dry-run", "--quiet", self.name]).stdin(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    }

    /// Loads it if the kernel does not have it. The error says what was tried.
    pub fn ensure(&self) -> Result<(), String> {
        if self.is_present() {
            return Ok(());
        }
        let tried = match Command::new("modprobe").arg(self.name).output() {
            Ok(output) => String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().trim().to_owned(),
            Err(error) => format!("modprobe: {error}"),
        };
        if self.is_present() { Ok(()) } else { Err(if tried.is_empty() { "modprobe loads it to no effect".to_owned() } else { tried }) }
    }
}

fn is_built_in(module: &str) -> bool {
    let release = nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default();
    let list = std::fs::read_to_string(format!("/lib/modules/{release}/modules.builtin")).unwrap_or_default();
    list.lines().any(|line| line.rsplit('/').next().and_then(|file| file.strip_suffix(".ko")) == Some(module))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d05_vm_01_a_module_that_cannot_be_loaded_is_an_error_that_says_what_was_tried() {
        let missing = Module { name: "trireme_no_such_module", purpose: "nothing", brings: Brings::ModuleOnly };
        assert!(!missing.is_present());
        assert!(missing.ensure().is_err_and(|tried| !tried.is_empty()));
        let built_in = Module { name: "trireme_no_such_module", purpose: "nothing", brings: Brings::Setting("kernel/hostname") };
        assert!(built_in.ensure().is_ok(), "what the kernel has needs no module");
    }
}
