//! What judges documents of strangers, for random input. Only with the feature `fuzzing`; nothing else uses it.

/// Whether a certificate request is one that a kubelet may make for itself.
#[must_use]
pub fn is_kubelets_request(pem: &[u8]) -> bool {
    crate::identity::csr::is_kubelets_request(pem)
}
