//! The built-in plugins in upstream's order, and which of them run.
//!
//! Adding one: a file in `plugins/`, an entry in [`PLUGINS`]. Upstream's plugins that are not part of Trireme are named in [`ABSENT`], so that
//! enabling one fails with an explanation.

use super::plugin::{Environment, Plugin};
use super::plugins::{
    always_admit::AlwaysAdmit,
    always_pull_images::AlwaysPullImages,
    anti_affinity_topology::LimitPodHardAntiAffinityTopology,
    certificates::{CertificateApproval, CertificateRequester, CertificateSigning, CertificateSubjectRestriction},
    claim_resize::PersistentVolumeClaimResize,
    default_classes::{DefaultIngressClass, DefaultStorageClass},
    disruption_budget::DisruptionBudget,
    escalation::PrivilegeEscalation,
    event_rate_limit::EventRateLimit,
    extended_resources::ExtendedResourceToleration,
    external_ips::DenyServiceExternalIps,
    limit_ranger::LimitRanger,
    mutating_admission_policy::MutatingAdmissionPolicy,
    namespace_autoprovision::NamespaceAutoProvision,
    namespace_exists::NamespaceExists,
    namespace_lifecycle::NamespaceLifecycle,
    node_restriction::NodeRestriction,
    nodes::TaintNodesByCondition,
    owner_references::OwnerReferencesPermissionEnforcement,
    pod_node_selector::PodNodeSelector,
    pod_resize::PodResizeValidator,
    pod_security::PodSecurity,
    pod_toleration_restriction::PodTolerationRestriction,
    pod_topology_labels::PodTopologyLabels,
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

/// Plugins of upstream that are not part of Trireme: they can be disabled, not enabled. `docs/admission.md` says why.
const ABSENT: &[&str] = &[
    "AlwaysDeny",
    "ClusterTrustBundleAttest",
    "ImagePolicyWebhook",
    "JobValidation",
    "NodeDeclaredFeatureValidator",
    "PodGroupProtection",
    "PodGroupWorkloadExists",
];

/// The plugins that read a section of the configuration file.
const CONFIGURED: &[&str] = &["EventRateLimit", "PodNodeSelector", "PodTolerationRestriction"];

/// When a plugin runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runs {
    /// It is part of the registry upstream, so no flag turns it off.
    Always,
    /// Unless it is disabled.
    ByDefault,
    /// Where it is enabled.
    OnRequest,
}

type Made = Result<Box<dyn Plugin>, String>;

/// A plugin and how it is made.
struct Entry {
    name: &'static str,
    runs: Runs,
    make: fn(&Environment) -> Made,
}

const fn always(name: &'static str, make: fn(&Environment) -> Made) -> Entry {
    Entry { name, runs: Runs::Always, make }
}

const fn on(name: &'static str, make: fn(&Environment) -> Made) -> Entry {
    Entry { name, runs: Runs::ByDefault, make }
}

const fn off(name: &'static str, make: fn(&Environment) -> Made) -> Entry {
    Entry { name, runs: Runs::OnRequest, make }
}

fn made(plugin: impl Plugin) -> Made {
    Ok(Box::new(plugin))
}

