//! A tunnel to every server, opened from here: through it servers reach this node's pods and its kubelet ([`trireme_tunnel`]).
//!
//! Owns what servers may open on this node: addresses of its own pod network, and the kubelet's port. Must not: matter to the node itself.
//! Without tunnels it runs all the same.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use parking_lot::RwLock;
use rand::Rng;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use trireme_client::{HttpsTransport, Informer};

/// Between two attempts to open a tunnel; doubled up to the second value.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// A tunnel that lasted so long was a good one.
const GOOD: Duration = Duration::from_secs(30);
/// Where the kubelet listens.
const KUBELET_PORT: u16 = 10250;

/// What servers may open.
#[derive(Debug)]
struct Reachable {
    node_ip: IpAddr,
    pods: RwLock<Vec<IpNet>>,
}

/// Keeps a tunnel to each of `servers` until cancelled.
pub(crate) async fn run(
    nodes: Arc<Informer<Node>>,
    node_name: String,
    node_ip: IpAddr,
    transport: HttpsTransport,
    mut servers: watch::Receiver<Vec<String>>,
    cancel: CancellationToken,
) {
    let reachable = Arc::new(Reachable { node_ip, pods: RwLock::default() });
    let followed = reachable.clone();
    let name = node_name.clone();
    nodes.on_event(move |event| {
        let node = event.object();
        if node.metadata.name.as_deref() == Some(name.as_str()) {
            *followed.pods.write() = pod_networks(node);
        }
    });
    if let Some(node) = nodes.list().iter().find(|node| node.metadata.name.as_deref() == Some(node_name.as_str())) {
        *reachable.pods.write() = pod_networks(node);
    }
    let mut tunnels: BTreeMap<String, DropGuard> = BTreeMap::new();
    loop {
        let listed = servers.borrow_and_update().clone();
        tunnels.retain(|server, _| listed.contains(server));
        for server in listed {
            tunnels.entry(server.clone()).or_insert_with(|| {
                let end = cancel.child_token();
                tokio::spawn(keep(server, transport.clone(), reachable.clone(), end.clone()));
                end.drop_guard()
            });
        }
        tokio::select! {
            changed = servers.changed() => if changed.is_err() { return },
            () = cancel.cancelled() => return,
        }
    }
}

/// Keeps a tunnel to one server until cancelled.
async fn keep(server: String, transport: HttpsTransport, reachable: Arc<Reachable>, cancel: CancellationToken) {
    let mut wait = RETRY_MIN;
    loop {
        let began = Instant::now();
        if cancel.run_until_cancelled(once(&server, &transport, &reachable, &cancel)).await.is_none() {
            return;
        }
        wait = if began.elapsed() >= GOOD { RETRY_MIN } else { (wait * 2).min(RETRY_MAX) };
        // All nodes lose a server at the same time.
        let wait = wait.mul_f64(rand::rng().random_range(0.5..1.0));
        if cancel.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
    }
}

async fn once(server: &str, transport: &HttpsTransport, reachable: &Arc<Reachable>, cancel: &CancellationToken) {
    let io = match transport.upgrade(server, trireme_tunnel::PATH, trireme_tunnel::PROTOCOL).await {
        Ok(io) => io,
        Err(error) => return tracing::debug!(server, %error, "no tunnel to this server"),
    };
    tracing::debug!(server, "tunnel is open");
    let reachable = reachable.clone();
    let allowed = Arc::new(move |address| reachable.allows(address));
    match trireme_tunnel::serve(io, allowed, cancel.clone()).await {
        Ok(()) => tracing::debug!(server, "tunnel has ended"),
        Err(error) => tracing::debug!(server, %error, "tunnel broke"),
    }
}

fn pod_networks(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let all = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    all.filter_map(|network| network.parse().ok()).collect()
}

// === impl Reachable ===

impl Reachable {
    fn allows(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let is_kubelet = ip == self.node_ip && address.port() == KUBELET_PORT;
        is_kubelet || self.pods.read().iter().any(|network| network.contains(&ip))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::NodeSpec;

    use super::*;

    #[test]
    fn a_server_reaches_this_nodes_pods_and_its_kubelet_and_nothing_else() {
        let spec = NodeSpec { pod_cidr: Some("10.42.1.0/24".into()), pod_cidrs: Some(vec!["10.42.1.0/24".into()]), ..Default::default() };
        let node = Node { spec: Some(spec), ..Default::default() };
        let reachable = Reachable { node_ip: "192.168.7.2".parse().unwrap(), pods: RwLock::new(pod_networks(&node)) };
        for good in ["10.42.1.7:8080", "192.168.7.2:10250", "[::ffff:10.42.1.7]:80"] {
            assert!(reachable.allows(good.parse().unwrap()), "{good}");
        }
        for bad in ["10.42.2.7:8080", "192.168.7.2:22", "192.168.7.3:10250", "127.0.0.1:10250", "169.254.169.254:80", "[::1]:80"] {
            assert!(!reachable.allows(bad.parse().unwrap()), "{bad}");
        }
        let new = Reachable { node_ip: "192.168.7.2".parse().unwrap(), pods: RwLock::new(pod_networks(&Node::default())) };
        assert!(!new.allows("10.42.1.7:8080".parse().unwrap()), "a node without a network opens none");
    }
}
