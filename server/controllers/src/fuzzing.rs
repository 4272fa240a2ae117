//! Entry points for fuzzing: the functions that check documents from untrusted clients. Only with the feature `fuzzing`.

/// Whether a certificate request is one that a kubelet may make for itself.
#[must_use]
pub fn is_kubelets_request(pem: &[u8]) -> bool {
    crate::identity::csr::is_kubelets_request(pem)
}
