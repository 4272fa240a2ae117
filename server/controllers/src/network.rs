//! Controllers of Services: which addresses stand behind each.

mod desired;
pub(crate) mod endpoint_slice;
pub(crate) mod endpoint_slice_mirroring;
pub(crate) mod endpoints;
mod labels;
pub(crate) mod load_balancer;
mod service;
