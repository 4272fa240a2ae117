//! Controllers of policies.

pub(crate) mod disruption;
pub(crate) mod network_policy;
pub(crate) mod quota;
