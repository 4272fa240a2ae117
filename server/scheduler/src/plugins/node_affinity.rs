//! `nodeSelector` and node affinity, required and preferred.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/>.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{NodeAffinity as Affinity, NodeSelectorRequirement, Pod};
use trireme_client::placement::{accepts, term_matches};

use crate::framework::{Plugin, Prepared, Refusal, Snapshot, Wake, normalize};
use crate::node_info::{NodeInfo, PodInfo};

pub(crate) struct NodeAffinity;
struct Wanted<'a>(&'a Pod);

fn affinity(pod: &Pod) -> Option<&Affinity> {
    pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()
}

/// The nodes that every term of the required affinity names (as those of a DaemonSet's pods do): no other node can do.
fn named_nodes(pod: &Pod) -> Option<BTreeSet<String>> {
    let required = affinity(pod)?.required_during_scheduling_ignored_during_execution.as_ref()?;
    let mut all: Option<BTreeSet<String>> = None;
    for term in &required.node_selector_terms {
        let named = term.match_fields.iter().flatten().filter(|field| field.key == "metadata.name" && field.operator == "In");
        let of = |field: &NodeSelectorRequirement| -> BTreeSet<String> { field.values.iter().flatten().cloned().collect() };
        let here = named.map(of).reduce(|one, other| one.intersection(&other).cloned().collect())?;
        all.get_or_insert_default().extend(here);
    }
    all
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn pre_filter(&self, pod: &PodInfo, _snapshot: &Snapshot<'_>) -> Result<Option<BTreeSet<String>>, Refusal> {
        match named_nodes(&pod.pod) {
            Some(names) if names.is_empty() => Err(Refusal::lasting("pod affinity terms conflict")),
            names => Ok(names),
        }
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, _snapshot: &'a Snapshot<'a>) -> Option<Box<dyn Prepared + 'a>> {
        let selects = pod.pod.spec.as_ref().is_some_and(|spec| spec.node_selector.as_ref().is_some_and(|selector| !selector.is_empty()));
        if selects || affinity(&pod.pod).is_some() { Some(Box::new(Wanted(&pod.pod))) } else { None }
    }

    fn weight(&self) -> i64 {
        2
    }

    fn wakes_on(&self, wake: Wake) -> bool {
        wake == Wake::NodeChanged
    }
}

impl Prepared for Wanted<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Refusal> {
        let accepted = self.0.spec.as_ref().is_none_or(|spec| accepts(spec, &node.node));
        if accepted { Ok(()) } else { Err(Refusal::lasting("node(s) didn't match Pod's node affinity/selector")) }
    }

    fn score(&self, nodes: &[&NodeInfo]) -> Vec<i64> {
        let preferred = affinity(self.0)
            .and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_deref())
            .unwrap_or_default();
        let sum = |node: &&NodeInfo| {
            preferred.iter().filter(|term| term_matches(&term.preference, &node.node)).map(|term| i64::from(term.weight)).sum()
        };
        normalize(nodes.iter().map(sum).collect(), false)
    }
}
