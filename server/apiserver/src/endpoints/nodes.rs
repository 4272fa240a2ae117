//! What only nodes have: the way to their kubelets.

pub mod kubelet;
pub mod proxy;
