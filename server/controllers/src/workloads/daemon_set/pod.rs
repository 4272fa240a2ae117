//! The pods of a DaemonSet: made for one node, found by it. No I/O.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Affinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod};
use trireme_client::Object;

use super::eligible::add_tolerations;
use crate::ownership::Children;
use crate::pods;
use crate::workloads::history::{REVISION_LABEL, label};

const NAME_FIELD: &str = "metadata.name";
const GENERATION_LABEL: &str = "pod-template-generation";
const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";

/// What the newest pods of a set carry.
pub(super) struct Newest<'a> {
    /// The hash of the current revision.
    pub(super) hash: &'a str,
    /// How often the template was changed, as text; none if the annotation is no number.
    generation: Option<String>,
}

impl<'a> Newest<'a> {
    pub(super) fn of(set: &DaemonSet, hash: &'a str) -> Self {
        let annotation = set.metadata.annotations.as_ref().and_then(|all| all.get(GENERATION_ANNOTATION));
        let generation: Option<i64> = annotation.and_then(|text| text.parse().ok());
        Self { hash, generation: generation.map(|number| number.to_string()) }
    }

    /// Whether a pod was made from the present template.
    pub(super) fn is(&self, pod: &Pod) -> bool {
        let by_hash = !self.hash.is_empty() && label(&pod.metadata, REVISION_LABEL) == self.hash;
        by_hash || self.generation.as_deref().is_some_and(|generation| label(&pod.metadata, GENERATION_LABEL) == generation)
    }
}

/// The pod for a node.
pub(super) fn new_pod(set: &DaemonSet, newest: &Newest<'_>, node: &str) -> Pod {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = Children::pod_of(set, &template);
    let labels = pod.metadata.labels.get_or_insert_default();
    if let Some(generation) = &newest.generation {
        labels.insert(GENERATION_LABEL.to_owned(), generation.clone());
    }
    labels.insert(REVISION_LABEL.to_owned(), newest.hash.to_owned());
    let spec = pod.spec.get_or_insert_default();
    add_tolerations(spec);
    bind(spec.affinity.get_or_insert_default(), node);
    pod
}

/// Replaces the required node affinity by the name of the node: the controller has evaluated the affinity already.
fn bind(affinity: &mut Affinity, node: &str) {
    let name = NodeSelectorRequirement { key: NAME_FIELD.to_owned(), operator: "In".to_owned(), values: Some(vec![node.to_owned()]) };
    let term = NodeSelectorTerm { match_fields: Some(vec![name]), ..NodeSelectorTerm::default() };
    let affinity = affinity.node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector { node_selector_terms: vec![term] });
}

/// The node that a pod runs on or was made for.
pub(super) fn target(pod: &Pod) -> Option<&str> {
    if let Some(node) = pods::node_name(pod) {
        return Some(node);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let mut fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let name = fields.find(|field| field.key == NAME_FIELD && field.operator == "In")?;
    match name.values.as_deref()? {
        [node] => Some(node),
        _ => None,
    }
}

/// A set's pods by the node that they are for, those that run longest first.
pub(super) type ByNode = BTreeMap<String, Vec<Arc<Pod>>>;

/// Sorts pods by their nodes. Those that are finished and deleted no longer count.
pub(super) fn by_node(all: &[Arc<Pod>]) -> ByNode {
    let mut found = ByNode::new();
    for pod in all.iter().filter(|pod| !(pods::is_terminal(pod) && pods::is_terminating(pod))) {
        if let Some(node) = target(pod) {
            found.entry(node.to_owned()).or_default().push(Arc::clone(pod));
        }
    }
    for pods in found.values_mut() {
        pods.sort_by(|one, other| rank(one).cmp(&rank(other)));
    }
    found
}

/// Bound before unbound, old before young.
fn rank(pod: &Pod) -> (bool, i64, &str) {
    let created = pod.metadata.creation_timestamp.as_ref().map_or(i64::MIN, |time| time.0.as_second());
    (pods::node_name(pod).is_none(), created, pod.name())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_made_for_its_node_and_found_by_it() {
        let set: DaemonSet = serde_json::from_value(json!({
            "metadata": {"name": "log", "namespace": "ns", "uid": "u", "annotations": {GENERATION_ANNOTATION: "3"}},
            "spec": {"selector": {}, "template": {"metadata": {"labels": {"app": "log"}}, "spec": {"containers": [],
                "affinity": {"nodeAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": [],
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "x", "operator": "Exists"}]}]}}}}}},
        }))
        .unwrap();
        let newest = Newest::of(&set, "hash");
        let pod = new_pod(&set, &newest, "n1");
        assert_eq!(target(&pod), Some("n1"));
        let shown = serde_json::to_value(&pod).unwrap();
        assert_eq!(shown["metadata"]["labels"], json!({"app": "log", "controller-revision-hash": "hash", "pod-template-generation": "3"}));
        let required = &shown["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        assert_eq!(required["nodeSelectorTerms"], json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]));
        assert!(newest.is(&pod) && Newest::of(&set, "other").is(&pod), "the generation is enough");
        let mut changed = set;
        changed.metadata.annotations.get_or_insert_default().insert(GENERATION_ANNOTATION.to_owned(), "4".to_owned());
        assert!(Newest::of(&changed, "hash").is(&pod) && !Newest::of(&changed, "other").is(&pod), "so is the hash");
    }
}
