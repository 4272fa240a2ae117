//! Forgets tracked connections, where a changed rule would otherwise not be seen by traffic that has no handshake.

use std::net::Ipv4Addr;

use crate::{Error, program};

/// Deletes the conntrack entries of UDP flows to a removed endpoint: their packets would still be sent there.
pub async fn forget_udp_to(endpoint: Ipv4Addr) {
    delete(&["-D", "-p", "udp", "--dst-nat", &endpoint.to_string()]).await;
}

/// Forgets the UDP flows to a port of this host: flows from before the port was mapped would go on past the mapping.
pub async fn forget_udp_port(port: u16) {
    delete(&["-D", "-p", "udp", "--orig-port-dst", &port.to_string()]).await;
}

async fn delete(arguments: &[&str]) {
    match program::run("conntrack", arguments, "").await {
        // It ends with an error where it finds nothing to delete.
        Ok(_) | Err(Error::Refused { .. }) => {}
        Err(error) => tracing::warn!(%error, "UDP clients wait for a time-out before they see changed rules"),
    }
}
