//! One constraint: which pods and which nodes it counts.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Pod, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use trireme_client::{Object, labels, placement};

use crate::node_info::NodeInfo;

/// A constraint, its selector completed.
pub(super) struct Constraint<'a> {
    /// The label whose values are the domains.
    pub(super) key: &'a str,
    pub(super) max_skew: i64,
    pub(super) min_domains: usize,
    /// A constraint without a selector counts nothing.
    selector: Option<Cow<'a, LabelSelector>>,
    honors_affinity: bool,
    honors_taints: bool,
}

impl<'a> Constraint<'a> {
    pub(super) fn new(spec: &'a TopologySpreadConstraint, pod: &Pod) -> Self {
        let mut selector = spec.label_selector.as_ref().map(Cow::Borrowed);
        for key in spec.match_label_keys.iter().flatten() {
            let value = pod.metadata.labels.as_ref().and_then(|labels| labels.get(key));
            if let (Some(selector), Some(value)) = (&mut selector, value) {
                selector.to_mut().match_labels.get_or_insert_default().insert(key.clone(), value.clone());
            }
        }
        Self {
            key: &spec.topology_key,
            max_skew: i64::from(spec.max_skew),
            min_domains: usize::try_from(spec.min_domains.unwrap_or(1)).unwrap_or(1),
            selector,
            honors_affinity: spec.node_affinity_policy.as_deref().unwrap_or("Honor") == "Honor",
            honors_taints: spec.node_taints_policy.as_deref().unwrap_or("Ignore") == "Honor",
        }
    }

    /// One that every pod has by default, with the selector of what it belongs to.
    pub(super) fn default(key: &'a str, max_skew: i64, selector: &LabelSelector) -> Self {
        let selector = Some(Cow::Owned(selector.clone()));
        Self { key, max_skew, min_domains: 1, selector, honors_affinity: true, honors_taints: false }
    }

    pub(super) fn selects(&self, pod: &Pod) -> bool {
        self.selector.as_ref().is_some_and(|selector| labels::matches(selector, pod.metadata.labels.as_ref()))
    }

    /// Whether `other`, on a node, counts when `pod` is placed. Pods that terminate do not; nor does upstream count anything
    /// for a selector that selects everything.
    pub(super) fn counts(&self, other: &Pod, pod: &Pod) -> bool {
        other.namespace() == pod.namespace()
            && other.metadata.deletion_timestamp.is_none()
            && self.selector.as_ref().is_some_and(|selector| !labels::is_empty(selector))
            && self.selects(other)
    }

    /// How many pods of a node count.
    pub(super) fn count(&self, node: &NodeInfo, pod: &Pod) -> i64 {
        i64::try_from(node.pods.values().filter(|other| self.counts(&other.pod, pod)).count()).unwrap_or(i64::MAX)
    }

    /// Whether a node's pods count at all.
    pub(super) fn includes(&self, pod: &Pod, node: &NodeInfo) -> bool {
        let accepted = || pod.spec.as_ref().is_none_or(|spec| placement::accepts(spec, &node.node));
        if self.honors_affinity && !accepted() {
            return false;
        }
        if !self.honors_taints {
            return true;
        }
        let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
        let taints = node.node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        taints
            .iter()
            .filter(|taint| taint.effect != "PreferNoSchedule")
            .all(|taint| tolerations.iter().any(|toleration| placement::tolerates(toleration, taint)))
    }
}
