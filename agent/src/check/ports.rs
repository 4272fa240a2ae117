//! Ports that must be free. Those of a server or a node of this data directory that runs already are its own, and not looked at.

use std::{
    fs::{File, TryLockError},
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::Path,
};

use super::{Finding, Plan};

const SUBJECT: &str = "ports";
const SERVER: &[(u16, &str)] = &[(6443, "API"), (2379, "etcd API"), (2380, "store peers"), (10257, "controllers"), (10259, "scheduler")];
const NODE: &[(u16, &str)] = &[(10250, "kubelet"), (10256, "proxy health")];
const NODE_LOOPBACK: &[(u16, &str)] = &[(10248, "kubelet health"), (10249, "proxy metrics")];
const VXLAN: u16 = 8472;

pub(super) fn look(plan: &Plan) -> Vec<Finding> {
    // What each holds while it runs.
    let is_server_up = plan.server && is_locked(&plan.data_dir.join("server/db/LOCK"));
    let is_node_up = plan.node && is_locked(&plan.data_dir.join("agent/lock"));
    let mut taken = Vec::new();
    let mut tcp = |ports: &[(u16, &str)], ip: Ipv4Addr| {
        for (port, what) in ports {
            let result = TcpListener::bind(SocketAddr::from((ip, *port)));
            if result.is_err_and(|e| e.kind() == ErrorKind::AddrInUse) {
                taken.push(format!("{port}/tcp ({what})"));
            }
        }
    };
    if plan.server && !is_server_up {
        tcp(SERVER, Ipv4Addr::UNSPECIFIED);
    }
    if plan.node && !is_node_up {
        tcp(NODE, Ipv4Addr::UNSPECIFIED);
        tcp(NODE_LOOPBACK, Ipv4Addr::LOCALHOST);
        let tunnel = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, VXLAN));
        if plan.own_network && tunnel.is_err_and(|e| e.kind() == ErrorKind::AddrInUse) {
            taken.push(format!("{VXLAN}/udp (pod network)"));
        }
    }
    vec![judge(&taken, is_server_up, is_node_up)]
}

fn judge(taken: &[String], is_server_up: bool, is_node_up: bool) -> Finding {
    if !taken.is_empty() {
        let remedy = "stop what listens there (ss -lntup shows it), or run this on another machine";
        return Finding::fatal(SUBJECT, format!("in use: {}", taken.join(", ")), remedy);
    }
    match (is_server_up, is_node_up) {
        (false, false) => Finding::fine(SUBJECT, "free"),
        (true, false) => Finding::fine(SUBJECT, "free, but for those of the server that runs"),
        (false, true) => Finding::fine(SUBJECT, "free, but for those of the node that runs"),
        (true, true) => Finding::fine(SUBJECT, "not looked at: the server and the node run"),
    }
}

/// Whether a process holds the lock on a file. Does not create the file.
fn is_locked(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Verdict;
    use super::*;

    #[test]
    fn who_runs_already_is_known_by_its_lock_and_its_ports_are_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("LOCK");
        assert!(!is_locked(&path) && !path.exists(), "looking makes nothing");
        let held = File::create(&path).unwrap();
        assert!(!is_locked(&path), "a lock that a dead process left behind");
        held.lock().unwrap();
        assert!(is_locked(&path));
        assert_eq!(judge(&[], true, false).verdict, Verdict::Fine);
        let taken = judge(&["10250/tcp (kubelet)".into()], true, false);
        assert_eq!(taken.verdict, Verdict::Fatal);
        assert!(taken.found.contains("10250/tcp (kubelet)") && taken.remedy.contains("ss -lntup"), "{taken:?}");
    }
}
