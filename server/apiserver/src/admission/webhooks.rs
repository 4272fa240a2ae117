//! Admission webhooks: their configurations, the requests to them, and the evaluation of their answers.
//!
//! The plugins are in `plugins/webhooks.rs`. Owns the protocol (`admission.k8s.io/v1` and `v1beta1`) and the rule what a failure means;
//! connections are those of [`crate::egress::webhooks`]. Must not: decide the order of plugins, or hold configuration of its own: it follows the objects.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>.

pub mod configuration;
pub mod review;
