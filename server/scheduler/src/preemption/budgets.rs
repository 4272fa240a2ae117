//! Finds the pods whose preemption violates a disruption budget. No I/O.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use trireme_client::{Object, labels};

use crate::node_info::PodInfo;

/// Splits pods, most important first, into those whose preemption violates a budget if all before them leave, and the rest. Both
/// keep the order.
pub(crate) fn split(pods: Vec<Arc<PodInfo>>, budgets: &[Arc<PodDisruptionBudget>]) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let allowed = |budget: &Arc<PodDisruptionBudget>| budget.status.as_ref().and_then(|status| status.disruptions_allowed).unwrap_or(0);
    let mut left: Vec<i32> = budgets.iter().map(allowed).collect();
    pods.into_iter().partition(|pod| {
        let mut breaks = false;
        for (_, left) in budgets.iter().zip(&mut left).filter(|(budget, _)| protects(budget, &pod.pod)) {
            *left = left.saturating_sub(1);
            breaks |= *left < 0;
        }
        breaks
    })
}

/// Whether the budget counts the pod. One without a selector, or with one that selects everything, protects nothing here; a
/// pod whose eviction the budget has granted is counted already.
fn protects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let granted = budget.status.as_ref().and_then(|status| status.disrupted_pods.as_ref());
    budget.namespace() == pod.namespace()
        && pod.metadata.labels.as_ref().is_some_and(|labels| !labels.is_empty())
        && selector.is_some_and(|selector| !labels::is_empty(selector) && labels::matches(selector, pod.metadata.labels.as_ref()))
        && !granted.is_some_and(|granted| granted.contains_key(pod.name()))
}
