//! The names and addresses that a node's serving certificate may contain. It is signed by the authority that clients trust for the API
//! server, so the holder of a node token must not get one for a server's name or address, for the `kubernetes` Service, or for another
//! node's.
//!
//! Pure: members, nodes and reserved names come in.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;
use trireme_api::join::ClusterFacts;
use trireme_proto::store::MemberRecord;

use crate::pki::authority::certificates;
use crate::tokens::TokenRole;
use trireme_apiserver::storage::lookup::LookedUp;

/// Addresses that a node may have in its certificate.
const NODE_IPS_MAX: usize = 16;

/// What there is already.
pub struct NodeNames<'a> {
    /// The servers.
    pub members: &'a [MemberRecord],
    /// The nodes.
    pub nodes: &'a [LookedUp],
    /// Names and addresses in the API server's certificate (`--tls-san` names balancers and virtual addresses).
    pub reserved: &'a [String],
    /// The cluster's networks.
    pub facts: &'a ClusterFacts,
}

impl NodeNames<'_> {
    /// Why a node of this name with these addresses cannot be: a code and a text.
    pub fn complaint(&self, node_name: &str, node_ips: &[IpAddr], role: TokenRole) -> Option<(u16, String)> {
        if node_ips.len() > NODE_IPS_MAX {
            return Some((400, format!("more than {NODE_IPS_MAX} node addresses")));
        }
        let own_server = self.members.iter().find(|member| member.name == node_name);
        if own_server.is_some() && role != TokenRole::Server {
            return Some((403, format!("{node_name:?} is the name of a server: its node joins with the server token")));
        }
        let own_ips: Vec<IpAddr> = own_server.map(|member| member_ips(member).collect()).unwrap_or_default();
        let server_names =
            ["localhost".to_owned(), "kubernetes".to_owned(), format!("kubernetes.default.svc.{}", self.facts.cluster_domain)];
        if server_names.iter().any(|name| name == node_name)
            || node_name.starts_with("kubernetes.default")
            || (own_server.is_none() && self.reserved.iter().any(|name| name == node_name))
        {
            return Some((403, format!("{node_name:?} is a name of the API server: choose another --node-name")));
        }
        node_ips.iter().find_map(|ip| self.complaint_about(node_name, *ip, &own_ips))
    }

    fn complaint_about(&self, node_name: &str, ip: IpAddr, own_ips: &[IpAddr]) -> Option<(u16, String)> {
        if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
            return Some((400, format!("{ip} is no address of a node: give --node-ip")));
        }
        if self.facts.service_cidr.parse::<IpNet>().is_ok_and(|services| services.contains(&ip)) {
            return Some((403, format!("{ip} is in the network of Services ({})", self.facts.service_cidr)));
        }
        if own_ips.contains(&ip) {
            return None;
        }
        if let Some(member) = self.members.iter().find(|member| member_ips(member).any(|known| known == ip)) {
            return Some((403, format!("{ip} is the address of server {:?}", member.name)));
        }
        if self.reserved.iter().any(|name| name.parse() == Ok(ip)) {
            return Some((403, format!("{ip} is an address of the API server")));
        }
        let name_of = |node: &LookedUp| node.object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let other = self.nodes.iter().find(|node| name_of(node) != node_name && node_addresses(&node.object).contains(&ip));
        other.map(|node| (403, format!("{ip} is the address of node {:?}: delete that Node if its machine is gone", name_of(node))))
    }
}

/// Where a server's store and API are reached.
fn member_ips(member: &MemberRecord) -> impl Iterator<Item = IpAddr> {
    let addresses = member.addresses.iter().flat_map(|a| a.peer.iter().chain(&a.api).chain(&a.client));
    addresses.filter_map(|address| {
        let authority = address.strip_prefix("https://").unwrap_or(address);
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        host.trim_matches(['[', ']']).parse().ok()
    })
}

