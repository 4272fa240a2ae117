//! Who this node is: its keys, certificates and node password, kept below `<data-dir>/agent/tls` (0600).
//!
//! Joins only when something is missing or about to expire; otherwise a restart needs no server at all.

use std::{
    fs,
    io::{Read, Write},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};
use serde::{Deserialize, Serialize};
use trireme_api::join::{ClusterFacts, NODE_PATH, NodeJoinAnswer, NodeJoinRequest};

use crate::{error::Error, join::JoinClient};

/// Everything that joining gave this node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Identity {
    /// The node's name.
    pub node_name: String,
    /// Client certificate and key, PEM.
    pub client: Pair,
    /// Serving certificate and key of the kubelet API, PEM.
    pub serving: Pair,
    /// Authority of the servers, PEM.
    pub server_ca_pem: String,
    /// Authority of clients, PEM.
    pub client_ca_pem: String,
    /// The servers known last.
    pub servers: Vec<String>,
    /// The cluster's facts.
    pub cluster: ClusterFacts,
}

/// A certificate with its key, both PEM.
#[derive(Clone, Serialize, Deserialize)]
pub struct Pair {
    /// The certificate chain.
    pub certificate_pem: String,
    /// The private key.
    pub key_pem: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}

/// Where the identity is kept.
#[derive(Debug, Clone)]
pub struct IdentityStore {
    folder: PathBuf,
}

impl IdentityStore {
    /// Keeps it in `<agent-dir>/tls`.
    pub fn new(agent_dir: &Path) -> Self {
        Self { folder: agent_dir.join("tls") }
    }

    fn file(&self) -> PathBuf {
        self.folder.join("identity.json")
    }

    /// Whether this node has joined a cluster before.
    pub fn exists(&self) -> bool {
        self.file().exists()
    }

    /// The identity of an earlier join, if it is whole and for this name.
    pub fn load(&self, node_name: &str) -> Option<Identity> {
        let identity: Identity = serde_json::from_slice(&fs::read(self.file()).ok()?).ok()?;
        (identity.node_name == node_name).then_some(identity)
    }

    /// Keeps an identity, durably and whole.
    pub fn save(&self, identity: &Identity) -> Result<(), Error> {
        let bytes = serde_json::to_vec(identity).map_err(|e| Error::Host(e.to_string()))?;
        write_secret(&self.file(), &bytes)
    }

    /// The secret that protects this node's name; made up once.
    pub fn node_password(&self) -> Result<String, Error> {
        let path = self.folder.join("node-password");
        if let Ok(text) = fs::read_to_string(&path) {
            return Ok(text.trim().to_owned());
        }
        let mut random = [0_u8; 16];
        let mut source = fs::File::open("/dev/urandom").map_err(|e| Error::Host(format!("/dev/urandom: {e}")))?;
        source.read_exact(&mut random).map_err(|e| Error::Host(format!("/dev/urandom: {e}")))?;
        let password = hex::encode(random);
        write_secret(&path, password.as_bytes())?;
        Ok(password)
    }
}

/// Keys that are made and not certified yet, with the request for their certificates.
pub struct Asked {
    /// What is sent.
    pub request: NodeJoinRequest,
    client_key_pem: String,
    serving_key_pem: String,
}

impl Asked {
    /// New keys for this node.
    pub fn new(store: &IdentityStore, node_name: &str, node_ips: &[IpAddr]) -> Result<Self, Error> {
        let (client_key_pem, client_csr_pem) = request(node_name, &[], ExtendedKeyUsagePurpose::ClientAuth)?;
        let (serving_key_pem, serving_csr_pem) = request(node_name, node_ips, ExtendedKeyUsagePurpose::ServerAuth)?;
        let request = NodeJoinRequest {
            node_name: node_name.to_owned(),
            node_ips: node_ips.to_vec(),
            node_password: store.node_password()?,
            client_csr_pem,
            serving_csr_pem,
            serving_certificate_pem: None,
        };
        Ok(Self { request, client_key_pem, serving_key_pem })
    }

    /// The identity that an answer makes of them.
    pub fn certified(self, answer: NodeJoinAnswer) -> Identity {
        Identity {
            node_name: self.request.node_name,
            client: Pair { certificate_pem: answer.client_certificate_pem, key_pem: self.client_key_pem },
            serving: Pair { certificate_pem: answer.serving_certificate_pem, key_pem: self.serving_key_pem },
            server_ca_pem: answer.server_ca_pem,
            client_ca_pem: answer.client_ca_pem,
            servers: answer.servers,
            cluster: answer.cluster,
        }
    }
}

/// Asks the cluster for certificates under this name.
pub async fn join(client: &JoinClient, store: &IdentityStore, node_name: &str, node_ips: &[IpAddr]) -> Result<Identity, Error> {
    let asked = Asked::new(store, node_name, node_ips)?;
    let answer: NodeJoinAnswer = client.post(NODE_PATH, "node", &asked.request).await?;
    let identity = asked.certified(answer);
    store.save(&identity)?;
    Ok(identity)
}

/// A new key and a signing request for `system:node:<name>`.
fn request(node_name: &str, addresses: &[IpAddr], usage: ExtendedKeyUsagePurpose) -> Result<(String, String), Error> {
    let failed = |e: rcgen::Error| Error::Host(format!("certificate request: {e}"));
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::new(if addresses.is_empty() { Vec::new() } else { vec![node_name.to_owned()] }).map_err(failed)?;
    params.subject_alt_names.extend(addresses.iter().map(|ip| SanType::IpAddress(*ip)));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{node_name}"));
    params.extended_key_usages = vec![usage];
    let csr = params.serialize_request(&key).map_err(failed)?;
    Ok((key.serialize_pem(), csr.pem().map_err(failed)?))
}

/// Writes a file that only root may read, whole or not at all.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |e: std::io::Error| Error::Host(format!("write {}: {e}", path.display()));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let fresh = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&fresh, path).map_err(failed)
}
