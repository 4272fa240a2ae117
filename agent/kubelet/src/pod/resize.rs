//! In-place resize: compares the resources that each container has with those that the specification asks for. Pure.
//!
//! No file remembers what was given: the API server does, as `status.containerStatuses[].resources`. Answers to
//! <https://kubernetes.io/docs/tasks/configure-pod-container/resize-container-resources/>.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Container, ContainerStatus, Pod, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use super::{
    admit,
    observed::{ContainerRun, Observed, State},
    spec::{self, Kind},
};
use crate::{
    amount::{self, Amount},
    container::resources,
};

/// The resources that can change while a container runs.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// Why a wanted size is not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    /// `Deferred`: it may fit later. `Infeasible`: it never will on this node.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// What is known about the sizes of one pod's containers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resizing {
    /// By container name.
    allocated: BTreeMap<String, ResourceRequirements>,
    /// What each running container was last set to, by its id.
    applied: BTreeMap<String, ResourceRequirements>,
    pub(crate) pending: Option<Pending>,
    /// Containers are being set to what was allocated; the text says what failed, if something did.
    pub(crate) in_progress: Option<Option<String>>,
}

/// What to do with a container that runs with another size than it was given.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Tell the runtime.
    Update,
    /// The container's own policy says that it has to start anew.
    Restart,
}

impl Resizing {
    /// Learns what the containers of a pod have: from the status that was reported, or, for those that never ran, from the
    /// specification.
    pub(crate) fn learn(&mut self, pod: &Pod, observed: &Observed) {
        for container in resizable(pod) {
            if !self.allocated.contains_key(&container.name) {
                let known = reported(pod, &container.name).and_then(|s| s.resources.clone());
                let own = container.resources.clone().unwrap_or_default();
                let allocated = known.map_or(own.clone(), |known| merge(&own, &known));
                self.allocated.insert(container.name.clone(), allocated);
            }
            if let Some(run) = running(observed, &container.name)
                && let Some(allocated) = self.allocated.get(&container.name)
            {
                self.applied.entry(run.id.clone()).or_insert_with(|| allocated.clone());
            }
        }
        self.applied.retain(|id, _| observed.containers.iter().any(|run| &run.id == id && run.state == State::Running));
    }

    /// Gives the containers what the specification asks for, if it fits; otherwise says why not.
    pub(crate) fn allocate(&mut self, pod: &Pod, others: &[Arc<Pod>], allocatable: &BTreeMap<String, Amount>) {
        let wanted =
            resizable(pod).any(|c| self.allocated.get(&c.name).is_some_and(|a| !same(a, &c.resources.clone().unwrap_or_default())));
        self.pending = if wanted { refusal(pod, others, allocatable) } else { None };
        if wanted && self.pending.is_none() {
            for container in resizable(pod) {
                self.allocated.insert(container.name.clone(), container.resources.clone().unwrap_or_default());
            }
            self.in_progress = Some(None);
        }
    }

