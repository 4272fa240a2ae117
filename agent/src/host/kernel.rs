//! Kernel settings of a node: those of upstream's kubelet and kube-proxy, and those of the pod network.
//!
//! Each setting's value before goes into the journal, so that cleaning up puts it back. A node in a network namespace of its own shares
//! its kernel with others: there only the settings of that namespace are changed.

use std::{fs, path::Path};

use super::modules;
use crate::{
    error::Error,
    journal::{HostObject, Journal},
};

/// kube-proxy's `--conntrack-max-per-core` and `--conntrack-min`.
const CONNTRACK_PER_CORE: usize = 32_768;
const CONNTRACK_MIN: usize = 131_072;
/// Settings of the whole kernel, with upstream's values: kubelet's first, then kube-proxy's.
const WHOLE_KERNEL: &[(&str, &str)] = &[
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
    ("net/netfilter/nf_conntrack_tcp_timeout_established", "86400"),
    ("net/netfilter/nf_conntrack_tcp_timeout_close_wait", "3600"),
];
/// Exists in the first network namespace alone.
const FIRST_NAMESPACE_ONLY: &str = "/proc/sys/net/core/dev_weight";

/// Loads the modules and sets the settings without which packets do not flow. `bridged`: pods hang on a bridge of ours; `tunnelled`: over VXLAN.
pub fn prepare(journal: &mut Journal, bridged: bool, tunnelled: bool) -> Result<(), Error> {
    for (module, is_needed) in [(modules::OVERLAY, true), (modules::NF_CONNTRACK, true), (modules::VXLAN, tunnelled)] {
        // A missing module is only logged: whatever cannot work without it fails by itself (the runtime, nft, the new link).
        if let (true, Err(tried)) = (is_needed, module.ensure()) {
            tracing::warn!(module = module.name, tried, "kernel module is not loaded; needed for {}", module.purpose);
        }
    }
    set(journal, "net/ipv4/ip_forward", "1")?;
    if bridged {
        let module = modules::BR_NETFILTER;
        module.ensure().map_err(|tried| missing(module, &tried))?;
        set(journal, "net/bridge/bridge-nf-call-iptables", "1")?;
    }
    if Path::new(FIRST_NAMESPACE_ONLY).exists() {
        tune(journal);
    }
    Ok(())
}

/// The line that ends a start.
pub fn missing(module: modules::Module, tried: &str) -> Error {
    let name = module.name;
    Error::Host(format!(
        "kernel module {name} is not loaded, and without it no {}: {tried}; install the kernel's modules, then: modprobe {name} && echo {name} > /etc/modules-load.d/trireme.conf",
        module.purpose.trim_start_matches("a ")
    ))
}

/// What upstream sets and can live without.
fn tune(journal: &mut Journal) {
    for (setting, value) in WHOLE_KERNEL {
        if let Err(error) = set(journal, setting, value) {
            tracing::warn!(%error, "kernel setting stays as it is");
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let wanted = (cores * CONNTRACK_PER_CORE).max(CONNTRACK_MIN);
    let setting = "net/netfilter/nf_conntrack_max";
    let now = fs::read_to_string(Path::new("/proc/sys").join(setting)).ok().and_then(|text| text.trim().parse::<usize>().ok());
    if now.is_some_and(|now| now < wanted)
        && let Err(error) = set(journal, setting, &wanted.to_string())
    {
        tracing::warn!(%error, "kernel setting stays as it is");
    }
}

fn set(journal: &mut Journal, setting: &str, value: &str) -> Result<(), Error> {
    let path = Path::new("/proc/sys").join(setting);
    let failed = |e: std::io::Error| Error::Host(format!("set {} to {value}: {e}", path.display()));
    let before = fs::read_to_string(&path).map_err(failed)?.trim().to_owned();
    if before == value {
        return Ok(());
    }
    journal.record(HostObject::Sysctl(setting.into(), before)).map_err(failed)?;
    fs::write(&path, value).map_err(failed)
}

/// Puts a setting back.
pub fn restore(setting: &str, value: &str) -> std::io::Result<()> {
    fs::write(Path::new("/proc/sys").join(setting), value)
}
