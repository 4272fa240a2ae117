//! The pod network: what a CNI plugin does.
//!
//! Owns the node's bridge (`cni0`), the addresses of its pods, the tunnel device (`flannel.1`) and the routes to
//! the other nodes' pods. Must not touch nftables (that is `trireme-nft`) and knows nothing of Services.
//!
//! containerd executes CNI plugins as processes. Ours ([`plugin`]) is the `trireme` binary under another name: it
//! hands the request over a unix socket to the agent ([`server`]), which already holds a netlink connection and
//! the address pool, and prints the answer. Answers to the
//! [CNI specification](https://www.cni.dev/docs/spec/), versions 0.3.1 to 1.0.0.

pub mod gate;
pub mod ipam;
pub mod netlink;
pub mod network;
pub mod plugin;
pub mod routes;
pub mod server;

pub use network::{Backend, Network, NetworkOptions};

/// What goes wrong on the pod network.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a link, address, route or neighbour.
    #[error("{what}: {source}")]
    Netlink {
        /// The operation, with the object's name.
        what: String,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// A file, socket or namespace could not be used.
    #[error("{what}: {source}")]
    Io {
        /// The operation, with the path.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// No address is left in the node's pod CIDR.
    #[error("no address left in pod CIDR {0}")]
    PoolExhausted(ipnet::Ipv4Net),
    /// The node has no pod CIDR yet: the control plane has not given it one.
    #[error("node has no pod CIDR yet")]
    NoPodCidr,
    /// A link of our name exists and is not ours.
    #[error("link {0} exists and was not made by Trireme: remove it, or choose --flannel-backend none")]
    ForeignLink(String),
    /// The pod may not be on the network yet.
    #[error("{0}")]
    NotAdmitted(String),
    /// A request that breaks the CNI specification.
    #[error("bad CNI request: {0}")]
    BadRequest(String),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }

    pub(crate) fn netlink(what: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Error {
        let what = what.into();
        move |source| Error::Netlink { what, source }
    }
}
