//! A pod's wishes to be, or not to be, where certain other pods are, in a form that is matched again and again. No I/O.

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, WeightedPodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use trireme_client::{Object, labels};

use crate::world::World;

/// A term with its selector completed and its namespaces known.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    /// The label whose value says what is "the same place".
    pub(crate) key: String,
    selector: Option<LabelSelector>,
    namespaces: Vec<String>,
    namespace_selector: Option<LabelSelector>,
}

impl Term {
    fn new(term: &PodAffinityTerm, owner: &Pod) -> Self {
        let mut selector = term.label_selector.clone();
        if let Some(selector) = &mut selector {
            let label = |key: &String| owner.metadata.labels.as_ref().and_then(|labels| labels.get(key)).cloned();
            let mut require = |key: &String, operator: &str| {
                if let Some(value) = label(key) {
                    selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
                        key: key.clone(),
                        operator: operator.to_owned(),
                        values: Some(vec![value]),
                    });
                }
            };
            term.match_label_keys.iter().flatten().for_each(|key| require(key, "In"));
            term.mismatch_label_keys.iter().flatten().for_each(|key| require(key, "NotIn"));
        }
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(owner.namespace().to_owned());
        }
        Self { key: term.topology_key.clone(), selector, namespaces, namespace_selector: term.namespace_selector.clone() }
    }

    /// Whether the term means this pod.
    pub(crate) fn matches(&self, pod: &Pod, world: &dyn World) -> bool {
        let Some(selector) = &self.selector else { return false };
        let in_scope = self.namespaces.iter().any(|name| name == pod.namespace())
            || self.namespace_selector.as_ref().is_some_and(|selector| {
                labels::is_empty(selector)
                    || world.namespace(pod.namespace()).is_some_and(|known| labels::matches(selector, known.metadata.labels.as_ref()))
            });
        in_scope && labels::matches(selector, pod.metadata.labels.as_ref())
    }
}

/// All terms of a pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    /// Required: near these.
    pub(crate) affinity: Vec<Term>,
    /// Required: away from these.
    pub(crate) anti_affinity: Vec<Term>,
    /// Preferred, with weight; anti-affinity's are negative.
    pub(crate) preferred: Vec<(Term, i64)>,
}

impl Terms {
    /// `None` if the pod has none, as most have.
    pub(crate) fn of(pod: &Pod) -> Option<Self> {
        let affinity = pod.spec.as_ref()?.affinity.as_ref()?;
        let near = affinity.pod_affinity.as_ref();
        let far = affinity.pod_anti_affinity.as_ref();
        let required = |terms: Option<&Vec<PodAffinityTerm>>| terms.into_iter().flatten().map(|term| Term::new(term, pod)).collect();
        let preferred = |terms: Option<&Vec<WeightedPodAffinityTerm>>, sign: i64| -> Vec<(Term, i64)> {
            let weighed = |one: &WeightedPodAffinityTerm| (Term::new(&one.pod_affinity_term, pod), sign * i64::from(one.weight));
            terms.into_iter().flatten().map(weighed).collect()
        };
        let mut terms = Self {
            affinity: required(near.and_then(|near| near.required_during_scheduling_ignored_during_execution.as_ref())),
            anti_affinity: required(far.and_then(|far| far.required_during_scheduling_ignored_during_execution.as_ref())),
            preferred: preferred(near.and_then(|near| near.preferred_during_scheduling_ignored_during_execution.as_ref()), 1),
        };
        terms.preferred.extend(preferred(far.and_then(|far| far.preferred_during_scheduling_ignored_during_execution.as_ref()), -1));
        (!terms.is_empty()).then_some(terms)
    }

    fn is_empty(&self) -> bool {
        self.affinity.is_empty() && self.anti_affinity.is_empty() && self.preferred.is_empty()
    }
}