    /// The pod with the resources that its containers were given.
    pub(crate) fn effective(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        let differs =
            resizable(pod).any(|c| self.allocated.get(&c.name).is_some_and(|a| !same(a, &c.resources.clone().unwrap_or_default())));
        if !differs {
            return pod.clone();
        }
        let mut pod = Pod::clone(pod);
        if let Some(spec) = pod.spec.as_mut() {
            for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
                if let Some(allocated) = self.allocated.get(&container.name) {
                    container.resources = Some(allocated.clone());
                }
            }
        }
        Arc::new(pod)
    }

    /// Containers that run with another size than they were given, and what to do.
    pub(crate) fn steps(&self, pod: &Pod, observed: &Observed) -> Vec<(String, Step)> {
        let step = |container: &Container| {
            let run = running(observed, &container.name)?;
            let (allocated, applied) = (self.allocated.get(&container.name)?, self.applied.get(&run.id)?);
            let changed: Vec<&str> = RESIZABLE.into_iter().filter(|r| !same_resource(allocated, applied, r)).collect();
            if changed.is_empty() {
                return None;
            }
            let policies = container.resize_policy.as_deref().unwrap_or_default();
            let restarts = |r: &&str| policies.iter().any(|p| p.resource_name == **r && p.restart_policy == "RestartContainer");
            Some((container.name.clone(), if changed.iter().any(restarts) { Step::Restart } else { Step::Update }))
        };
        resizable(pod).filter_map(step).collect()
    }

    /// A running container has what it was given.
    pub(crate) fn applied(&mut self, name: &str, id: &str) {
        if let Some(allocated) = self.allocated.get(name) {
            self.applied.insert(id.to_string(), allocated.clone());
        }
    }

    /// Whether a container's memory limit is to become smaller than what it was set to.
    pub(crate) fn shrinks_memory_to(&self, name: &str, id: &str) -> Option<i64> {
        let limit = |r: &ResourceRequirements| r.limits.as_ref()?.get("memory").and_then(amount::of);
        let (after, before) = (limit(self.allocated.get(name)?)?, self.applied.get(id).and_then(limit));
        (before.is_none_or(|before| after < before)).then(|| after.units())
    }

    /// What a container was given and what it runs with, for its status.
    pub(crate) fn shown(&self, name: &str, id: Option<&str>) -> (Option<BTreeMap<String, Quantity>>, Option<ResourceRequirements>) {
        let Some(allocated) = self.allocated.get(name) else { return (None, None) };
        let actual = id.and_then(|id| self.applied.get(id)).unwrap_or(allocated);
        let shown = ResourceRequirements { claims: None, ..actual.clone() };
        (allocated.requests.clone(), Some(shown))
    }
}

/// Containers whose size can change: the regular ones and the sidecars.
fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    spec::all_containers(pod).filter(|(kind, _)| matches!(kind, Kind::Main | Kind::Sidecar)).map(|(_, container)| container)
}

fn running<'a>(observed: &'a Observed, name: &str) -> Option<&'a ContainerRun> {
    observed.latest(name).filter(|run| run.state == State::Running)
}

fn reported<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let lists = [&status.container_statuses, &status.init_container_statuses];
    let known = lists.into_iter().flatten().flatten().find(|c| c.name == name)?;
    known.container_id.as_deref().is_some_and(|id| !id.is_empty()).then_some(known)
}

/// The specification with the resizable resources of a status.
fn merge(own: &ResourceRequirements, known: &ResourceRequirements) -> ResourceRequirements {
    let mix = |own: &Option<BTreeMap<String, Quantity>>, known: &Option<BTreeMap<String, Quantity>>| {
        let mut all = own.clone().unwrap_or_default();
        for resource in RESIZABLE {
            match known.as_ref().and_then(|k| k.get(resource)) {
                Some(value) => all.insert(resource.into(), value.clone()),
                None => all.remove(resource),
            };
        }
        (!all.is_empty()).then_some(all)
    };
    ResourceRequirements { requests: mix(&own.requests, &known.requests), limits: mix(&own.limits, &known.limits), ..own.clone() }
}

fn same(a: &ResourceRequirements, b: &ResourceRequirements) -> bool {
    RESIZABLE.into_iter().all(|resource| same_resource(a, b, resource))
}

fn same_resource(a: &ResourceRequirements, b: &ResourceRequirements, resource: &str) -> bool {
    let get = |list: &Option<BTreeMap<String, Quantity>>| list.as_ref().and_then(|l| l.get(resource)).and_then(amount::of);
    get(&a.requests) == get(&b.requests) && get(&a.limits) == get(&b.limits)
}

