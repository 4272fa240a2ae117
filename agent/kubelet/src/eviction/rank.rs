//! Which pod goes when the node is short. Pure.

use std::cmp::Reverse;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::{shown, usage::PodUsage};
use crate::{
    container::resources,
    node::{signal::Resource, thresholds::Crossed},
    pod::spec,
};

/// A pod whose end gives back less than this is not ended.
fn worthwhile(resource: Resource) -> i64 {
    match resource {
        Resource::Memory | Resource::Disk => 1 << 20,
        Resource::Inodes | Resource::Pids => 1,
    }
}

/// A pod that may be evicted, and what it uses.
pub(super) struct Candidate<'a> {
    pub(super) pod: &'a Pod,
    pub(super) usage: &'a PodUsage,
}

fn requested(container: &Container, resource: Resource) -> i64 {
    resources::request(container, resource.name()).or_else(|| resources::limit(container, resource.name())).unwrap_or_default().units()
}

impl Candidate<'_> {
    /// How much more it uses than it asks for. Nobody asks for inodes or process ids.
    fn excess(&self, resource: Resource) -> i64 {
        match resource {
            Resource::Memory | Resource::Disk => self.usage.of(resource) - resources::pod_request(self.pod, resource.name()).units(),
            Resource::Inodes | Resource::Pids => self.usage.of(resource),
        }
    }
}

/// The pod to evict, if any is worth it: one that uses more than it asks for before one that does not, then the one with the least priority, then
/// the one that exceeds its request most. Critical pods stay.
pub(super) fn choose<'a>(candidates: impl Iterator<Item = Candidate<'a>>, resource: Resource) -> Option<Candidate<'a>> {
    let priority = |pod: &Pod| spec::pod_spec(pod).priority.unwrap_or_default();
    candidates
        .filter(|candidate| priority(candidate.pod) < resources::CRITICAL_PRIORITY)
        .filter(|candidate| candidate.usage.of(resource) >= worthwhile(resource))
        .min_by_key(|candidate| {
            let excess = candidate.excess(resource);
            (excess <= 0, priority(candidate.pod), Reverse(excess))
        })
}

/// Upstream's words.
pub(super) fn message(chosen: &Candidate<'_>, crossed: &Crossed) -> String {
    let resource = crossed.signal.resource();
    let shown = |amount: i64| match resource {
        Resource::Memory | Resource::Disk => shown(amount),
        Resource::Inodes | Resource::Pids => amount.to_string(),
    };
    let mut text = format!(
        "The node was low on resource: {}. Threshold quantity: {}, available: {}. ",
        resource.name(),
        shown(crossed.threshold),
        shown(crossed.available)
    );
    for (_, container) in spec::all_containers(chosen.pod) {
        let Some(usage) = chosen.usage.containers.get(&container.name) else { continue };
        let (used, asked) = match resource {
            Resource::Memory => (usage.memory, requested(container, resource)),
            Resource::Disk => (usage.disk, requested(container, resource)),
            Resource::Inodes => (usage.inodes, 0),
            // Known of the pod only.
            Resource::Pids => continue,
        };
        if used > asked {
            let (name, resource) = (&container.name, resource.name());
            let (used, asked) = (shown(used), shown(asked));
            text += &format!("Container {name} was using {used}, request is {asked}, has larger consumption of {resource}. ");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::usage::ContainerUsage;
    use super::*;
    use crate::node::signal::Signal;

    fn pod(name: &str, priority: i32, request: &str, used_mib: i64) -> (Pod, PodUsage) {
        let pod = json!({"metadata": {"name": name}, "spec": {
            "priority": priority,
            "containers": [{"name": "c", "resources": {"requests": {"memory": request}}}],
        }});
        let usage = ContainerUsage { memory: used_mib << 20, ..ContainerUsage::default() };
        (serde_json::from_value(pod).unwrap(), PodUsage { containers: [("c".into(), usage)].into(), ..PodUsage::default() })
    }

    #[test]
    fn who_exceeds_its_request_goes_first_then_the_least_important_then_the_largest() {
        let pods = [
            pod("critical", 2_000_001_000, "0", 900),
            pod("within", -5, "500Mi", 400),
            pod("important", 100, "10Mi", 800),
            pod("small", 0, "10Mi", 50),
            pod("large", 0, "10Mi", 60),
            pod("tiny", -10, "0", 0),
        ];
        let mut left: Vec<&(Pod, PodUsage)> = pods.iter().collect();
        let mut order = Vec::new();
        while let Some(chosen) = choose(left.iter().map(|(pod, usage)| Candidate { pod, usage }), Resource::Memory) {
            let name = spec::name(chosen.pod).to_owned();
            left.retain(|(pod, _)| spec::name(pod) != name);
            order.push(name);
        }
        assert_eq!(order, ["large", "small", "important", "within"]);
    }

    #[test]
    fn the_message_names_the_threshold_and_the_containers() {
        let (pod, usage) = pod("a", 0, "10Mi", 50);
        let crossed = Crossed { signal: Signal::Memory, threshold: 100 << 20, available: 90_724 << 10, grace_secs: 1 };
        assert_eq!(
            message(&Candidate { pod: &pod, usage: &usage }, &crossed),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 90724Ki. \
             Container c was using 50Mi, request is 10Mi, has larger consumption of memory. "
        );
        let usage = PodUsage { pids: 500, ..usage };
        let crossed = Crossed { signal: Signal::Pids, threshold: 3276, available: 3000, grace_secs: 1 };
        assert_eq!(
            message(&Candidate { pod: &pod, usage: &usage }, &crossed),
            "The node was low on resource: pids. Threshold quantity: 3276, available: 3000. "
        );
    }
}
