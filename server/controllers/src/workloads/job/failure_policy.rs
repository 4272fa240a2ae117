//! What a Job's `podFailurePolicy` says about a failed pod. No I/O.

use k8s_openapi::api::batch::v1::{PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use trireme_client::Object;

/// What a failed pod means for its Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It counts towards the backoff limit.
    Counts,
    /// It does not.
    Ignored,
    /// Its index has failed, however often it may be tried.
    FailsIndex,
    /// The Job has failed, for this reason.
    FailsJob(String),
}

/// The first rule that matches decides; without one the pod counts.
pub(super) fn meaning(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Meaning {
    for (at, rule) in policy.iter().flat_map(|policy| policy.rules.iter()).enumerate() {
        let why = match (&rule.on_exit_codes, &rule.on_pod_conditions) {
            (Some(codes), _) => exit_code(codes, pod).map(|(container, code)| {
                let (namespace, name, action) = (pod.namespace(), pod.name(), &rule.action);
                format!(
                    "Container {container} for pod {namespace}/{name} failed with exit code {code} matching {action} rule at index {at}"
                )
            }),
            (None, Some(patterns)) => patterns
                .iter()
                .find(|pattern| {
                    let status = pattern.status.as_deref().unwrap_or("True");
                    crate::pods::condition(pod, &pattern.type_).is_some_and(|condition| condition.status == status)
                })
                .map(|pattern| {
                    let (namespace, name, action) = (pod.namespace(), pod.name(), &rule.action);
                    format!("Pod {namespace}/{name} has condition {} matching {action} rule at index {at}", pattern.type_)
                }),
            (None, None) => None,
        };
        let Some(why) = why else { continue };
        match rule.action.as_str() {
            "Ignore" => return Meaning::Ignored,
            "FailIndex" => return Meaning::FailsIndex,
            "FailJob" => return Meaning::FailsJob(why),
            "Count" => return Meaning::Counts,
            _ => {}
        }
    }
    Meaning::Counts
}

/// The first container that ended with a code that the requirement matches.
fn exit_code<'a>(wanted: &PodFailurePolicyOnExitCodesRequirement, pod: &'a Pod) -> Option<(&'a str, i32)> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    containers
        .filter(|container| wanted.container_name.as_ref().is_none_or(|name| *name == container.name))
        .filter_map(|container| Some((container.name.as_str(), ended_with(container)?)))
        .find(|(_, code)| match wanted.operator.as_str() {
            _ if *code == 0 => false,
            "In" => wanted.values.contains(code),
            "NotIn" => !wanted.values.contains(code),
            _ => false,
        })
}

fn ended_with(container: &ContainerStatus) -> Option<i32> {
    Some(container.state.as_ref()?.terminated.as_ref()?.exit_code)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_matching_rule_decides() {
        let policy: PodFailurePolicy = serde_json::from_value(json!({"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": "c", "operator": "In", "values": [42]}},
            {"action": "FailIndex", "onExitCodes": {"operator": "NotIn", "values": [1, 42]}},
        ]}))
        .unwrap();
        let pod = |code: i32, disrupted: bool| -> Pod {
            let status = if disrupted { "True" } else { "False" };
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}, "status": {
                "conditions": [{"type": "DisruptionTarget", "status": status}],
                "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"terminated": {"exitCode": code}}}]}}))
            .unwrap()
        };
        assert_eq!(meaning(Some(&policy), &pod(42, true)), Meaning::Ignored);
        let text = "Container c for pod ns/p failed with exit code 42 matching FailJob rule at index 1";
        assert_eq!(meaning(Some(&policy), &pod(42, false)), Meaning::FailsJob(text.to_owned()));
        assert_eq!(meaning(Some(&policy), &pod(3, false)), Meaning::FailsIndex);
        assert_eq!(meaning(Some(&policy), &pod(1, false)), Meaning::Counts);
        assert_eq!(meaning(Some(&policy), &pod(0, false)), Meaning::Counts);
        assert_eq!(meaning(None, &pod(42, true)), Meaning::Counts);
    }
}
