//! The messages between a joining node or server and the cluster, as JSON over the API port.
//!
//! Two endpoints answer clients without a certificate: [`CA_PATH`] hands out the authority (whose hash is in the token), and the join paths take a request
//! with the token as HTTP Basic credentials (`node:<secret>` or `server:<secret>`). [`SERVERS_PATH`] answers authenticated nodes.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// GET: the server authority as PEM, for anybody.
pub const CA_PATH: &str = "/cacerts";
/// POST [`NodeJoinRequest`] → [`NodeJoinAnswer`].
pub const NODE_PATH: &str = "/v1-trireme/join/node";
/// POST [`ServerJoinRequest`] → [`ServerJoinAnswer`].
pub const SERVER_PATH: &str = "/v1-trireme/join/server";
/// POST [`NodeJoinRequest`] → [`NodeJoinAnswer`], for a node with a certificate that is still good, under that node's own name.
pub const RENEW_PATH: &str = "/v1-trireme/renew/node";
/// GET → [`ServerList`].
pub const SERVERS_PATH: &str = "/v1-trireme/servers";

/// Facts that every part of the cluster must agree on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFacts {
    /// Addresses of pods.
    pub cluster_cidr: String,
    /// Addresses of services.
    pub service_cidr: String,
    /// Address of cluster DNS.
    pub cluster_dns: IpAddr,
    /// Domain of the cluster's names.
    pub cluster_domain: String,
    /// `vxlan`, `host-gw` or `none`.
    pub flannel_backend: String,
    /// Whether agents enforce NetworkPolicies on their own pod network.
    #[serde(default = "yes")]
    pub network_policy: bool,
    /// Whether agents serve Services, as kube-proxy does.
    #[serde(default = "yes")]
    pub kube_proxy: bool,
}

fn yes() -> bool {
    true
}

/// A node asks for its certificates.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeJoinRequest {
    /// The name it wants.
    pub node_name: String,
    /// Its addresses, for the serving certificate.
    pub node_ips: Vec<IpAddr>,
    /// A secret that the node generated at its first join: later joins under the same name must present it.
    pub node_password: String,
    /// Request for the client certificate, PEM.
    pub client_csr_pem: String,
    /// Request for the kubelet's serving certificate, PEM.
    pub serving_csr_pem: String,
    /// For a renewal: the serving certificate that it has, PEM.
    #[serde(default)]
    pub serving_certificate_pem: Option<String>,
}

/// What a node needs to work.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeJoinAnswer {
    /// Client certificate, `system:node:<name>`, PEM.
    pub client_certificate_pem: String,
    /// Serving certificate of the kubelet API, PEM.
    pub serving_certificate_pem: String,
    /// Authority of the servers' certificates, PEM.
    pub server_ca_pem: String,
    /// Authority of client certificates: who may call the kubelet, PEM.
    pub client_ca_pem: String,
    /// The servers, `https://host:port`.
    pub servers: Vec<String>,
    /// The cluster's facts.
    pub cluster: ClusterFacts,
}

/// A server asks to become a member.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServerJoinRequest {
    /// Its name.
    pub node_name: String,
    /// Where the other members reach its store, `host:port`.
    pub peer_address: String,
    /// Where clients reach its API, `https://host:port`.
    pub api_url: String,
    /// SHA-256 of its peer key's SubjectPublicKeyInfo, hex. `None` asks for the keys only (the first step): the peer
    /// certificate is made from them.
    pub peer_spki: Option<String>,
}

/// What a joining server needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServerJoinAnswer {
    /// Authorities, service-account and encryption keys, sealed under the token (JSON of the sealed bundle).
    pub sealed_keys: serde_json::Value,
    /// The cluster's facts.
    pub cluster: ClusterFacts,
    /// The server secret in force, sealed under the cluster's data key (base64), and the salt of the bundle that it belongs to (hex):
    /// a joiner may hold another token than that.
    #[serde(default)]
    pub server_secret: Option<(String, String)>,
    /// The place that the store made for the joiner (base64); absent while it only asked for the keys.
    pub ticket: Option<String>,
}

/// The servers that are members now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServerList {
    /// `https://host:port` each.
    pub servers: Vec<String>,
}
