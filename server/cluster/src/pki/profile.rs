//! The certificates that servers and agents carry: who each one is and what it may be used for.

use std::net::IpAddr;

use jiff::Timestamp;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};

use trireme_api::certificate_request::CertificateRequest;

use super::{ClusterKeys, Issued, PkiError, authority::Authority};

/// How long a leaf certificate lives.
pub const LEAF_SECS: i64 = 365 * 86_400;

/// The names under which the API server is reached.
#[derive(Clone, Debug, Default)]
pub struct ServingNames {
    /// The name of this node or server.
    pub node_name: String,
    /// The addresses of this server.
    pub node_ips: Vec<IpAddr>,
    /// The ClusterIP of the `kubernetes` Service.
    pub service_ips: Vec<IpAddr>,
    /// `--cluster-domain`.
    pub cluster_domain: String,
    /// `--tls-san`: names or addresses.
    pub extra: Vec<String>,
}

impl ServingNames {
    /// Every name in the certificate, in a stable order, without repetition.
    pub fn all(&self) -> Vec<String> {
        let mut names = vec![
            "kubernetes".to_owned(),
            "kubernetes.default".to_owned(),
            "kubernetes.default.svc".to_owned(),
            format!("kubernetes.default.svc.{}", self.cluster_domain),
            "localhost".to_owned(),
        ];
        names.push(self.node_name.clone());
        names.extend(self.extra.iter().cloned());
        names.extend(["127.0.0.1".to_owned(), "::1".to_owned()]);
        names.extend(self.service_ips.iter().map(IpAddr::to_string));
        names.extend(self.node_ips.iter().map(IpAddr::to_string));
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| !name.is_empty() && seen.insert(name.clone()));
        names
    }
}

/// One kind of certificate.
#[derive(Clone, Debug)]
pub enum Profile {
    /// The API server's (and every other HTTPS port of a server's) serving certificate.
    ApiServerServing(ServingNames),
    /// What the kubeconfig of the administrator carries: group `system:masters`.
    Admin,
    /// The kubelet as a client: `system:node:<name>` in `system:nodes`.
    KubeletClient {
        /// The node's name.
        node_name: String,
    },
    /// The kubelet's own HTTPS port.
    KubeletServing {
        /// The node's name.
        node_name: String,
        /// The node's addresses.
        addresses: Vec<IpAddr>,
    },
    /// The API server as a client of kubelets.
    ApiServerKubeletClient,
    /// The service proxy and the rest of an agent's network parts: `system:kube-proxy`.
    KubeProxy,
    /// A member of the Raft group, both directions of the peer connection.
    Peer {
        /// The member's name.
        member_name: String,
        /// Addresses at which peers reach it.
        addresses: Vec<String>,
    },
    /// A client of the etcd API on 2379.
    EtcdClient {
        /// Its common name.
        name: String,
    },
    /// The serving side of the etcd API on 2379.
    EtcdServing {
        /// Names and addresses.
        addresses: Vec<String>,
    },
    /// The API server towards extension API servers.
    FrontProxyClient,
}

impl Profile {
    /// Makes a key and has the right authority sign it.
    pub fn issue(&self, keys: &ClusterKeys, now: Timestamp) -> Result<Issued, PkiError> {
        self.issue_for(keys, &KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?, now)
    }

    /// Has the right authority sign a key that exists.
    pub fn issue_for(&self, keys: &ClusterKeys, key: &KeyPair, now: Timestamp) -> Result<Issued, PkiError> {
        let certificate_pem = self.authority(keys).sign(self.params()?, key, now, LEAF_SECS)?;
        Ok(Issued { certificate_pem, key_pem: key.serialize_pem() })
    }

    /// Whether its holder is known by its key (design D8: a member), so that a renewal must keep it.
    pub fn keeps_key(&self) -> bool {
        matches!(self, Profile::Peer { .. })
    }

