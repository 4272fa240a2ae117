//! Authorities that the configuration of a webhook or an extension server names, and those that the system trusts.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls_pki_types::CertificateDer;

/// Where systems keep the authorities that they trust.
const SYSTEM_ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The authorities that the system trusts.
///
/// # Errors
/// There are none.
pub fn system_roots() -> Result<RootCertStore, String> {
    SYSTEM_ROOTS.iter().find_map(|path| file_roots(path.as_ref()).ok()).ok_or_else(|| "this system has no trusted authorities".to_owned())
}

/// The authorities in a file.
///
/// # Errors
/// Why it has none.
pub fn file_roots(path: &Path) -> Result<RootCertStore, String> {
    pem_roots(&std::fs::read(path).map_err(|error| error.to_string())?)
}

/// The authorities in PEM text.
///
/// # Errors
/// Why it has none.
pub fn pem_roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        // One that this library does not read is no reason to trust none.
        let _ = roots.add(certificate.map_err(|error| error.to_string())?);
    }
    if roots.is_empty() { Err("it has no certificate of an authority".to_owned()) } else { Ok(roots) }
}

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
