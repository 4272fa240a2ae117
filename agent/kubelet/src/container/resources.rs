//! Requests and limits as the kernel's numbers. Answers to
//! <https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/> and `node-pressure-eviction#oom`.

use k8s_openapi::api::core::v1::{Container, Pod};
use trireme_proto::cri;

use crate::{
    amount::{self, Amount},
    pod::spec::{self, Qos},
};

/// Length of one CPU bandwidth period.
pub(crate) const CPU_PERIOD_US: i64 = 100_000;
const MIN_SHARES: i64 = 2;
const MIN_QUOTA_US: i64 = 1000;
/// From this priority on a pod is critical to the node.
pub(crate) const CRITICAL_PRIORITY: i32 = 2_000_000_000;

pub(crate) fn request(container: &Container, resource: &str) -> Option<Amount> {
    let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    requests.and_then(|r| r.get(resource)).and_then(amount::of)
}

pub(crate) fn limit(container: &Container, resource: &str) -> Option<Amount> {
    let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
    limits.and_then(|l| l.get(resource)).and_then(amount::of)
}

/// What is asked for the pod as a whole.
fn whole_request(pod: &Pod, resource: &str) -> Option<Amount> {
    let whole = spec::pod_spec(pod).resources.as_ref()?;
    whole.requests.as_ref().and_then(|requests| requests.get(resource)).and_then(amount::of)
}

/// What the pod as a whole may use.
pub(crate) fn whole_limit(pod: &Pod, resource: &str) -> Option<Amount> {
    let whole = spec::pod_spec(pod).resources.as_ref()?;
    whole.limits.as_ref().and_then(|limits| limits.get(resource)).and_then(amount::of).filter(|limit| !limit.is_zero())
}

/// Milli-CPUs to relative weight.
pub(crate) fn cpu_shares(milli: i64) -> i64 {
    (milli.saturating_mul(1024) / 1000).clamp(MIN_SHARES, 262_144)
}

/// Milli-CPUs to microseconds per period.
pub(crate) fn cpu_quota_us(milli: i64) -> i64 {
    (milli.saturating_mul(CPU_PERIOD_US) / 1000).max(MIN_QUOTA_US)
}

/// What one container may use.
pub(crate) fn container(pod: &Pod, container: &Container, node_memory_bytes: i64) -> cri::LinuxContainerResources {
    // A container without a limit of its own is bounded by the pod's, so that programs that read their limits see it.
    let limit_of = |resource: &str| limit(container, resource).filter(|l| !l.is_zero()).or_else(|| whole_limit(pod, resource));
    let cpu_limit = limit_of("cpu");
    let cpu_request = request(container, "cpu").or(limit(container, "cpu")).unwrap_or_default();
    cri::LinuxContainerResources {
        cpu_period: CPU_PERIOD_US,
        cpu_quota: cpu_limit.map_or(0, |l| cpu_quota_us(l.milli())),
        cpu_shares: cpu_shares(cpu_request.milli()),
        memory_limit_in_bytes: limit_of("memory").map_or(0, Amount::units),
        oom_score_adj: oom_score_adj(pod, container, node_memory_bytes),
        ..Default::default()
    }
}

/// What the kernel kills first: best effort pods, then those that use more than they asked for.
fn oom_score_adj(pod: &Pod, container: &Container, node_memory_bytes: i64) -> i64 {
    if spec::pod_spec(pod).priority.is_some_and(|p| p >= CRITICAL_PRIORITY) {
        return -997;
    }
    match spec::qos(pod) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let asked = asked_memory(pod, container).units();
            (1000 - 1000_i64.saturating_mul(asked) / node_memory_bytes.max(1)).clamp(3, 999)
        }
    }
}

/// The memory request that counts for a container: its own, plus an equal share of the pod's request that no container asks for.
fn asked_memory(pod: &Pod, container: &Container) -> Amount {
    let own = |c: &Container| request(c, "memory").or(limit(c, "memory")).unwrap_or_default();
    let Some(whole) = whole_request(pod, "memory") else { return own(container) };
    let containers: Vec<&Container> =
        spec::all_containers(pod).filter(|(kind, _)| *kind != spec::Kind::Init).map(|(_, container)| container).collect();
    let sum = containers.iter().map(|c| own(c)).fold(Amount::default(), |a, b| a + b).units();
    let count = i64::try_from(containers.len()).unwrap_or(i64::MAX).max(1);
    own(container) + Amount::from_units((whole.units() - sum).max(0) / count)
}

