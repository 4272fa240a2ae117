//! The tunnels that agents have opened to this server, and when one is used.
//!
//! Owns the choice between a tunnel and a direct connection. Where a node has no tunnel (it is new, or the tunnel just broke), or does not
//! open the address through it (a pod of the host's network), the connection is made directly. A tunnel leads to nothing that a direct
//! connection of the same caller would not have led to: callers judge addresses before they come here, and the agent judges them again.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;
use trireme_tunnel::Dialer;

use super::{Egress, Place, Stream};

/// Tunnels that one node may hold to this server: an old one and its successor, and one more through a balancer.
const OF_ONE_NODE: usize = 3;

/// Which connections use tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelUse {
    /// For nothing; agents that ask for one are refused.
    Nothing,
    /// Only connections to kubelets.
    Kubelets,
    /// Connections to kubelets and to pods.
    KubeletsAndPods,
}

/// The open tunnels of this server.
pub struct Tunnels {
    used_for: TunnelUse,
    direct: Arc<dyn Egress>,
    /// By node, the newest last.
    open: RwLock<HashMap<String, Vec<Entry>>>,
}

struct Entry {
    dialer: Arc<Dialer>,
    end: CancellationToken,
}

/// A tunnel that counts as open until this is dropped.
pub struct OpenTunnel {
    tunnels: Arc<Tunnels>,
    node: String,
    dialer: Arc<Dialer>,
    end: CancellationToken,
}

// === impl Tunnels ===

impl Tunnels {
    /// Starts without tunnels. Connections that use no tunnel go through `direct`.
    pub fn new(used_for: TunnelUse, direct: Arc<dyn Egress>) -> Tunnels {
        Tunnels { used_for, direct, open: RwLock::default() }
    }

    /// Whether agents may open tunnels.
    pub fn are_used(&self) -> bool {
        self.used_for != TunnelUse::Nothing
    }

    /// Takes a tunnel of `node`, which has proved its identity. The oldest of too many ends.
    pub fn open(self: &Arc<Self>, node: &str, dialer: Dialer) -> OpenTunnel {
        let (dialer, end) = (Arc::new(dialer), CancellationToken::new());
        let mut open = self.open.write();
        let of_node = open.entry(node.to_owned()).or_default();
        of_node.retain(|entry| !entry.dialer.is_closed());
        if of_node.len() >= OF_ONE_NODE {
            of_node.remove(0).end.cancel();
        }
        of_node.push(Entry { dialer: dialer.clone(), end: end.clone() });
        OpenTunnel { tunnels: self.clone(), node: node.to_owned(), dialer, end }
    }

    /// How many nodes have a tunnel.
    pub fn nodes(&self) -> usize {
        self.open.read().len()
    }

    /// The newest tunnel that leads to `place` and is to be used for it.
    fn to(&self, place: &Place) -> Option<Arc<Dialer>> {
        let node = match (place, self.used_for) {
            (Place::Kubelet(node), TunnelUse::Kubelets | TunnelUse::KubeletsAndPods) | (Place::Pod(node), TunnelUse::KubeletsAndPods) => {
                node
            }
            _ => return None,
        };
        self.open.read().get(node)?.iter().rev().find(|entry| !entry.dialer.is_closed()).map(|entry| entry.dialer.clone())
    }
}

impl Egress for Tunnels {
    fn connect(&self, host: &str, port: u16, place: &Place) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port));
        let directly = self.direct.connect(host, port, place);
        let (Some(dialer), Ok(address)) = (self.to(place), address) else { return directly };
        async move {
            match dialer.dial(address).await {
                Ok(stream) => Ok(Box::new(stream) as Box<dyn Stream>),
                Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::BrokenPipe) => {
                    tracing::debug!(%error, "not through the tunnel, trying directly");
                    directly.await
                }
                Err(error) => Err(error),
            }
        }
        .boxed()
    }
}

// === impl OpenTunnel ===

impl OpenTunnel {
    /// Resolves when newer tunnels of the node have taken its place.
    pub async fn displaced(&self) {
        self.end.cancelled().await;
    }
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        let mut open = self.tunnels.open.write();
        if let Some(of_node) = open.get_mut(&self.node) {
            of_node.retain(|entry| !Arc::ptr_eq(&entry.dialer, &self.dialer));
            if of_node.is_empty() {
                open.remove(&self.node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::super::Direct;
    use super::*;

    /// Answers every connection with `said`.
    async fn speaker(said: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(said.as_bytes()).await.unwrap();
            }
        });
        address
    }

