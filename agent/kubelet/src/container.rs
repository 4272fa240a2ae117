//! From a Pod object to what CRI wants: sandbox and container configurations.
//!
//! Everything here is computed from its arguments; files are written by `hosts` and the volumes only. Answers to the CRI's
//! `runtime.v1` and to <https://kubernetes.io/docs/tasks/configure-pod-container/security-context/>.

pub(crate) mod config;
pub(crate) mod dns;
pub(crate) mod env;
mod env_file;
pub(crate) mod fields;
pub(crate) mod hosts;
pub(crate) mod namespaces;
pub(crate) mod resources;
pub(crate) mod sandbox;
pub(crate) mod security;