/// What a whole pod asks for and may use: the sum of its containers, or its largest init container together with the sidecars
/// that run by then, if that is more; plus the overhead.
pub(crate) fn pod_total(pod: &Pod, of: impl Fn(&Container) -> Option<Amount>, resource: &str) -> Amount {
    let get = |c: &Container| of(c).unwrap_or_default();
    let mut sidecars = Amount::default();
    let mut peak = Amount::default();
    for container in spec::init_containers(pod) {
        if spec::is_sidecar(container) {
            sidecars = sidecars + get(container);
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars + get(container));
        }
    }
    let regular = spec::main_containers(pod).iter().map(get).fold(sidecars, |a, b| a + b);
    regular.max(peak) + overhead(pod, resource)
}

fn overhead(pod: &Pod, resource: &str) -> Amount {
    spec::pod_spec(pod).overhead.as_ref().and_then(|o| o.get(resource)).and_then(amount::of).unwrap_or_default()
}

/// A pod's request of a resource: what is asked for the whole pod, else the sum. A container that has only a limit asks for its limit.
pub(crate) fn pod_request(pod: &Pod, resource: &str) -> Amount {
    if let Some(whole) = whole_request(pod, resource) {
        return whole + overhead(pod, resource);
    }
    pod_total(pod, |c| request(c, resource).or_else(|| limit(c, resource)), resource)
}

/// A pod's limit: that of the whole pod, or the sum if every container has one.
pub(crate) fn pod_limit(pod: &Pod, resource: &str) -> Option<Amount> {
    if let Some(whole) = whole_limit(pod, resource) {
        return Some(whole + overhead(pod, resource));
    }
    spec::all_containers(pod)
        .all(|(_, c)| limit(c, resource).is_some_and(|l| !l.is_zero()))
        .then(|| pod_total(pod, |c| limit(c, resource), resource))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn classes_shares_quotas_and_oom_scores() {
        let pod = |resources: serde_json::Value| -> Pod {
            serde_json::from_value(json!({"metadata": {}, "spec": {"containers": [{"name": "a", "resources": resources}]}})).unwrap()
        };
        let of = |pod: &Pod| container(pod, &spec::main_containers(pod)[0], 1 << 30);
        let best = of(&pod(json!({})));
        assert_eq!((best.cpu_shares, best.cpu_quota, best.memory_limit_in_bytes, best.oom_score_adj), (2, 0, 0, 1000));
        let burst = of(&pod(json!({"requests": {"cpu": "250m", "memory": "512Mi"}})));
        assert_eq!((burst.cpu_shares, burst.cpu_quota, burst.oom_score_adj), (256, 0, 500));
        let guaranteed = of(&pod(json!({"limits": {"cpu": "1.5", "memory": "64Mi"}})));
        assert_eq!(
            (guaranteed.cpu_shares, guaranteed.cpu_quota, guaranteed.memory_limit_in_bytes, guaranteed.oom_score_adj),
            (1536, 150_000, 64 << 20, -997)
        );
    }

    #[test]
    fn resources_of_the_whole_pod_count_in_place_of_its_containers() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {
            "resources": {"requests": {"cpu": "1", "memory": "512Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}},
            "overhead": {"memory": "16Mi"},
            "containers": [{"name": "a", "resources": {"requests": {"memory": "256Mi"}, "limits": {"memory": "300Mi"}}}, {"name": "b"}]}}))
        .unwrap();
        assert_eq!((pod_request(&pod, "cpu").milli(), pod_request(&pod, "memory").units()), (1000, 528 << 20));
        assert_eq!((pod_limit(&pod, "cpu").unwrap().milli(), pod_limit(&pod, "memory").unwrap().units()), (2000, (1024 + 16) << 20));
        let of = |index: usize| container(&pod, &spec::main_containers(&pod)[index], 1 << 30);
        let (own, none) = (of(0), of(1));
        assert_eq!((own.memory_limit_in_bytes, none.memory_limit_in_bytes), (300 << 20, 1 << 30));
        assert_eq!((none.cpu_quota, none.cpu_shares), (200_000, 2), "bounded by the pod's limit, which is no request");
        // Of the 256 MiB beyond the first container's request, each gets half.
        assert_eq!((own.oom_score_adj, none.oom_score_adj), (625, 875));
        assert_eq!(spec::qos(&pod), Qos::Burstable);
    }

    #[test]
    fn a_pod_asks_for_its_peak() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {
            "initContainers": [
                {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}},
                {"name": "i", "resources": {"requests": {"cpu": "4"}}}],
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}, {"name": "b", "resources": {"requests": {"cpu": "500m"}}}]}}))
        .unwrap();
        assert_eq!(pod_request(&pod, "cpu").milli(), 5000);
    }
}