/// All plugins in upstream's order, on or off by default as upstream.
const PLUGINS: &[Entry] = &[
    off("AlwaysAdmit", |_| made(AlwaysAdmit)),
    off("NamespaceAutoProvision", |environment| made(NamespaceAutoProvision::new(environment))),
    on("NamespaceLifecycle", |environment| made(NamespaceLifecycle::new(environment))),
    off("NamespaceExists", |environment| made(NamespaceExists::new(environment))),
    off("LimitPodHardAntiAffinityTopology", |_| made(LimitPodHardAntiAffinityTopology)),
    on("LimitRanger", |environment| made(LimitRanger::new(environment))),
    on("ServiceAccount", |environment| made(ServiceAccount::new(environment))),
    on("NodeRestriction", |environment| made(NodeRestriction::new(environment))),
    on("TaintNodesByCondition", |_| made(TaintNodesByCondition)),
    off("AlwaysPullImages", |_| made(AlwaysPullImages)),
    on("PodSecurity", |environment| made(PodSecurity::new(environment))),
    off("PodNodeSelector", |environment| made(PodNodeSelector::new(environment)?)),
    on("Priority", |environment| made(Priority::new(environment))),
    on("DefaultTolerationSeconds", |environment| made(DefaultTolerationSeconds(environment.tolerations))),
    off("PodTolerationRestriction", |environment| made(PodTolerationRestriction::new(environment)?)),
    off("EventRateLimit", |environment| made(EventRateLimit::new(environment)?)),
    off("ExtendedResourceToleration", |_| made(ExtendedResourceToleration)),
    on("DefaultStorageClass", |environment| made(DefaultStorageClass::new(environment))),
    on("StorageObjectInUseProtection", |_| made(StorageObjectInUseProtection)),
    off("OwnerReferencesPermissionEnforcement", |environment| made(OwnerReferencesPermissionEnforcement::new(environment))),
    on("PersistentVolumeClaimResize", |environment| made(PersistentVolumeClaimResize::new(environment))),
    on("RuntimeClass", |environment| made(RuntimeClass::new(environment))),
    always("CertificateRequester", |_| made(CertificateRequester)),
    on("CertificateApproval", |environment| made(CertificateApproval::new(environment))),
    on("CertificateSigning", |environment| made(CertificateSigning::new(environment))),
    on("CertificateSubjectRestriction", |_| made(CertificateSubjectRestriction)),
    on("DefaultIngressClass", |environment| made(DefaultIngressClass::new(environment))),
    off("DenyServiceExternalIPs", |_| made(DenyServiceExternalIps)),
    on("PodTopologyLabels", |environment| made(PodTopologyLabels::new(environment))),
    on("PodResizeValidator", |environment| made(PodResizeValidator::new(environment))),
    on("MutatingAdmissionPolicy", |environment| made(MutatingAdmissionPolicy::new(environment))),
    on("MutatingAdmissionWebhook", |environment| made(MutatingAdmissionWebhook::new(environment))),
    on("ValidatingAdmissionPolicy", |environment| made(ValidatingAdmissionPolicy::new(environment))),
    on("ValidatingAdmissionWebhook", |environment| made(ValidatingAdmissionWebhook::new(environment))),
    always("PolicyExpressions", |environment| made(PolicyExpressions::new(environment))),
    always("PrivilegeEscalation", |environment| made(PrivilegeEscalation::new(environment))),
    always("ServiceAllocation", |environment| made(ServiceAllocation::new(environment))),
    always("DisruptionBudget", |environment| made(DisruptionBudget::new(environment))),
    // Last: a quota is charged only for objects that no other plugin refuses.
    on("ResourceQuota", |environment| made(ResourceQuota::new(environment))),
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
            if !has_switch(name) {
                return Err(format!("enable-admission-plugins: there is no plugin {name:?}"));
            }
        }
        match self.disabled.iter().find(|name| !has_switch(name) && !ABSENT.contains(&name.as_str())) {
            Some(name) => Err(format!("disable-admission-plugins: there is no plugin {name:?}")),
            None => Ok(()),
        }
    }

    /// Upstream: what is both enabled and disabled runs.
    fn runs(&self, entry: &Entry) -> bool {
        let is_in = |names: &[String]| names.iter().any(|name| name == entry.name);
        match entry.runs {
            Runs::Always => true,
            Runs::ByDefault => is_in(&self.enabled) || !is_in(&self.disabled),
            Runs::OnRequest => is_in(&self.enabled),
        }
    }
}

/// Whether flags turn a plugin of this name on and off.
fn has_switch(name: &str) -> bool {
    PLUGINS.iter().any(|entry| entry.name == name && entry.runs != Runs::Always)
}

