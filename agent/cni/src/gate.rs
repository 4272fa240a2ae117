//! What a pod passes before it is on the network: the rules for its address are in force before its link exists.

use std::net::Ipv4Addr;

use futures::future::BoxFuture;

/// The pod that a sandbox belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid; older runtimes do not tell it.
    pub uid: Option<String>,
}

/// Who restricts what pods may reach.
pub trait Gate: Send + Sync {
    /// A pod gets an address. Completes when its rules are in force; an error keeps the pod off the network.
    fn attach<'a>(&'a self, container_id: &'a str, pod: SandboxPod, address: Ipv4Addr) -> BoxFuture<'a, Result<(), String>>;

    /// A sandbox is gone.
    fn detach(&self, container_id: &str);
}
