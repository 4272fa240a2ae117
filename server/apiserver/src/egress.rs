//! The one way out of the server, to nodes, pods and webhooks (D8).
//!
//! Callers name the destination and its node; this module decides whether the connection is made directly or through the tunnel that the
//! node's agent opened.

pub mod authority;
mod direct;
pub mod fetch;
pub mod insecure;
pub mod kubeconfig;
pub mod services;
mod tunnels;
pub mod webhooks;

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

pub use direct::Direct;
pub use tunnels::{OpenTunnel, TunnelUse, Tunnels};

/// A byte stream in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// Which part of the cluster is behind an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// No node and no pod of this cluster.
    #[default]
    Elsewhere,
    /// The kubelet of this node.
    Kubelet(String),
    /// A pod on this node.
    Pod(String),
}

/// Whether an address may be that of a node or a pod.
pub fn is_global_unicast(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            !(v4 == Ipv4Addr::BROADCAST || v4.is_unspecified() || v4.is_loopback() || v4.is_multicast() || v4.is_link_local())
        }
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_loopback() || v6.is_multicast() || v6.is_unicast_link_local()),
    }
}

/// Opens connections on behalf of the server.
pub trait Egress: Send + Sync + 'static {
    /// Connects to a port of a host (an address, or a name of this cluster).
    fn connect(&self, host: &str, port: u16, place: &Place) -> BoxFuture<'static, io::Result<Box<dyn Stream>>>;
}
