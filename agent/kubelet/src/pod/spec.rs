//! Small questions asked of a Pod object, answered in one place.

use std::{borrow::Cow, collections::BTreeMap, hash::Hasher};

use k8s_openapi::{
    api::core::v1::{Container, EphemeralContainer, Pod, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

/// Which list of the specification a container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An init container that must finish before the next one starts.
    Init,
    /// An init container with restartPolicy Always: it stays.
    Sidecar,
    /// A regular container.
    Main,
    /// A container added to a running pod to look into it; never started again.
    Ephemeral,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

/// The three classes that decide a pod's cgroup and its containers' OOM scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }
}

pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// `name_namespace(uid)`, upstream's way to name a pod in messages.
pub(crate) fn display(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

pub(crate) fn pod_spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

pub(crate) fn restart_policy(pod: &Pod) -> RestartPolicy {
    match pod_spec(pod).restart_policy.as_deref() {
        Some("Never") => RestartPolicy::Never,
        Some("OnFailure") => RestartPolicy::OnFailure,
        _ => RestartPolicy::Always,
    }
}

pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

pub(crate) fn init_containers(pod: &Pod) -> &[Container] {
    pod_spec(pod).init_containers.as_deref().unwrap_or_default()
}

pub(crate) fn main_containers(pod: &Pod) -> &[Container] {
    &pod_spec(pod).containers
}

/// Every container that the pod was created with, and its kind: init containers first, in order.
pub(crate) fn all_containers(pod: &Pod) -> impl Iterator<Item = (Kind, &Container)> {
    let init = init_containers(pod).iter().map(|c| (if is_sidecar(c) { Kind::Sidecar } else { Kind::Init }, c));
    init.chain(main_containers(pod).iter().map(|c| (Kind::Main, c)))
}

/// A container by name, whatever its kind.
pub(crate) fn container<'a>(pod: &'a Pod, name: &str) -> Option<(Kind, Cow<'a, Container>)> {
    let ephemeral = || pod_spec(pod).ephemeral_containers.iter().flatten().find(|c| c.name == name);
    all_containers(pod)
        .find(|(_, c)| c.name == name)
        .map(|(kind, c)| (kind, Cow::Borrowed(c)))
        .or_else(|| ephemeral().map(|c| (Kind::Ephemeral, Cow::Owned(as_container(c)))))
}

/// The ephemeral containers, as the containers that they are otherwise.
pub(crate) fn ephemeral_containers(pod: &Pod) -> Vec<Container> {
    pod_spec(pod).ephemeral_containers.iter().flatten().map(as_container).collect()
}

/// The container whose processes an ephemeral one is to see.
pub(crate) fn ephemeral_target<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    let ephemeral = pod_spec(pod).ephemeral_containers.iter().flatten().find(|c| c.name == name)?;
    ephemeral.target_container_name.as_deref().filter(|target| !target.is_empty())
}

fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let from = ephemeral.clone();
    Container {
        args: from.args,
        command: from.command,
        env: from.env,
        env_from: from.env_from,
        image: from.image,
        image_pull_policy: from.image_pull_policy,
        name: from.name,
        security_context: from.security_context,
        stdin: from.stdin,
        stdin_once: from.stdin_once,
        termination_message_path: from.termination_message_path,
        termination_message_policy: from.termination_message_policy,
        tty: from.tty,
        volume_devices: from.volume_devices,
        volume_mounts: from.volume_mounts,
        working_dir: from.working_dir,
        ..Container::default()
    }
}

pub(crate) fn is_host_network(pod: &Pod) -> bool {
    pod_spec(pod).host_network == Some(true)
}

/// How long the pod's containers may take to end. Deletion may shorten what the specification says.
pub(crate) fn grace_period_secs(pod: &Pod) -> i64 {
    pod.metadata.deletion_grace_period_seconds.or(pod_spec(pod).termination_grace_period_seconds).unwrap_or(30).max(0)
}

pub(crate) fn is_deleted(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// True once the API server has recorded that the pod will never run again.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// Guaranteed when every container has limits for cpu and memory equal to its requests, BestEffort when none asks for anything. Where
/// resources are given for the pod as a whole, those alone count.
pub(crate) fn qos(pod: &Pod) -> Qos {
    let is_given = |resources: &&ResourceRequirements| {
        let any = |list: &Option<BTreeMap<String, Quantity>>| list.as_ref().is_some_and(|list| !list.is_empty());
        any(&resources.requests) || any(&resources.limits)
    };
    let parts: Vec<Option<&ResourceRequirements>> = match pod_spec(pod).resources.as_ref().filter(is_given) {
        Some(whole) => vec![Some(whole)],
        None => all_containers(pod).map(|(_, container)| container.resources.as_ref()).collect(),
    };
    let mut any = false;
    let mut guaranteed = true;
    for resources in parts {
        for resource in ["cpu", "memory"] {
            let request = resources.and_then(|r| r.requests.as_ref()).and_then(|r| r.get(resource)).and_then(crate::amount::of);
            let limit = resources.and_then(|r| r.limits.as_ref()).and_then(|r| r.get(resource)).and_then(crate::amount::of);
            let request = request.or(limit).filter(|r| !r.is_zero());
            let limit = limit.filter(|l| !l.is_zero());
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request == limit;
        }
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

/// A stable digest of what a running container cannot change: a different one means kill and start anew.
/// Only name and image are part of it, as upstream has it: the other fields cannot be updated, or are applied in place.
pub(crate) fn container_hash(container: &Container) -> String {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    hasher.write(container.name.as_bytes());
    hasher.write(&[0]);
    hasher.write(container.image.as_deref().unwrap_or_default().as_bytes());
    format!("{:x}", hasher.finish())
}

/// FNV-1a: its value is written into annotations that outlive this process, so it must never depend on the standard library's choice.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
