//! Authorities that the configuration of a webhook or an extension server names.

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls_pki_types::CertificateDer;

/// The authorities of a `caBundle`: PEM, in base64. None of them is one where it is empty.
///
/// # Errors
/// What is wrong with it.
pub fn roots(bundle: &str) -> Result<RootCertStore, String> {
    use base64::Engine;
    let pem = base64::engine::general_purpose::STANDARD.decode(bundle).map_err(|error| format!("caBundle: {error}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("caBundle: {error}"))?;
        roots.add(certificate).map_err(|error| format!("caBundle: {error}"))?;
    }
    Ok(roots)
}
