//! Definitions in groups of the Kubernetes community: whether their reviewers have approved them, as an annotation says.
//!
//! Upstream: `GetAPIApprovalState` in `apiextensions-apiserver/pkg/apihelpers`, and the controller `apiapproval`.
//!
//! <https://github.com/kubernetes/enhancements/pull/1111>

use super::accept::{self, Condition};

/// The annotation that says it.
pub const ANNOTATION: &str = "api-approved.kubernetes.io";

/// What the annotation says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// There is none.
    Missing,
    /// A reason for which the definition is not approved.
    Bypassed,
    /// Where the approval is.
    Given,
    /// Something else.
    Malformed,
}

// === impl Approval ===

impl Approval {
    /// Reads an annotation; empty: there is none.
    pub fn of(annotation: &str) -> Approval {
        match annotation.split_once("://") {
            _ if annotation.is_empty() => Approval::Missing,
            _ if annotation.starts_with("unapproved") => Approval::Bypassed,
            Some((scheme, rest)) if !scheme.is_empty() && !rest.is_empty() && !rest.starts_with('/') => Approval::Given,
            _ => Approval::Malformed,
        }
    }

    /// Upstream's words for it.
    pub fn message(self, annotation: &str) -> String {
        const MORE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
        match self {
            Approval::Missing => format!("protected groups must have approval annotation \"{ANNOTATION}\", {MORE}"),
            Approval::Bypassed => format!("not approved: {}", crate::field::quote(annotation)),
            Approval::Given => format!("approved in {annotation}"),
            Approval::Malformed => format!(
                "protected groups must have approval annotation \"{ANNOTATION}\" with either a URL or a reason starting with \"unapproved\", {MORE}"
            ),
        }
    }
}

/// Whether a group is the community's.
pub fn is_protected(group: &str) -> bool {
    let within = |domain: &str| group == domain || group.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    within("k8s.io") || within("kubernetes.io")
}

/// The condition of a definition; None: its group is not protected.
pub fn condition(group: &str, annotation: &str) -> Option<Condition> {
    if !is_protected(group) {
        return None;
    }
    let approval = Approval::of(annotation);
    let (status, reason) = match approval {
        Approval::Missing => ("False", "MissingAnnotation"),
        Approval::Bypassed => ("False", "UnapprovedAnnotation"),
        Approval::Given => ("True", "ApprovedAnnotation"),
        Approval::Malformed => ("False", "InvalidAnnotation"),
    };
    Some(accept::condition("KubernetesAPIApprovalPolicyConformant", status, reason, &approval.message(annotation)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_is_upstreams() {
        for (group, annotation, want) in [
            ("example.com", "", None),
            ("notk8s.io", "", None),
            ("k8s.io", "", Some(("False", "MissingAnnotation"))),
            ("x.k8s.io", "https://github.com/kubernetes/kubernetes/pull/78458", Some(("True", "ApprovedAnnotation"))),
            ("x.kubernetes.io", "unapproved, experimental-only", Some(("False", "UnapprovedAnnotation"))),
            ("x.kubernetes.io", "bunk", Some(("False", "InvalidAnnotation"))),
            ("x.kubernetes.io", "https:///path", Some(("False", "InvalidAnnotation"))),
        ] {
            let found = condition(group, annotation);
            let shown = found.as_ref().map(|condition| (condition.status.as_str(), condition.reason.as_str()));
            assert_eq!(shown, want, "{group} {annotation}");
        }
        assert_eq!(condition("k8s.io", "unapproved").unwrap().message, "not approved: \"unapproved\"");
    }
}
