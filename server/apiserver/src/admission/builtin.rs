//! The built-in plugins in upstream's order, and which of them run.
//!
//! Adding one: a file in `plugins/`, a line in [`all`]. Upstream's plugins that are not part of Trireme are named in [`ABSENT`], so that
//! enabling one fails with an explanation.

use super::plugin::{Environment, Plugin};
use super::plugins::{
    certificates::{CertificateApproval, CertificateRequester, CertificateSigning, CertificateSubjectRestriction},
    default_classes::{DefaultIngressClass, DefaultStorageClass},
    disruption_budget::DisruptionBudget,
    escalation::PrivilegeEscalation,
    limit_ranger::LimitRanger,
    mutating_admission_policy::MutatingAdmissionPolicy,
    namespace_lifecycle::NamespaceLifecycle,
    node_restriction::NodeRestriction,
    nodes::TaintNodesByCondition,
    pod_security::PodSecurity,
    policy_expressions::PolicyExpressions,
    priority::Priority,
    resource_quota::ResourceQuota,
    runtime_class::RuntimeClass,
    service_account::ServiceAccount,
    service_allocation::ServiceAllocation,
    storage_protection::StorageObjectInUseProtection,
    tolerations::DefaultTolerationSeconds,
    validating_admission_policy::ValidatingAdmissionPolicy,
    webhooks::{MutatingAdmissionWebhook, ValidatingAdmissionWebhook},
};

/// Checks that are part of the registry upstream. No flag turns them off.
const ALWAYS: &[&str] = &["CertificateRequester", "PolicyExpressions", "PrivilegeEscalation", "ServiceAllocation", "DisruptionBudget"];

/// Plugins of upstream that are not part of Trireme: they can be disabled, not enabled.
const ABSENT: &[&str] = &[
    "AlwaysAdmit",
    "AlwaysDeny",
    "AlwaysPullImages",
    "ClusterTrustBundleAttest",
    "DenyServiceExternalIPs",
    "EventRateLimit",
    "ExtendedResourceToleration",
    "ImagePolicyWebhook",
    "JobValidation",
    "LimitPodHardAntiAffinityTopology",
    "NamespaceAutoProvision",
    "NamespaceExists",
    "NodeDeclaredFeatureValidator",
    "OwnerReferencesPermissionEnforcement",
    "PersistentVolumeClaimResize",
    "PodGroupProtection",
    "PodGroupWorkloadExists",
    "PodNodeSelector",
    "PodResizeValidator",
    "PodTolerationRestriction",
    "PodTopologyLabels",
];

/// The plugins of upstream that are part of Trireme. All of them run by default.
const NAMES: &[&str] = &[
    "CertificateApproval",
    "CertificateSigning",
    "CertificateSubjectRestriction",
    "DefaultIngressClass",
    "DefaultStorageClass",
    "DefaultTolerationSeconds",
    "LimitRanger",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "NamespaceLifecycle",
    "NodeRestriction",
    "PodSecurity",
    "Priority",
    "ResourceQuota",
    "RuntimeClass",
    "ServiceAccount",
    "StorageObjectInUseProtection",
    "TaintNodesByCondition",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
];

/// `--enable-admission-plugins` and `--disable-admission-plugins`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Plugins that run even where they are disabled.
    pub enabled: Vec<String>,
    /// Plugins that do not run.
    pub disabled: Vec<String>,
}

// === impl Selection ===

impl Selection {
    /// Whether all names are those of plugins, and those that are enabled are part of this server.
    ///
    /// # Errors
    /// The name that is wrong.
    pub fn check(&self) -> Result<(), String> {
        for name in &self.enabled {
            if ABSENT.contains(&name.as_str()) {
                return Err(format!("enable-admission-plugins: {name} is not part of this server"));
            }
            if !NAMES.contains(&name.as_str()) {
                return Err(format!("enable-admission-plugins: there is no plugin {name:?}"));
            }
        }
        match self.disabled.iter().find(|name| !NAMES.contains(&name.as_str()) && !ABSENT.contains(&name.as_str())) {
            Some(name) => Err(format!("disable-admission-plugins: there is no plugin {name:?}")),
            None => Ok(()),
        }
    }

    /// Upstream: what is both enabled and disabled runs.
    fn runs(&self, name: &str) -> bool {
        ALWAYS.contains(&name) || self.enabled.iter().any(|one| one == name) || !self.disabled.iter().any(|one| one == name)
    }
}

/// All plugins in upstream's order.
fn all(environment: &Environment) -> Vec<Box<dyn Plugin>> {
    vec![
        Box::new(NamespaceLifecycle::new(environment)),
        Box::new(LimitRanger::new(environment)),
        Box::new(ServiceAccount::new(environment)),
        Box::new(NodeRestriction::new(environment)),
        Box::new(TaintNodesByCondition),
        Box::new(PodSecurity::new(environment)),
        Box::new(Priority::new(environment)),
        Box::new(DefaultTolerationSeconds(environment.tolerations)),
        Box::new(DefaultStorageClass::new(environment)),
        Box::new(StorageObjectInUseProtection),
        Box::new(RuntimeClass::new(environment)),
        Box::new(CertificateRequester),
        Box::new(CertificateApproval::new(environment)),
        Box::new(CertificateSigning::new(environment)),
        Box::new(CertificateSubjectRestriction),
        Box::new(DefaultIngressClass::new(environment)),
        Box::new(MutatingAdmissionPolicy::new(environment)),
        Box::new(MutatingAdmissionWebhook::new(environment)),
        Box::new(ValidatingAdmissionPolicy::new(environment)),
        Box::new(ValidatingAdmissionWebhook::new(environment)),
        Box::new(PolicyExpressions::new(environment)),
        Box::new(PrivilegeEscalation::new(environment)),
        Box::new(ServiceAllocation::new(environment)),
        Box::new(DisruptionBudget::new(environment)),
        // Last: a quota is charged only for objects that no other plugin refuses.
        Box::new(ResourceQuota::new(environment)),
    ]
}

/// The plugins that run, in order.
///
/// # Errors
/// As [`Selection::check`].
pub fn plugins(environment: &Environment, selection: &Selection) -> Result<Vec<Box<dyn Plugin>>, String> {
    selection.check()?;
    Ok(all(environment).into_iter().filter(|plugin| selection.runs(plugin.name())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(enabled: &[&str], disabled: &[&str]) -> Selection {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Selection { enabled: owned(enabled), disabled: owned(disabled) }
    }

    #[test]
    fn d16_a_plugin_is_there_or_refused() {
        assert!(selection(&["Priority"], &["AlwaysPullImages", "RuntimeClass"]).check().is_ok());
        assert!(selection(&["AlwaysPullImages"], &[]).check().unwrap_err().contains("AlwaysPullImages is not part of"));
        assert!(selection(&[], &["Nonsense"]).check().unwrap_err().contains("Nonsense"));
        assert!(selection(&["ServiceAllocation"], &[]).check().is_err(), "no flag turns the registry's own checks on or off");
        assert!(!selection(&[], &["RuntimeClass"]).runs("RuntimeClass"));
        assert!(selection(&["RuntimeClass"], &["RuntimeClass"]).runs("RuntimeClass"));
        assert!(selection(&[], &["DisruptionBudget"]).runs("DisruptionBudget"));
    }
}
