//! What ends an agent.

/// What ends an agent. Each is one line for a person.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Joining failed for good: wrong token, wrong CA, refused name.
    #[error("join: {0}")]
    Join(String),
    /// The host lacks something.
    #[error("{0}")]
    Host(String),
    /// A wrong option.
    #[error("{0}")]
    Option(String),
    /// The pod network could not be made.
    #[error("pod network: {0}")]
    Network(#[from] trireme_cni::Error),
    /// Packet rules could not be made or followed.
    #[error("packet rules: {0}")]
    Rules(#[from] trireme_nft::Error),
    /// The kubelet could not start.
    #[error("kubelet: {0}")]
    Kubelet(#[from] trireme_kubelet::Error),
    /// The servers could not be reached in principle: a bad address or certificate.
    #[error("servers: {0}")]
    Transport(#[from] trireme_client::TransportError),
}
