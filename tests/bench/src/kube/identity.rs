//! The server's address and the administrator's certificate, out of the kubeconfig that a server writes.

use anyhow::Context;
use base64::{Engine, prelude::BASE64_STANDARD};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The server that requests go to, and the client certificate they carry.
pub struct Identity {
    /// Address and port of the server.
    pub authority: String,
    authorities: Vec<u8>,
    certificates: Vec<u8>,
    key: Vec<u8>,
}

impl Identity {
    /// Of a kubeconfig of one cluster and one user, with a value on each line.
    pub fn parse(kubeconfig: &str) -> anyhow::Result<Identity> {
        let text = |field: &str| {
            let line = kubeconfig.lines().find_map(|line| line.trim().strip_prefix(field)?.strip_prefix(':'));
            Ok::<&str, anyhow::Error>(line.with_context(|| format!("no {field}"))?.trim())
        };
        let pem = |field: &str| BASE64_STANDARD.decode(text(field)?).with_context(|| format!("{field} is not base64"));
        Ok(Identity {
            authority: text("server")?.trim_start_matches("https://").trim_end_matches('/').to_owned(),
            authorities: pem("certificate-authority-data")?,
            certificates: pem("client-certificate-data")?,
            key: pem("client-key-data")?,
        })
    }

    /// TLS with this certificate.
    pub fn config(&self) -> anyhow::Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(&self.authorities) {
            roots.add(authority?)?;
        }
        let certificates = CertificateDer::pem_slice_iter(&self.certificates).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)?;
        Ok(ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(certificates, key)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_kubeconfig_are_found() {
        let text = "clusters:\n- name: default\n  cluster:\n    server: https://127.0.0.1:6443\n    certificate-authority-data: Y2E=\n\
                    users:\n- user:\n    client-certificate-data: Y2VydA==\n    client-key-data: a2V5\n";
        let identity = Identity::parse(text).unwrap();
        assert_eq!(identity.authority, "127.0.0.1:6443");
        assert_eq!((identity.authorities, identity.certificates, identity.key), (b"ca".to_vec(), b"cert".to_vec(), b"key".to_vec()));
        assert!(Identity::parse("clusters: []").is_err());
    }
}