    /// The authority that signs this kind. One per trust domain: no kubelet certificate opens 2379 or 2380.
    pub fn authority<'a>(&self, keys: &'a ClusterKeys) -> &'a Authority {
        match self {
            Profile::ApiServerServing(_) | Profile::KubeletServing { .. } | Profile::EtcdServing { .. } => &keys.server_ca,
            Profile::Admin | Profile::KubeletClient { .. } | Profile::ApiServerKubeletClient | Profile::KubeProxy => &keys.client_ca,
            Profile::Peer { .. } => &keys.peer_ca,
            Profile::EtcdClient { .. } => &keys.etcd_client_ca,
            Profile::FrontProxyClient => &keys.front_proxy_ca,
        }
    }

    /// Common name, organization, subject alternative names.
    fn subject(&self) -> (String, Option<String>, Vec<String>) {
        let strings = |ips: &[IpAddr]| ips.iter().map(IpAddr::to_string).collect::<Vec<_>>();
        match self {
            Profile::ApiServerServing(names) => ("kube-apiserver".into(), None, names.all()),
            Profile::Admin => ("system:admin".into(), Some("system:masters".into()), vec![]),
            Profile::KubeletClient { node_name } => (format!("system:node:{node_name}"), Some("system:nodes".into()), vec![]),
            Profile::KubeletServing { node_name, addresses } => {
                let mut names = vec![node_name.clone()];
                names.extend(strings(addresses));
                (format!("system:node:{node_name}"), Some("system:nodes".into()), names)
            }
            Profile::ApiServerKubeletClient => ("kube-apiserver-kubelet-client".into(), Some("system:masters".into()), vec![]),
            Profile::KubeProxy => ("system:kube-proxy".into(), None, vec![]),
            Profile::Peer { member_name, addresses } => {
                let mut names = vec![member_name.clone(), "localhost".into(), "127.0.0.1".into()];
                names.extend(addresses.iter().cloned());
                (member_name.clone(), None, names)
            }
            Profile::EtcdClient { name } => (name.clone(), None, vec![]),
            Profile::EtcdServing { addresses } => {
                let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
                names.extend(addresses.iter().cloned());
                ("etcd".into(), None, names)
            }
            Profile::FrontProxyClient => ("front-proxy-client".into(), None, vec![]),
        }
    }

    fn usages(&self) -> Vec<ExtendedKeyUsagePurpose> {
        match self {
            Profile::ApiServerServing(_) | Profile::KubeletServing { .. } | Profile::EtcdServing { .. } => {
                vec![ExtendedKeyUsagePurpose::ServerAuth]
            }
            Profile::Peer { .. } => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            _ => vec![ExtendedKeyUsagePurpose::ClientAuth],
        }
    }

    fn params(&self) -> Result<CertificateParams, PkiError> {
        let (common_name, organization, names) = self.subject();
        leaf_params(&common_name, organization.as_deref(), &names, self.usages())
    }
}

/// Parameters of a leaf certificate.
pub(super) fn leaf_params(
    common_name: &str,
    organization: Option<&str>,
    names: &[String],
    usages: Vec<ExtendedKeyUsagePurpose>,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    let mut dn = DistinguishedName::new();
    if let Some(organization) = organization {
        dn.push(DnType::OrganizationName, organization);
    }
    dn.push(DnType::CommonName, common_name);
    params.distinguished_name = dn;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages;
    for name in names {
        let san = match name.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        };
        if !params.subject_alt_names.contains(&san) {
            params.subject_alt_names.push(san);
        }
    }
    Ok(params)
}

// === signing another party's key ===

impl Profile {
    /// Signs this profile for the key of a certificate signing request. What else the request asks for is
    /// ignored: the profile decides.
    pub fn sign_csr(&self, keys: &ClusterKeys, csr_pem: &str, now: Timestamp) -> Result<String, PkiError> {
        let request = CertificateRequest::decode(csr_pem.as_bytes()).map_err(|e| PkiError::malformed("certificate signing request", e))?;
        let request = rcgen::CertificateSigningRequestParams::from_der(&request.der().into())?;
        self.authority(keys).sign(self.params()?, &request.public_key, now, LEAF_SECS)
    }

    pub(super) fn wanted_names(&self) -> Result<Vec<SanType>, PkiError> {
        Ok(self.params()?.subject_alt_names)
    }
}
