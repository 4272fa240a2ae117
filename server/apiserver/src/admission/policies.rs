//! Admission policies: compiles their expressions and computes the outcome for a request.
//!
//! The plugins are in `plugins/validating_admission_policy.rs` and `plugins/mutating_admission_policy.rs`. Owns the matching of policies,
//! bindings and parameters. Must not do: evaluate expressions ([`super::cel`]), or change an object itself.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/> and
//! <https://kubernetes.io/docs/reference/access-authn-authz/mutating-admission-policy/>.

pub mod binding;
pub mod configuration;
pub mod constraints;
pub mod mutation;
pub mod params;
pub mod policy;
pub mod validation;

use super::request::AdmissionRequest;

/// The group of policies and bindings.
pub const GROUP: &str = "admissionregistration.k8s.io";

/// Whether the request is about a policy or a binding. No policy is asked about these: they would have to be in order to be mended.
pub fn is_policy(request: &AdmissionRequest) -> bool {
    const PLURALS: [&str; 4] = [
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
    ];
    request.resource.group == GROUP && PLURALS.contains(&&*request.resource.resource)
}

/// Runs an evaluation on a thread that may be kept busy: it takes bounded, but not little time.
///
/// # Errors
/// It did not end.
pub async fn off_the_reactor<T: Send + 'static>(evaluation: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(evaluation).await.map_err(|error| format!("the evaluation failed: {error}"))
}
