//! The connecting subresources, by name.

use crate::endpoints::connect::connector::Connector;
use crate::endpoints::{nodes, pods, services};

static CONNECTORS: [&Connector; 7] = [
    &pods::log::CONNECTOR,
    &pods::exec::EXEC,
    &pods::exec::ATTACH,
    &pods::port_forward::CONNECTOR,
    &pods::proxy::CONNECTOR,
    &nodes::proxy::CONNECTOR,
    &services::proxy::CONNECTOR,
];

/// The connector of a subresource.
pub fn find(group: &str, resource: &str, subresource: &str) -> Option<&'static Connector> {
    CONNECTORS.iter().copied().find(|c| c.group == group && c.resource == resource && c.subresource == subresource)
}
