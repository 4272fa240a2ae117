//! The address and port of a node's kubelet.
//!
//! Answers to upstream's `NodeConnectionInfoGetter` (`pkg/kubelet/client`).

use std::sync::Arc;

use trireme_api::gvk::GroupResource;
use trireme_api::meta;
use trireme_api::status::Status;

use crate::egress::Place;
use crate::endpoints::connect::destination::{Destination, Security};
use crate::error::Answer;
use crate::storage::lookup::ObjectReader;

const KUBELET_PORT: u16 = 10250;
/// Kinds of addresses, the preferred ones first.
const PREFERRED: [&str; 4] = ["InternalIP", "Hostname", "InternalDNS", "ExternalIP"];

/// The kubelet of a node, for a request of `path`. Without `tls` there is no certificate that kubelets accept.
pub fn destination(
    reader: &dyn ObjectReader,
    tls: Option<&Arc<rustls::ClientConfig>>,
    node_name: &str,
    path: String,
) -> Answer<Destination> {
    let node = reader.get("", "nodes", "", node_name).ok_or_else(|| Status::not_found(&GroupResource::new("", "nodes"), node_name))?;
    let addresses = meta::list_at(&node.object, &["status", "addresses"]);
    let host = PREFERRED
        .iter()
        .find_map(|kind| addresses.iter().find(|a| a["type"] == *kind)?.get("address")?.as_str())
        .ok_or_else(|| Status::internal(format!("no preferred addresses found; known addresses: [] of node {node_name}")))?;
    let port = meta::i64_at(&node.object, &["status", "daemonEndpoints", "kubeletEndpoint", "Port"])
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
        .unwrap_or(KUBELET_PORT);
    let tls = tls.cloned().ok_or_else(|| Status::internal("this server has no client certificate for kubelets"))?;
    let security = Security::Kubelet(tls, node_name.to_owned());
    let place = Place::Kubelet(node_name.to_owned());
    Ok(Destination { host: host.to_owned(), dial: host.to_owned(), port, place, security, path })
}
