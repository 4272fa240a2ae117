//! The cluster's certificate authorities and keys: made once at cluster-init, sealed under the
//! join token, shared by every server.
//!
//! Owns: the five authorities (server, client, peer, etcd-client, front-proxy), the certificate
//! profiles, the service-account signing keys, the data encryption keys, their files and their sealed
//! form. Must not do: decide which clients may have a certificate (`join` and `admission` do), talk to the
//! store or the network, or read the clock: the time comes in as an argument.
//!
//! Answers to <https://kubernetes.io/docs/setup/best-practices/certificates/> and
//! <https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/>.

pub mod authority;
pub mod bundle;
pub mod files;
pub mod profile;
pub mod renewal;
pub mod seal;
pub mod service_account;
pub mod sign;

pub use authority::{Authority, Issued};
pub use bundle::{ClusterKeys, DataKey};
pub use files::ServerFiles;
pub use profile::{Profile, ServingNames};
pub use renewal::{Certificates, Shown};
pub use seal::SealedBundle;
pub use service_account::ServiceAccountKeys;
pub use sign::{SignRequest, Signer, SignerName};

/// What can go wrong with keys and certificates.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A certificate or request could not be made or read.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A PEM or DER document that we were given is not what it should be.
    #[error("{what}: {reason}")]
    Malformed {
        /// Which document.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The request asks for something that its signer does not sign.
    #[error("{0}")]
    Refused(String),
    /// The sealed bundle cannot be opened with this token.
    #[error("the cluster keys cannot be unsealed: wrong token or damaged bundle")]
    Unseal,
    /// The key derivation or the cipher itself failed.
    #[error("cryptography: {0}")]
    Crypto(&'static str),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl PkiError {
    pub(crate) fn malformed(what: &'static str, reason: impl std::fmt::Display) -> PkiError {
        PkiError::Malformed { what, reason: reason.to_string() }
    }
}

#[cfg(test)]
mod tests;
