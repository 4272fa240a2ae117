//! The keys that an API server is started with.

use rustls_pki_types::CertificateDer;

use crate::authn::SigningKey;

/// What the API server trusts, signs and seals with. How a cluster makes and keeps these is not its concern.
#[derive(Default)]
pub struct ServerKeys {
    /// The authorities of client certificates.
    pub client_authorities: Vec<CertificateDer<'static>>,
    /// The authorities of front proxies.
    pub front_proxy_authorities: Vec<CertificateDer<'static>>,
    /// Service-account keys; the first one signs, all of them verify.
    pub service_account: Vec<SigningKey>,
    /// Keys of data at rest, each with its id; the first one seals, all of them open.
    pub data: Vec<(String, [u8; 32])>,
}
