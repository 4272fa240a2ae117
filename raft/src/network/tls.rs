//! Mutual TLS between members: who we are, whom we accept.
//!
//! A member is its key (design D8). A certificate must chain to the peer CA, and the SHA-256 of its
//! SubjectPublicKeyInfo must be one that current membership names; host names in it are not looked at, because
//! addresses change. Only TLS 1.3, only ring.

use std::sync::Arc;

use bytes::Bytes;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use sha2::{Digest, Sha256};

use crate::error::StoreError;

/// The key pair, certificate chain and peer CA of this member.
pub struct PeerIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
    spki_sha256: Bytes,
}

/// Accepts exactly the holder of one key, certified by the peer CA.
#[derive(Debug)]
struct ExpectedPeer {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
    spki_sha256: Bytes,
}

// === impl PeerIdentity ===

impl PeerIdentity {
    /// From PEM: the peer CA's certificates (several during a rotation), our chain (leaf first), our key.
    ///
    /// # Errors
    /// `Invalid` where a part is missing or malformed.
    pub fn from_pem(ca: &[u8], chain: &[u8], key: &[u8]) -> Result<PeerIdentity, StoreError> {
        let bad = |what: &str, error: String| StoreError::Invalid(format!("peer {what}: {error}"));
        let certificates = |what: &str, pem: &[u8]| {
            CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|error| bad(what, error.to_string()))
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates("CA", ca)? {
            roots.add(certificate).map_err(|error| bad("CA", error.to_string()))?;
        }
        let chain = certificates("certificate", chain)?;
        let leaf = chain.first().ok_or_else(|| bad("certificate", "no certificate in it".into()))?;
        let spki_sha256 = spki_sha256(leaf)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| bad("key", error.to_string()))?;
        Ok(PeerIdentity { chain, key, roots: Arc::new(roots), spki_sha256 })
    }

    /// SHA-256 of our SubjectPublicKeyInfo: what membership records of us.
    #[must_use]
    pub fn spki_sha256(&self) -> &Bytes {
        &self.spki_sha256
    }

    pub(crate) fn server_config(&self) -> Result<ServerConfig, StoreError> {
        let provider = provider();
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider.clone())
            .build()
            .map_err(|error| StoreError::Invalid(format!("peer CA: {error}")))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(tls_error)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(tls_error)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    pub(crate) fn client_config(&self, expected_spki_sha256: Bytes) -> Result<ClientConfig, StoreError> {
        let provider = provider();
        let verifier = ExpectedPeer {
            roots: self.roots.clone(),
            algorithms: provider.signature_verification_algorithms,
            spki_sha256: expected_spki_sha256,
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(tls_error)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(tls_error)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

// === impl ExpectedPeer ===

impl ServerCertVerifier for ExpectedPeer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        rustls::client::verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, self.algorithms.all)?;
        // Invariant: the chain is checked before the key is compared; both must hold.
        match spki_sha256(end_entity) {
            Ok(spki) if spki == self.spki_sha256 => Ok(ServerCertVerified::assertion()),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("members speak TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// SHA-256 of a certificate's DER SubjectPublicKeyInfo.
///
/// # Errors
/// `Invalid` where it is not an X.509 certificate.
pub fn spki_sha256(certificate: &CertificateDer<'_>) -> Result<Bytes, StoreError> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|error| StoreError::Invalid(format!("peer certificate: {error}")))?;
    Ok(Bytes::copy_from_slice(&Sha256::digest(parsed.public_key().raw)))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn tls_error(error: rustls::Error) -> StoreError {
    StoreError::Invalid(format!("peer TLS: {error}"))
}