/// The plugins that run, in order.
///
/// # Errors
/// As [`Selection::check`], and what is wrong with the configuration of a plugin.
pub fn plugins(environment: &Environment, selection: &Selection) -> Result<Vec<Box<dyn Plugin>>, String> {
    selection.check()?;
    if let Some(name) = environment.configuration.names().find(|name| !CONFIGURED.contains(name)) {
        return Err(format!(
            "admission-control-config-file: plugin {name:?} takes no configuration here; those that do: {}",
            CONFIGURED.join(", ")
        ));
    }
    let running = PLUGINS.iter().filter(|entry| selection.runs(entry));
    running.map(|entry| (entry.make)(environment).map_err(|why| format!("admission plugin {}: {why}", entry.name))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::admission::configuration::Configuration;
    use crate::admission::tests::world;

    fn selection(enabled: &[&str], disabled: &[&str]) -> Selection {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Selection { enabled: owned(enabled), disabled: owned(disabled) }
    }

    fn runs(selection: &Selection, name: &str) -> bool {
        PLUGINS.iter().any(|entry| entry.name == name && selection.runs(entry))
    }

    #[test]
    fn d16_a_plugin_is_there_or_refused() {
        assert!(selection(&["Priority"], &["AlwaysPullImages", "RuntimeClass", "PodGroupProtection"]).check().is_ok());
        assert!(selection(&["ImagePolicyWebhook"], &[]).check().unwrap_err().contains("ImagePolicyWebhook is not part of"));
        assert!(selection(&[], &["Nonsense"]).check().unwrap_err().contains("Nonsense"));
        assert!(selection(&["ServiceAllocation"], &[]).check().is_err(), "no flag turns the registry's own checks on or off");
        assert!(!runs(&selection(&[], &["RuntimeClass"]), "RuntimeClass"));
        assert!(runs(&selection(&["RuntimeClass"], &["RuntimeClass"]), "RuntimeClass"));
        assert!(runs(&selection(&[], &["DisruptionBudget"]), "DisruptionBudget"));
        assert!(runs(&selection(&[], &[]), "PodTopologyLabels") && !runs(&selection(&[], &[]), "AlwaysPullImages"));
        assert!(runs(&selection(&["AlwaysPullImages"], &["AlwaysPullImages"]), "AlwaysPullImages"));
    }

    #[test]
    fn entries_bear_the_names_of_their_plugins() {
        let limits = json!([{"type": "Server", "qps": 1, "burst": 1}]);
        let section = json!({"apiVersion": "eventratelimit.admission.k8s.io/v1alpha1", "kind": "Configuration", "limits": limits});
        let environment = Environment { configuration: Arc::new(Configuration::of("EventRateLimit", section)), ..world().environment };
        let names: Vec<&str> = PLUGINS.iter().map(|entry| entry.name).collect();
        let made: Vec<&str> = PLUGINS.iter().map(|entry| (entry.make)(&environment).unwrap().name()).collect();
        assert_eq!(names, made);
        let all: BTreeSet<&str> = names.iter().chain(ABSENT).copied().collect();
        assert_eq!(all.len(), names.len() + ABSENT.len());
        assert!(CONFIGURED.iter().all(|name| names.contains(name)));
    }

    #[test]
    fn the_document_lists_every_plugin_in_order() {
        let document = include_str!("../../../../docs/admission.md");
        let rows = document.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
        let (absent, there): (Vec<_>, Vec<_>) = rows
            .filter_map(|(name, rest)| Some((name, rest.split_once(" |")?.0)))
            .filter(|(name, _)| *name != "plugin")
            .partition(|(_, state)| *state == "absent");
        let state = |entry: &Entry| if entry.runs == Runs::ByDefault { "on" } else { "off" };
        let switched = PLUGINS.iter().filter(|entry| entry.runs != Runs::Always);
        assert_eq!(there, switched.map(|entry| (entry.name, state(entry))).collect::<Vec<_>>());
        assert_eq!(absent.into_iter().map(|(name, _)| name).collect::<BTreeSet<_>>(), ABSENT.iter().copied().collect());
    }

    #[test]
    fn a_section_is_read_or_refused() {
        let made = |plugin: &str, enabled: &[&str]| {
            let configuration = Arc::new(Configuration::of(plugin, json!({"x": 1})));
            plugins(&Environment { configuration, ..world().environment }, &selection(enabled, &[])).map(|_| ())
        };
        assert!(made("PodSecurity", &[]).unwrap_err().contains("plugin \"PodSecurity\" takes no configuration here"));
        assert_eq!(made("EventRateLimit", &[]), Ok(()), "what does not run is not configured");
        assert!(made("EventRateLimit", &["EventRateLimit"]).unwrap_err().starts_with("admission plugin EventRateLimit: expected kind"));
    }
}
