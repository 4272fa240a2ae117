//! Client certificates: the handshake accepts any, and this module verifies them afterwards.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error as TlsError, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::user::UserInfo;

/// Common names under which the front proxy is believed.
const FRONT_PROXY_NAMES: &[&str] = &["front-proxy-client"];

/// What the certificate of a connection proves.
#[derive(Clone, Debug, Default)]
pub enum Peer {
    /// No certificate was presented.
    #[default]
    None,
    /// A certificate of the client authority.
    Client {
        /// The user that it names.
        user: UserInfo,
        /// Seconds since the epoch after which it proves nothing any more.
        not_after: i64,
    },
    /// The front proxy: its headers name the user.
    FrontProxy {
        /// Seconds since the epoch after which it proves nothing any more.
        not_after: i64,
    },
    /// A certificate that is expired, foreign or otherwise no good.
    Rejected,
}

impl Peer {
    /// The user of a client certificate that is still valid.
    pub fn client(&self, now: Timestamp) -> Option<&UserInfo> {
        match self {
            Peer::Client { user, not_after } if now.as_second() <= *not_after => Some(user),
            _ => None,
        }
    }

    /// Whether this is the front proxy, its certificate still valid.
    pub fn is_front_proxy(&self, now: Timestamp) -> bool {
        matches!(self, Peer::FrontProxy { not_after } if now.as_second() <= *not_after)
    }

    /// Whether there was a certificate, good or bad.
    pub fn was_presented(&self) -> bool {
        !matches!(self, Peer::None)
    }
}

/// Verifies chains against one authority, for client authentication.
#[derive(Debug)]
pub struct ChainVerifier {
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ChainVerifier {
    /// Trusts these authorities.
    pub fn new(authorities: Vec<CertificateDer<'static>>) -> Result<ChainVerifier, Error> {
        let unusable = |error: &dyn std::fmt::Display| Error::Tls(format!("client authority: {error}"));
        let mut roots = RootCertStore::empty();
        for certificate in authorities {
            roots.add(certificate).map_err(|error| unusable(&error))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(|error| unusable(&error))?;
        Ok(ChainVerifier { verifier })
    }

    /// Whether the chain leads to the authority, is valid now, and may authenticate a client.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<(), TlsError> {
        let (leaf, intermediates) = chain.split_first().ok_or(TlsError::NoCertificatesPresented)?;
        let since_epoch = std::time::Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0));
        self.verifier.verify_client_cert(leaf, intermediates, UnixTime::since_unix_epoch(since_epoch)).map(|_| ())
    }
}

/// Judges the chain that a client presented.
pub(super) fn judge(chain: &[CertificateDer<'_>], clients: &ChainVerifier, front_proxies: &ChainVerifier, now: Timestamp) -> Peer {
    if chain.is_empty() {
        return Peer::None;
    }
    let Ok((_, leaf)) = x509_parser::parse_x509_certificate(&chain[0]) else {
        return Peer::Rejected;
    };
    let not_after = leaf.validity().not_after.timestamp();
    match clients.verify(chain, now) {
        Ok(()) => {
            let user = user_of(&leaf, &chain[0]);
            if user.name.is_empty() {
                return Peer::Rejected;
            }
            return Peer::Client { user, not_after };
        }
        Err(error) => tracing::debug!(%error, "client certificate is not of the client authority"),
    }
    let common_name = leaf.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    if front_proxies.verify(chain, now).is_ok() && common_name.is_some_and(|name| FRONT_PROXY_NAMES.contains(&name)) {
        return Peer::FrontProxy { not_after };
    }
    Peer::Rejected
}

/// Common name is the user, organizations are the groups.
fn user_of(leaf: &x509_parser::certificate::X509Certificate<'_>, der: &[u8]) -> UserInfo {
    let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().unwrap_or_default().to_owned();
    let credential = format!("X509SHA256={}", hex::encode(Sha256::digest(der)));
    UserInfo {
        name: leaf.subject().iter_common_name().next().map(text).unwrap_or_default(),
        uid: String::new(),
        groups: leaf.subject().iter_organization().map(text).collect(),
        extra: [("authentication.kubernetes.io/credential-id".to_owned(), vec![credential])].into(),
    }
}

/// For the TLS handshake: asks for a certificate, requires none, and takes any whose key the client holds.
/// The certificate is verified after the handshake, because a bad one must be answered by a `Status`.
pub fn accept_any_verifier() -> Arc<dyn ClientCertVerifier> {
    Arc::new(AcceptAny { provider: Arc::new(rustls::crypto::ring::default_provider()) })
}

#[derive(Debug)]
struct AcceptAny {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AcceptAny {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // No hint: clients would hold back a foreign certificate and be taken for anonymous.
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
