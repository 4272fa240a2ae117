//! The addresses to which the server connects on behalf of a client.
//!
//! Owns that no client reaches the server itself, or hosts that only the server's network reaches, through it: loopback, link-local (a
//! cloud's metadata service) and multicast addresses are refused. Answers to Go's `net.IP.IsGlobalUnicast`, which upstream asks for nodes
//! (`pkg/registry/core/node/strategy.go`) and pods (`pkg/registry/core/pod/strategy.go`).

use std::net::IpAddr;

use trireme_api::status::Status;

use crate::egress::is_global_unicast;
use crate::error::Answer;

/// Parses an address that an object names, and refuses it if clients must not be carried there.
pub fn allowed(text: &str) -> Answer<IpAddr> {
    let address = text.parse::<IpAddr>().ok().filter(|address| is_global_unicast(*address));
    address.ok_or_else(|| Box::new(Status::bad_request("address not allowed")))
}

/// Resolves a host name and refuses it if any of its addresses is not allowed. The connection is made to the address that was
/// judged, so that a name cannot change between the two.
pub async fn resolve(host: &str, port: u16) -> Answer<IpAddr> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return allowed(&address.to_string());
    }
    let found = tokio::net::lookup_host((host, port)).await.map_err(|error| Status::bad_request(error.to_string()))?;
    let addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    match addresses.first() {
        None => Err(Status::bad_request("no addresses for hostname").into()),
        Some(first) if addresses.iter().all(|address| is_global_unicast(*address)) => Ok(*first),
        Some(_) => Err(Status::bad_request("address not allowed").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn security_12_only_global_unicast_addresses_are_reached() {
        for good in ["10.42.0.7", "192.168.1.1", "8.8.8.8", "2001:db8::1", "fd00::1"] {
            assert!(allowed(good).is_ok() && resolve(good, 80).await.is_ok(), "{good}");
        }
        for bad in [
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "",
            "localhost",
        ] {
            assert_eq!(allowed(bad).unwrap_err().code(), 400, "{bad}");
        }
        assert_eq!(resolve("localhost", 80).await.unwrap_err().code(), 400);
    }
}
