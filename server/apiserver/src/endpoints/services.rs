//! What only Services have: the way to one of their pods.

pub mod proxy;