/// The addresses that this node's last serving certificate was made for: none, unless it is of our authority and for this name.
pub fn granted_ips(certificate_pem: &str, ca_pem: &str, node_name: &str) -> Vec<IpAddr> {
    let (Ok(chain), Ok(authorities)) = (certificates(certificate_pem), certificates(ca_pem)) else { return Vec::new() };
    let Some(Ok((_, leaf))) = chain.first().map(|der| x509_parser::parse_x509_certificate(der)) else { return Vec::new() };
    let ours = authorities
        .iter()
        .any(|ca| x509_parser::parse_x509_certificate(ca).is_ok_and(|(_, ca)| leaf.verify_signature(Some(ca.public_key())).is_ok()));
    let name = leaf.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    if !ours || name != Some(&format!("system:node:{node_name}")) {
        return Vec::new();
    }
    let names = leaf.subject_alternative_name().ok().flatten().map(|san| &san.value.general_names);
    names.into_iter().flatten().filter_map(general_ip).collect()
}

fn general_ip(name: &x509_parser::extensions::GeneralName<'_>) -> Option<IpAddr> {
    let x509_parser::extensions::GeneralName::IPAddress(bytes) = name else { return None };
    <[u8; 4]>::try_from(*bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok()
}

/// The addresses in a Node's status.
fn node_addresses(node: &Value) -> Vec<IpAddr> {
    let listed = node["status"]["addresses"].as_array().into_iter().flatten();
    listed.filter_map(|address| address["address"].as_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_gets_no_certificate_for_what_is_not_its_own() {
        let members = [trireme_raft::member_record("s1", vec![1; 32].into(), "10.0.0.1:2380", &["https://10.0.0.1:6443".into()], "v")];
        let other = json!({"metadata": {"name": "w1"}, "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.21"}]}});
        let nodes = [LookedUp { object: Arc::new(other), mod_revision: 1 }];
        let reserved = ["10.0.0.100".to_owned(), "api.example.org".to_owned(), "s1".to_owned(), "10.0.0.1".to_owned()];
        let facts = ClusterFacts {
            cluster_cidr: "10.42.0.0/16".into(),
            service_cidr: "10.43.0.0/16".into(),
            cluster_dns: "10.43.0.10".parse().unwrap(),
            cluster_domain: "cluster.local".into(),
            flannel_backend: "vxlan".into(),
            network_policy: true,
            kube_proxy: true,
        };
        let names = NodeNames { members: &members, nodes: &nodes, reserved: &reserved, facts: &facts };
        let (node, server) = (TokenRole::Node, TokenRole::Server);
        let cases = [
            ("w2", "10.0.0.22", node, None),
            ("w1", "10.0.0.21", node, None),
            ("w2", "10.0.0.21", node, Some(403)),
            ("w2", "10.0.0.1", node, Some(403)),
            ("w2", "10.0.0.1", server, Some(403)),
            ("w2", "10.0.0.100", server, Some(403)),
            ("w2", "10.43.0.1", node, Some(403)),
            ("w2", "127.0.0.1", node, Some(400)),
            ("w2", "0.0.0.0", node, Some(400)),
            ("s1", "10.0.0.1", node, Some(403)),
            ("s1", "10.0.0.22", node, Some(403)),
            ("s1", "10.0.0.1", server, None),
            ("s1", "10.43.0.1", server, Some(403)),
            ("kubernetes", "10.0.0.22", node, Some(403)),
            ("kubernetes.default.svc", "10.0.0.22", server, Some(403)),
            ("localhost", "10.0.0.22", node, Some(403)),
            ("api.example.org", "10.0.0.22", node, Some(403)),
        ];
        for (name, ip, role, expected) in cases {
            let complaint = names.complaint(name, &[ip.parse().unwrap()], role);
            assert_eq!(complaint.as_ref().map(|(code, _)| *code), expected, "{name} {ip} {role:?}: {complaint:?}");
        }
    }
}
