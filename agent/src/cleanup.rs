//! Takes a stopped node off its host: its pods, mounts, rules, links and changed settings. Removes only pods that have a folder
//! in *this* data directory, and only host objects that the journal names.

use std::path::{Path, PathBuf};

use trireme_cni::netlink::Netlink;

use crate::{
    error::Error,
    host::kernel,
    journal::{HostObject, Journal},
    lock::FolderLock,
    network,
};

/// Removes everything of the node with this data directory. Goes on after a failure and returns the first one.
pub async fn cleanup(data_dir: &Path, runtime_endpoint: &Path, cgroup_root: &str) -> Result<(), Error> {
    let agent_dir = data_dir.join("agent");
    if !agent_dir.exists() {
        return Ok(());
    }
    // A running node is stopped first.
    let _lock = FolderLock::take(&agent_dir)?;
    let mut journal = Journal::open(&agent_dir).map_err(|e| Error::Host(format!("data directory {}: {e}", agent_dir.display())))?;
    let mut failures = Vec::new();
    if let Err(error) = network::adopt_plugin(&agent_dir) {
        failures.push(error);
    }
    let network = serve_removals(&agent_dir).await;
    let others = journal.objects().filter_map(|object| if let HostObject::KubeletRoot(path) = object { Some(path.clone()) } else { None });
    let roots: Vec<PathBuf> = others.chain([agent_dir.clone()]).collect();
    for root in &roots {
        let cleaned = trireme_kubelet::clean_up(root, &agent_dir.join("logs"), runtime_endpoint.to_owned(), cgroup_root).await;
        if let Err(error) = cleaned {
            failures.push(Error::Host(format!("remove pods: {error}")));
        }
    }
    drop(network);
    for mount in roots.iter().flat_map(|root| mounts_below(root)) {
        if let Err(error) = nix::mount::umount2(&mount, nix::mount::MntFlags::MNT_DETACH) {
            failures.push(Error::Host(format!("unmount {}: {error}", mount.display())));
        }
    }
    for object in journal.objects() {
        if let Err(error) = remove(object).await {
            failures.push(Error::Host(format!("remove {object}: {error}")));
        }
    }
    match failures.into_iter().next() {
        Some(first) => Err(first),
        None => journal.clear().map_err(|e| Error::Host(e.to_string())),
    }
}

/// While pods are stopped the runtime calls the CNI plugin once more for each: a server must answer the plugin.
async fn serve_removals(agent_dir: &Path) -> Option<tokio_util::sync::DropGuard> {
    let options = network::options(agent_dir, String::new(), std::net::Ipv4Addr::UNSPECIFIED, trireme_cni::Backend::HostGw, true);
    let network = trireme_cni::Network::new(options, None).await.ok()?;
    let listener = trireme_cni::server::bind(&agent_dir.join(network::CNI_SOCKET)).ok()?;
    let cancel = tokio_util::sync::CancellationToken::new();
    tokio::spawn(trireme_cni::server::serve(listener, network, cancel.clone()));
    Some(cancel.drop_guard())
}

async fn remove(object: &HostObject) -> Result<(), String> {
    let netlink = || Netlink::connect().map_err(|e| e.to_string());
    let parsed = |text: &str| text.parse().map_err(|_| format!("{text} is no network"));
    match object {
        HostObject::Link(name) => netlink()?.delete_link(name).await.map_err(|e| e.to_string()),
        HostObject::NftTable(name) => trireme_nft::remove_table(trireme_nft::Family::Ip, name).await.map_err(|e| e.to_string()),
        HostObject::Address(link, address) => netlink()?.delete_address(link, parsed(address)?).await.map_err(|e| e.to_string()),
        HostObject::ServiceRoute(network) => netlink()?.delete_fallback_route(parsed(network)?).await.map_err(|e| e.to_string()),
        HostObject::FirewallRules => trireme_nft::firewall::close().await.map_err(|e| e.to_string()),
        HostObject::Sysctl(path, before) => kernel::restore(path, before).map_err(|e| e.to_string()),
        // Its pods are gone; what drivers keep there is theirs.
        HostObject::KubeletRoot(path) => match std::fs::remove_dir(path.join("pods")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
            _ => Ok(()),
        },
    }
}

/// Mount points below a folder, deepest first.
fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4)).map(|p| PathBuf::from(unescape(p)));
    let mut below: Vec<PathBuf> = points.filter(|p| p.starts_with(folder) && p != folder).collect();
    below.sort();
    below.reverse();
    below
}

/// The kernel writes blanks in mount points as octal.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}
