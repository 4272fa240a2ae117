//! Mutual TLS between members: this member's identity, and the check of a peer's.
//!
//! A member is its key (design D8). A certificate must chain to the peer CA, and the SHA-256 of its
//! SubjectPublicKeyInfo must be one that current membership names; host names in it are not looked at, because
//! addresses change. Only TLS 1.3, only ring.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use sha2::{Digest, Sha256};

use crate::error::StoreError;

/// The key pair, certificate chain and peer CA of this member. The certificate may be renewed while peers are served: connections
/// made afterwards show the new one. The key may not change: it is the member's identity.
pub struct PeerIdentity {
    shown: Arc<Shown>,
    roots: Arc<RootCertStore>,
    spki_sha256: Bytes,
}

/// The certificate that is shown now, to both sides of new connections.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

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
        let mut roots = RootCertStore::empty();
        for certificate in certificates("CA", ca)? {
            roots.add(certificate).map_err(|error| bad("CA", error))?;
        }
        let (certified, spki_sha256) = certified(chain, key)?;
        Ok(PeerIdentity { shown: Arc::new(Shown(RwLock::new(Arc::new(certified)))), roots: Arc::new(roots), spki_sha256 })
    }

    /// Shows another certificate for the same key from now on.
    ///
    /// # Errors
    /// `Invalid` where a part is malformed, or the key is another one.
    pub fn renew(&self, chain: &[u8], key: &[u8]) -> Result<(), StoreError> {
        let (certified, spki_sha256) = certified(chain, key)?;
        if spki_sha256 != self.spki_sha256 {
            return Err(StoreError::Invalid("peer certificate: a renewed one must keep the member's key".into()));
        }
        *self.shown.0.write() = Arc::new(certified);
        Ok(())
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
            .with_cert_resolver(self.shown.clone());
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
            .with_client_cert_resolver(self.shown.clone());
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

// === impl Shown ===

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn bad(what: &str, error: impl std::fmt::Display) -> StoreError {
    StoreError::Invalid(format!("peer {what}: {error}"))
}

fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|error| bad(what, error))
}

/// A chain with its key, and the SHA-256 of that key.
fn certified(chain: &[u8], key: &[u8]) -> Result<(CertifiedKey, Bytes), StoreError> {
    let chain = certificates("certificate", chain)?;
    let leaf = chain.first().ok_or_else(|| bad("certificate", "no certificate in it"))?;
    let spki_sha256 = spki_sha256(leaf)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| bad("key", error))?;
    let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(tls_error)?;
    Ok((certified, spki_sha256))
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