    /// Connects to no matter what by telling that it was asked.
    struct Told;

    impl Egress for Told {
        fn connect(&self, host: &str, port: u16, _: &Place) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
            let error = io::Error::other(format!("directly to {host}:{port}"));
            async move { Err(error) }.boxed()
        }
    }

    async fn tunnel_of(tunnels: &Arc<Tunnels>, node: &str, allowed: SocketAddr) -> (OpenTunnel, CancellationToken) {
        let (server, agent) = tokio::io::duplex(64 * 1024);
        let cancel = CancellationToken::new();
        let stop = cancel.clone();
        tokio::spawn(trireme_tunnel::serve(agent, Arc::new(move |to| to == allowed), stop));
        let (dialer, carried) = Dialer::start(server).await.unwrap();
        tokio::spawn(carried);
        (tunnels.open(node, dialer), cancel)
    }

    async fn outcome(egress: &dyn Egress, to: SocketAddr, place: Place) -> String {
        match egress.connect(&to.ip().to_string(), to.port(), &place).await {
            Ok(mut stream) => {
                let mut text = String::new();
                stream.read_to_string(&mut text).await.unwrap();
                text
            }
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn pods_and_kubelets_are_reached_through_their_nodes_tunnel_and_else_directly() {
        let pod = speaker("pod").await;
        let tunnels = Arc::new(Tunnels::new(TunnelUse::KubeletsAndPods, Arc::new(Told)));
        let directly = format!("directly to {pod}");
        let on_n1 = || Place::Pod("n1".to_owned());
        assert_eq!(outcome(&*tunnels, pod, on_n1()).await, directly, "no tunnel yet");
        let (open, cancel) = tunnel_of(&tunnels, "n1", pod).await;
        assert_eq!(outcome(&*tunnels, pod, on_n1()).await, "pod");
        assert_eq!(outcome(&*tunnels, pod, Place::Kubelet("n1".to_owned())).await, "pod");
        assert_eq!(outcome(&*tunnels, pod, Place::Pod("n2".to_owned())).await, directly, "another node");
        assert_eq!(outcome(&*tunnels, pod, Place::Elsewhere).await, directly);
        let host = "127.0.0.1:9".parse().unwrap();
        assert_eq!(outcome(&*tunnels, host, on_n1()).await, "directly to 127.0.0.1:9", "the node does not open it");
        cancel.cancel();
        assert_eq!(outcome(&*tunnels, pod, on_n1()).await, directly, "the tunnel is gone");
        drop(open);
        assert_eq!(tunnels.nodes(), 0);
    }

    #[tokio::test]
    async fn a_node_holds_only_so_many_and_the_newest_is_used() {
        let (old, new) = (speaker("old").await, speaker("new").await);
        let tunnels = Arc::new(Tunnels::new(TunnelUse::KubeletsAndPods, Arc::new(Told)));
        let mut open = Vec::new();
        for _ in 0..5 {
            open.push(tunnel_of(&tunnels, "n1", old).await);
        }
        open.push(tunnel_of(&tunnels, "n1", new).await);
        assert_eq!(outcome(&*tunnels, new, Place::Pod("n1".to_owned())).await, "new");
        assert!(tunnels.open.read()["n1"].len() <= OF_ONE_NODE);
        let ended = open.iter().filter(|(tunnel, _)| tunnel.end.is_cancelled()).count();
        assert_eq!((ended, open[0].0.end.is_cancelled()), (3, true), "those whose place was taken end, the oldest first");
        drop(open);
        assert_eq!(tunnels.nodes(), 0);
    }

    #[tokio::test]
    async fn the_mode_says_what_tunnels_are_for() {
        let pod = speaker("pod").await;
        for (used_for, kubelet, of_pod) in [(TunnelUse::Nothing, false, false), (TunnelUse::Kubelets, true, false)] {
            let tunnels = Arc::new(Tunnels::new(used_for, Arc::new(Told)));
            let _open = tunnel_of(&tunnels, "n1", pod).await;
            assert_eq!(outcome(&*tunnels, pod, Place::Kubelet("n1".to_owned())).await == "pod", kubelet);
            assert_eq!(outcome(&*tunnels, pod, Place::Pod("n1".to_owned())).await == "pod", of_pod);
        }
        assert_eq!(outcome(&Direct::default(), pod, Place::Elsewhere).await, "pod");
    }
}
