//! The status of a budget. No I/O.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use trireme_client::Object;

use super::expected::Expected;
use crate::pods;
use crate::runtime::clock::seconds_since;

/// An evicted pod that is still there after this was not evicted.
const DELETION_TIMEOUT_SECS: i64 = 120;
const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";

type Disrupted = BTreeMap<String, Time>;

/// The evictions that are not confirmed yet, and the pods of those that never will be.
pub(super) fn disrupted(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], now: Timestamp) -> (Disrupted, Vec<Arc<Pod>>) {
    let (mut waiting, mut undeleted) = (Disrupted::new(), Vec::new());
    let Some(noted) = budget.status.as_ref().and_then(|status| status.disrupted_pods.as_ref()) else { return (waiting, undeleted) };
    for pod in pods.iter().filter(|pod| !pods::is_terminating(pod)) {
        let Some(since) = noted.get(pod.name()) else { continue };
        if seconds_since(since, now) > DELETION_TIMEOUT_SECS {
            undeleted.push(Arc::clone(pod));
        } else {
            waiting.insert(pod.name().to_owned(), since.clone());
        }
    }
    (waiting, undeleted)
}

/// When the first unconfirmed eviction is to be looked at again.
pub(super) fn recheck_secs(disrupted: &Disrupted, now: Timestamp) -> Option<i64> {
    disrupted.values().map(|since| DELETION_TIMEOUT_SECS - seconds_since(since, now) + 1).min()
}

pub(super) fn status(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    expected: &Expected,
    disrupted: Disrupted,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let healthy = |pod: &&Arc<Pod>| !pods::is_terminating(pod) && !disrupted.contains_key(pod.name()) && pods::is_ready(pod);
    let current = i32::try_from(pods.iter().filter(healthy).count()).unwrap_or(i32::MAX);
    let allowed = if expected.pods <= 0 { 0 } else { current.saturating_sub(expected.healthy).max(0) };
    let reason = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
    PodDisruptionBudgetStatus {
        current_healthy: Some(current),
        desired_healthy: Some(expected.healthy),
        expected_pods: Some(expected.pods),
        disruptions_allowed: Some(allowed),
        disrupted_pods: Some(disrupted).filter(|pods| !pods.is_empty()),
        observed_generation: budget.metadata.generation,
        conditions: Some(with_condition(budget, allowed > 0, reason, "", budget.metadata.generation, now)),
    }
}

/// The status of a budget that cannot be counted: no pod may be evicted.
pub(super) fn failed(budget: &PodDisruptionBudget, message: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    let old = budget.status.clone().unwrap_or_default();
    let conditions = with_condition(budget, false, "SyncFailed", message, old.observed_generation, now);
    PodDisruptionBudgetStatus { disruptions_allowed: Some(0), conditions: Some(conditions), ..old }
}

fn with_condition(
    budget: &PodDisruptionBudget,
    allowed: bool,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut conditions = budget.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let status = if allowed { "True" } else { "False" };
    let known = conditions.iter().position(|condition| condition.type_ == DISRUPTION_ALLOWED);
    let since = known.map(|at| &conditions[at]).filter(|condition| condition.status == status);
    let condition = Condition {
        type_: DISRUPTION_ALLOWED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: since.map_or(Time(now), |condition| condition.last_transition_time.clone()),
    };
    match known {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
    conditions
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn pod(name: &str, ready: bool) -> Arc<Pod> {
        let ready = if ready { "True" } else { "False" };
        let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "namespace": "ns"}, "status": status})).unwrap())
    }

    #[test]
    fn d06_what_may_be_evicted_is_what_is_healthy_beyond_what_must_be() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let mut budget: PodDisruptionBudget = serde_json::from_value(json!({"metadata": {"name": "b", "generation": 4}})).unwrap();
        let pods = [pod("a", true), pod("b", true), pod("c", false), pod("d", true)];
        let expected = Expected { pods: 4, healthy: 2, unmanaged: false };
        let counted = status(&budget, &pods, &expected, Disrupted::new(), now);
        assert_eq!((counted.current_healthy, counted.disruptions_allowed, counted.observed_generation), (Some(3), Some(1), Some(4)));
        assert_eq!(counted.conditions.as_ref().unwrap()[0].reason, "SufficientPods");
        assert_eq!(
            status(&budget, &pods, &Expected { pods: 0, healthy: 0, unmanaged: true }, Disrupted::new(), now).disruptions_allowed,
            Some(0)
        );

        // An eviction that was allowed counts until its pod is gone, or for two minutes.
        let mut noted = counted;
        let at = |text: &str| Time(text.parse().unwrap());
        noted.disrupted_pods = Some(Disrupted::from([
            ("a".to_owned(), at("2026-01-01T00:09:30Z")),
            ("b".to_owned(), at("2026-01-01T00:07:00Z")),
            ("gone".to_owned(), at("2026-01-01T00:09:30Z")),
        ]));
        budget.status = Some(noted);
        let (waiting, undeleted) = disrupted(&budget, &pods, now);
        assert_eq!(waiting.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(undeleted.iter().map(|pod| pod.name()).collect::<Vec<_>>(), ["b"]);
        assert_eq!(recheck_secs(&waiting, now), Some(91));
        let again = status(&budget, &pods, &expected, waiting, now);
        assert_eq!((again.current_healthy, again.disruptions_allowed), (Some(2), Some(0)));
        assert_eq!(again.conditions.as_ref().unwrap()[0].reason, "InsufficientPods");
    }
}
