//! Everything secret that all servers of a cluster share.

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use trireme_apiserver::ServerKeys;
use zeroize::Zeroize;

use super::{PkiError, authority::Authority, service_account::ServiceAccountKeys};

/// The shared keys. Serialisable as a whole; leaves a server only sealed (see [`super::SealedBundle`]).
#[derive(Clone, Serialize, Deserialize)]
pub struct ClusterKeys {
    /// Format of this document; raised when a reader of the old one would go wrong.
    pub format: u32,
    /// Signs serving certificates (API server, kubelets, etcd API). Its hash is in the join token.
    pub server_ca: Authority,
    /// Signs client certificates of users, nodes and components.
    pub client_ca: Authority,
    /// Signs Raft peers.
    pub peer_ca: Authority,
    /// Signs clients of the etcd API.
    pub etcd_client_ca: Authority,
    /// Signs the aggregation layer's client certificate.
    pub front_proxy_ca: Authority,
    /// Service-account token keys, the active one first.
    pub service_account: ServiceAccountKeys,
    /// Keys that encrypt data at rest, the active one first.
    pub data_keys: Vec<DataKey>,
}

/// One 256-bit key that encrypts stored values. Its id is in every envelope that it sealed.
#[derive(Clone, Serialize, Deserialize)]
pub struct DataKey {
    /// Never reused within a cluster; never empty: an empty id in an envelope means "not encrypted".
    pub id: String,
    /// The key, base64.
    pub key: String,
}

impl DataKey {
    /// Makes a new key with this id.
    pub fn generate(id: impl Into<String>) -> Result<DataKey, PkiError> {
        let mut bytes = [0_u8; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| PkiError::Crypto("no randomness"))?;
        let key = BASE64_STANDARD.encode(bytes);
        bytes.zeroize();
        Ok(DataKey { id: id.into(), key })
    }

    /// The raw key.
    pub fn bytes(&self) -> Result<[u8; 32], PkiError> {
        let decoded = BASE64_STANDARD.decode(&self.key).map_err(|error| PkiError::malformed("data key", error))?;
        <[u8; 32]>::try_from(decoded.as_slice()).map_err(|_| PkiError::malformed("data key", "not 32 bytes long"))
    }
}

impl ClusterKeys {
    /// The format that this version writes.
    pub const FORMAT: u32 = 1;

    /// Makes all keys of a new cluster.
    pub fn generate(now: Timestamp) -> Result<ClusterKeys, PkiError> {
        let at = now.as_second();
        let authority = |role: &str| Authority::generate(&format!("trireme-{role}-ca@{at}"), now);
        Ok(ClusterKeys {
            format: ClusterKeys::FORMAT,
            server_ca: authority("server")?,
            client_ca: authority("client")?,
            peer_ca: authority("peer")?,
            etcd_client_ca: authority("etcd-client")?,
            front_proxy_ca: authority("front-proxy")?,
            service_account: ServiceAccountKeys::generate()?,
            data_keys: vec![DataKey::generate("key1")?],
        })
    }

    /// The authorities, with the names of their files.
    pub fn authorities(&self) -> [(&'static str, &Authority); 5] {
        [
            ("server-ca", &self.server_ca),
            ("client-ca", &self.client_ca),
            ("peer-ca", &self.peer_ca),
            ("etcd-client-ca", &self.etcd_client_ca),
            ("front-proxy-ca", &self.front_proxy_ca),
        ]
    }

    /// The data keys in the form that the at-rest keyring takes, the sealing one first.
    pub fn keyring_keys(&self) -> Result<Vec<(String, [u8; 32])>, PkiError> {
        self.data_keys.iter().map(|key| Ok((key.id.clone(), key.bytes()?))).collect()
    }

    /// What an API server of this cluster is started with.
    pub fn api_server_keys(&self) -> Result<ServerKeys, PkiError> {
        Ok(ServerKeys {
            client_authorities: self.client_ca.certificates_der()?,
            front_proxy_authorities: self.front_proxy_ca.certificates_der()?,
            service_account: self.service_account.load()?,
            data: self.keyring_keys()?,
        })
    }

    /// The plain form. Never written anywhere but sealed or into 0600 files.
    pub fn to_bytes(&self) -> Result<zeroize::Zeroizing<Vec<u8>>, PkiError> {
        serde_json::to_vec(self).map(zeroize::Zeroizing::new).map_err(|error| PkiError::malformed("cluster keys", error))
    }

    /// Reads the plain form.
    pub fn from_bytes(bytes: &[u8]) -> Result<ClusterKeys, PkiError> {
        let keys: ClusterKeys = serde_json::from_slice(bytes).map_err(|error| PkiError::malformed("cluster keys", error))?;
        if keys.format != ClusterKeys::FORMAT {
            return Err(PkiError::malformed("cluster keys", format!("format {} is not known to this version", keys.format)));
        }
        Ok(keys)
    }
}
