//! Kinds of the group `authentication.k8s.io`.

pub(crate) mod token_request;
