//! The operator's endpoints, one family a file, below `/trireme/v1/`: members, tokens, certificates, secrets, scrape targets.
//!
//! Shapes are in [`trireme_api::admin`].

mod certificates;
mod members;
mod secrets;
mod targets;
mod tokens;

pub use certificates::CertificatesOf;
pub use members::Members;
pub use secrets::SecretsOf;
pub use targets::Targets;
pub use tokens::Tokens;
