//! Ports of this host that lead to pods (`hostPort`).
//!
//! Owns the table `ip trireme_host_ports` and the file that says what is mapped, so that mappings outlive a restart of the agent.
//! The kubelet says which mappings there are. Services come first: their rules stand before these.
//!
//! A client on this host, the pod itself, and pods on the same bridge reach the port too; their source address becomes the node's, or
//! the answer would not pass the rules that undo the mapping. For 127.0.0.1 the bridge needs `route_localnet`, which would open the
//! host's loopback services to pods: a rule of this table drops what comes for 127.0.0.0/8 from any other link.
//!
//! Answers to `hostPort` and `hostIP` of
//! <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#ports>, and to the CNI plugin `portmap`.

mod rules;
mod saved;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use trireme_nft::{Family, OwnedTable, conntrack, events::Events};

use crate::services::Protocol;

/// The table's name (family `ip`).
pub const TABLE: &str = "trireme_host_ports";
/// After a failure to load the rules.
const RETRY: Duration = Duration::from_secs(1);
/// Notifications that arrive within this time are looked at together.
const COALESCE: Duration = Duration::from_millis(20);

/// One port of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mapping {
    /// On both sides.
    pub protocol: Protocol,
    /// The host's address; all of them if none is given.
    pub host_ip: Option<Ipv4Addr>,
    /// The host's port.
    pub host_port: u16,
    /// The pod's port.
    pub container_port: u16,
}

impl Mapping {
    fn overlaps(&self, other: &Mapping) -> bool {
        let same_address = match (self.host_ip, other.host_ip) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        same_address && self.protocol == other.protocol && self.host_port == other.host_port
    }
}

/// What one pod has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PodPorts {
    address: Ipv4Addr,
    mappings: Vec<Mapping>,
}

/// The mappings of this node's pods.
pub struct HostPorts {
    bridge: String,
    file: PathBuf,
    state: Mutex<State>,
}

struct State {
    table: OwnedTable,
    pods: BTreeMap<String, Entry>,
}

struct Entry {
    ports: PodPorts,
    /// Read from the file, and not set since: any pod that asks for the same port gets it.
    is_old: bool,
}

impl HostPorts {
    /// Mappings from before a restart of the agent stay in force; after a reboot there are none. `bridge` is the link that pods are
    /// attached to, `file` is where mappings are kept.
    pub fn open(bridge: &str, file: &Path) -> Result<Self, crate::Error> {
        let table = OwnedTable::new(Family::Ip, TABLE)?;
        let pods = saved::read(file).into_iter().map(|(uid, ports)| (uid, Entry { ports, is_old: true })).collect();
        Ok(Self { bridge: bridge.to_owned(), file: file.to_owned(), state: Mutex::new(State { table, pods }) })
    }

    /// Makes a pod's mappings exactly these.
    pub async fn set(&self, pod: &str, address: Ipv4Addr, mappings: &[Mapping]) -> Result<(), String> {
        let mut state = self.state.lock().await;
        let mut replaced = Vec::new();
        for (other, entry) in state.pods.iter().filter(|(other, _)| other.as_str() != pod) {
            let taken = mappings.iter().find(|m| entry.ports.mappings.iter().any(|o| o.overlaps(m)));
            match taken {
                Some(_) if entry.is_old => replaced.push(other.clone()),
                Some(m) => return Err(format!("host port {}/{} is in use by the pod with UID {other}", m.host_port, m.protocol)),
                None => {}
            }
        }
        let ports = PodPorts { address, mappings: mappings.to_vec() };
        let is_known = state.pods.get(pod).is_some_and(|entry| entry.ports == ports) && state.table.is_intact();
        for other in replaced {
            state.pods.remove(&other);
        }
        state.pods.insert(pod.to_owned(), Entry { ports, is_old: false });
        if is_known {
            return Ok(());
        }
        self.write(&mut state).await?;
        for mapping in mappings.iter().filter(|m| m.protocol == Protocol::Udp) {
            conntrack::forget_udp_port(mapping.host_port).await;
        }
        Ok(())
    }

    /// Removes all mappings of a pod; one that has none is no error.
    pub async fn clear(&self, pod: &str) -> Result<(), String> {
        let mut state = self.state.lock().await;
        match state.pods.remove(pod) {
            Some(_) => self.write(&mut state).await,
            None => Ok(()),
        }
    }

    /// Loads what is mapped, and again whenever another program removes the rules, until cancelled. The rules stay when it ends.
    pub async fn run(&self, cancel: CancellationToken) -> Result<(), crate::Error> {
        // A subscription of its own: the table's is behind the lock.
        let events = Events::open()?;
        loop {
            let loaded = self.load_if_gone().await;
            let wait = async {
                match loaded {
                    Ok(()) => drop(events.next().await),
                    Err(error) => {
                        tracing::warn!(%error, "host ports are not mapped, trying again");
                        tokio::time::sleep(RETRY).await;
                    }
                }
                tokio::time::sleep(COALESCE).await;
            };
            tokio::select! {
                () = wait => drop(events.drain()),
                () = cancel.cancelled() => return Ok(()),
            }
        }
    }

    async fn load_if_gone(&self) -> Result<(), crate::Error> {
        let mut state = self.state.lock().await;
        if state.table.is_intact() || state.pods.is_empty() { Ok(()) } else { self.load(&mut state).await }
    }

    async fn write(&self, state: &mut State) -> Result<(), String> {
        let pods = state.pods.iter().map(|(uid, entry)| (uid.clone(), entry.ports.clone())).collect();
        saved::write(&self.file, pods).map_err(|e| format!("{}: {e}", self.file.display()))?;
        self.load(state).await.map_err(|e| e.to_string())
    }

    async fn load(&self, state: &mut State) -> Result<(), crate::Error> {
        let mut transaction = state.table.transaction();
        rules::load(&mut transaction, &self.bridge, state.pods.values().map(|entry| &entry.ports));
        state.table.commit(&transaction).await?;
        if !state.pods.is_empty() {
            self.route_loopback();
        }
        Ok(())
    }

    /// Lets packets from 127.0.0.1 leave through the bridge. The setting goes with the link.
    fn route_loopback(&self) {
        let path = format!("/proc/sys/net/ipv4/conf/{}/route_localnet", self.bridge);
        match std::fs::write(&path, "1") {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, path, "host ports are not served on 127.0.0.1");
            }
            _ => {}
        }
    }
}
