//! The destination of a forwarded request, and the connection to it.

use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, ServerName};
use trireme_api::status::Status;

use crate::egress::{Egress, Place, Stream, insecure};
use crate::error::Answer;

/// How the other side is spoken to.
#[derive(Clone)]
pub enum Security {
    /// Without TLS.
    Plain,
    /// TLS without a look at the certificate: what `https:` in the name of a proxied Service or pod means.
    Unverified,
    /// TLS as this configuration has it: the certificate must name the host.
    Verified(Arc<rustls::ClientConfig>),
    /// TLS to the kubelet of this node: its certificate must be of the cluster and name the node.
    Kubelet(Arc<rustls::ClientConfig>, String),
}

/// Where a request goes.
#[derive(Clone)]
pub struct Destination {
    /// A host or an address, as it is named to the other side.
    pub host: String,
    /// The connection target: the host, or the address that was resolved and checked for it.
    pub dial: String,
    /// The port.
    pub port: u16,
    /// Which part of the cluster is behind the address.
    pub place: Place,
    /// The transport security of the connection.
    pub security: Security,
    /// Path and query.
    pub path: String,
}

/// A failure to reach the other side, as clients see it.
pub fn unreachable(error: &dyn std::fmt::Display) -> Box<Status> {
    Box::new(Status::service_unavailable(format!("error trying to reach service: {error}")))
}

impl Destination {
    /// `host:port`, as the Host header has it.
    pub fn authority(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }

    /// Connects.
    pub async fn connect(&self, egress: &dyn Egress) -> Answer<TokioIo<Box<dyn Stream>>> {
        let stream = egress.connect(&self.dial, self.port, &self.place).await.map_err(|error| unreachable(&error))?;
        let (config, node) = match &self.security {
            Security::Plain => return Ok(TokioIo::new(stream)),
            Security::Unverified => (insecure::client_config(), None),
            Security::Verified(config) => (config.clone(), None),
            Security::Kubelet(config, node) => (config.clone(), Some(node)),
        };
        let name = ServerName::try_from(self.host.clone()).map_err(|error| unreachable(&error))?;
        let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.map_err(|error| unreachable(&error))?;
        if let Some(node) = node {
            check_kubelet(stream.get_ref().1.peer_certificates().unwrap_or_default(), node)?;
        }
        Ok(TokioIo::new(Box::new(stream) as Box<dyn Stream>))
    }
}

/// The authority that signs kubelets' serving certificates signs those of the API servers too. A node that names a server's address
/// as its own must not make this server speak to itself, or to another node, with the rights that it has on kubelets.
fn check_kubelet(chain: &[CertificateDer<'_>], node: &str) -> Answer<()> {
    let leaf = chain.first().and_then(|leaf| x509_parser::parse_x509_certificate(leaf).ok());
    let name = leaf.as_ref().and_then(|(_, leaf)| leaf.subject().iter_common_name().next()?.as_str().ok()).unwrap_or_default();
    if name.strip_prefix("system:node:") == Some(node) {
        return Ok(());
    }
    Err(unreachable(&format!("the certificate at the address of node {node:?} is not its kubelet's but that of {name:?}")))
}