/// Why the node cannot give a pod the size that its specification asks for.
fn refusal(pod: &Pod, others: &[Arc<Pod>], allocatable: &BTreeMap<String, Amount>) -> Option<Pending> {
    for resource in RESIZABLE {
        let requested = resources::pod_request(pod, resource);
        let have = allocatable.get(resource).copied().unwrap_or_default();
        if requested > have {
            let show = |a: Amount| if resource == "cpu" { a.milli() } else { a.units() };
            let (requested, have) = (show(requested), show(have));
            let message = format!("Node didn't have enough capacity: {resource}, requested: {requested}, capacity: {have}");
            return Some(Pending { reason: "Infeasible", message });
        }
    }
    let running: Vec<&Arc<Pod>> = others.iter().filter(|p| spec::uid(p) != spec::uid(pod) && !spec::is_finished(p)).collect();
    admit::lacking(pod, &running, allocatable).map(|(_, message)| Pending { reason: "Deferred", message })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    fn pod(cpu: &str, memory_policy: &str) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": {"containers": [{"name": "a",
                "resources": {"requests": {"cpu": cpu, "memory": "64Mi"}, "limits": {"cpu": cpu, "memory": "64Mi"}},
                "resizePolicy": [{"resourceName": "cpu", "restartPolicy": memory_policy}]}]}}))
            .unwrap(),
        )
    }

    fn observed() -> Observed {
        Observed { sandboxes: vec![], containers: vec![ContainerRun::sample("a0", "a", State::Running, Timestamp::UNIX_EPOCH)] }
    }

    fn allocatable() -> BTreeMap<String, Amount> {
        BTreeMap::from([
            ("cpu".to_string(), Amount::from_units(2)),
            ("memory".to_string(), Amount::from_units(1 << 30)),
            ("pods".to_string(), Amount::from_units(10)),
        ])
    }

    #[test]
    fn d11_a_size_that_fits_is_given_and_applied_by_the_containers_policy() {
        for (policy, step) in [("NotRequired", Step::Update), ("RestartContainer", Step::Restart)] {
            let mut resizing = Resizing::default();
            resizing.learn(&pod("500m", policy), &observed());
            resizing.allocate(&pod("500m", policy), &[], &allocatable());
            assert_eq!((resizing.steps(&pod("500m", policy), &observed()), resizing.in_progress.clone()), (vec![], None));
            let bigger = pod("1", policy);
            resizing.learn(&bigger, &observed());
            resizing.allocate(&bigger, &[], &allocatable());
            assert_eq!((resizing.pending.clone(), resizing.in_progress.clone()), (None, Some(None)));
            assert_eq!(resizing.steps(&bigger, &observed()), [("a".to_string(), step)]);
            let shown = |r: &Resizing| r.shown("a", Some("a0")).1.unwrap().requests.unwrap()["cpu"].0.clone();
            assert_eq!(shown(&resizing), "500m", "not applied yet");
            resizing.applied("a", "a0");
            assert_eq!((resizing.steps(&bigger, &observed()), shown(&resizing).as_str()), (vec![], "1"));
        }
    }

    #[test]
    fn d11_a_size_that_does_not_fit_is_pending_and_changes_nothing() {
        let mut resizing = Resizing::default();
        resizing.learn(&pod("500m", "NotRequired"), &observed());
        let huge = pod("3", "NotRequired");
        resizing.allocate(&huge, &[], &allocatable());
        let pending = resizing.pending.clone().unwrap();
        assert_eq!(
            (pending.reason, pending.message.as_str()),
            ("Infeasible", "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000")
        );
        assert_eq!(
            resizing.effective(&huge).spec.as_ref().unwrap().containers[0].resources,
            pod("500m", "").spec.as_ref().unwrap().containers[0].resources
        );
        let mut other = Pod::clone(&pod("1500m", "NotRequired"));
        other.metadata.uid = Some("other".into());
        resizing.allocate(&pod("1", "NotRequired"), &[Arc::new(other)], &allocatable());
        assert_eq!(resizing.pending.clone().unwrap().reason, "Deferred");
        assert_eq!(resizing.steps(&huge, &observed()), []);
    }

    #[test]
    fn d11_a_restarted_agent_learns_from_the_status() {
        let mut with_status = Pod::clone(&pod("1", "NotRequired"));
        with_status.status = serde_json::from_value(json!({"containerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "containerID": "containerd://a0", "resources": {"requests": {"cpu": "500m", "memory": "64Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}}}]}))
        .unwrap();
        let mut resizing = Resizing::default();
        resizing.learn(&with_status, &observed());
        resizing.allocate(&with_status, &[], &allocatable());
        assert_eq!(resizing.steps(&with_status, &observed()), [("a".to_string(), Step::Update)]);
    }
}
