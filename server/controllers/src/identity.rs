//! Controllers of identities: service accounts, certificates, aggregated roles.

pub(crate) mod cluster_role;
pub(crate) mod csr;
pub(crate) mod root_ca;
pub(crate) mod service_account;
pub(crate) mod token_cleaner;
pub(crate) mod token_secret;
