//! The status of a pod, as the API server shall have it. Pure.
//!
//! Answers to <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/> (phase, conditions, container states).

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, HostIP, Pod,
        PodCondition, PodIP, PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{
    observed::{ContainerRun, Observed, State},
    plan::Health,
    resize::Resizing,
    spec::{self, Kind, RestartPolicy},
    verdict::Verdict,
};

/// A wanted size is not given (yet).
pub(crate) const RESIZE_PENDING: &str = "PodResizePending";
/// Containers are being set to the size that they were given.
pub(crate) const RESIZE_IN_PROGRESS: &str = "PodResizeInProgress";

/// The pod ends for the sake of others, or of its limits.
const DISRUPTION_TARGET: &str = "DisruptionTarget";

/// Why a container does not run, in the two words and the sentence that kubectl shows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Waiting {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// All that a status depends on.
pub(crate) struct Facts<'a> {
    /// As the API server last had it: conditions of others and transition times are kept from here.
    pub(crate) pod: &'a Pod,
    pub(crate) observed: &'a Observed,
    pub(crate) health: &'a Health,
    pub(crate) waiting: &'a BTreeMap<String, Waiting>,
    pub(crate) resizing: &'a Resizing,
    /// Nothing of the pod runs, and nothing will.
    pub(crate) terminated: bool,
    pub(crate) verdict: Option<&'a Verdict>,
    pub(crate) host_ips: &'a [String],
    pub(crate) now: Timestamp,
}

/// Composes the whole status.
pub(crate) fn status(facts: &Facts<'_>) -> PodStatus {
    let before = facts.pod.status.clone().unwrap_or_default();
    if facts.observed.sandboxes.is_empty()
        && facts.observed.containers.is_empty()
        && (facts.verdict.is_some() || spec::is_finished(facts.pod))
    {
        return never_ran(facts, before);
    }
    let mut init: Vec<ContainerStatus> =
        spec::all_containers(facts.pod).filter(|(kind, _)| *kind != Kind::Main).map(|(kind, c)| container_status(facts, kind, c)).collect();
    let mut main: Vec<ContainerStatus> = spec::main_containers(facts.pod).iter().map(|c| container_status(facts, Kind::Main, c)).collect();
    let ephemeral: Vec<ContainerStatus> =
        spec::ephemeral_containers(facts.pod).iter().map(|c| container_status(facts, Kind::Ephemeral, c)).collect();
    if facts.terminated {
        end_what_was_reached(facts, &mut init, &mut main);
    }
    let phase = phase(facts, &init, &main);
    let ips = pod_ips(facts, &before);
    let conditions = conditions(facts, &before, phase, &init, &main);
    let sorted = |list: Vec<ContainerStatus>| (!list.is_empty()).then_some(list);
    PodStatus {
        phase: Some(phase.into()),
        reason: facts.verdict.map(|v| v.reason.clone()).or(before.reason),
        message: facts.verdict.map(|v| v.message.clone()).or(before.message),
        conditions: Some(conditions),
        host_ip: facts.host_ips.first().cloned(),
        host_ips: (!facts.host_ips.is_empty()).then(|| facts.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect()),
        start_time: before.start_time.or(Some(Time(facts.now))),
        init_container_statuses: sorted(init),
        container_statuses: sorted(main),
        ephemeral_container_statuses: sorted(ephemeral),
        qos_class: Some(before.qos_class.unwrap_or_else(|| spec::qos(facts.pod).as_str().into())),
        observed_generation: facts.pod.metadata.generation,
        ..PodStatus::default()
    }
}

/// Nothing of the pod runs any more: a container that was reached and has no end was lost. One that initialization never got to stays
/// waiting.
fn end_what_was_reached(facts: &Facts<'_>, init: &mut [ContainerStatus], main: &mut [ContainerStatus]) {
    let end = |status: &mut ContainerStatus| {
        if status.state.as_ref().is_none_or(|s| s.terminated.is_none()) {
            status.state = Some(terminated(unknown_end()));
            status.started = Some(false);
            status.ready = false;
        }
    };
    let reached = main.iter().any(|s| s.container_id.is_some()) || is_initialized(facts, init);
    for (status, container) in init.iter_mut().zip(spec::init_containers(facts.pod)) {
        let passed = if spec::is_sidecar(container) { status.container_id.is_some() } else { ended_well(status) == Some(true) };
        end(status);
        if !passed && !reached {
            return;
        }
    }
    if reached {
        main.iter_mut().for_each(end);
    }
}

/// A pod that was refused, or whose end was reported long ago: there is nothing to add about its containers.
fn never_ran(facts: &Facts<'_>, before: PodStatus) -> PodStatus {
    match facts.verdict {
        None => before,
        Some(verdict) => PodStatus {
            phase: Some("Failed".into()),
            reason: Some(verdict.reason.clone()),
            message: Some(verdict.message.clone()),
            start_time: before.start_time.clone().or(Some(Time(facts.now))),
            observed_generation: facts.pod.metadata.generation,
            ..before
        },
    }
}

fn pod_ips(facts: &Facts<'_>, before: &PodStatus) -> Vec<String> {
    if spec::is_host_network(facts.pod) {
        return if facts.observed.sandboxes.is_empty() { Vec::new() } else { facts.host_ips.to_vec() };
    }
    let current = facts.observed.ready_sandbox().map(|s| s.ips.clone()).filter(|ips| !ips.is_empty());
    // An ended pod keeps the addresses it had.
    current.unwrap_or_else(|| before.pod_ips.iter().flatten().map(|p| p.ip.clone()).collect())
}

fn container_status(facts: &Facts<'_>, kind: Kind, container: &Container) -> ContainerStatus {
    let previous = previous_status(facts.pod, kind, &container.name);
    let run = facts.observed.latest(&container.name);
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        restart_count: previous.map(|p| p.restart_count).unwrap_or_default(),
        last_state: Some(ContainerState::default()),
        started: Some(false),
        ..ContainerStatus::default()
    };
    if let Some(run) = run {
        status.image = if run.image.is_empty() || run.image.starts_with("sha256:") { status.image } else { run.image.clone() };
        status.image_id = run.image_ref.clone();
        status.container_id = Some(format!("containerd://{}", run.id));
        status.restart_count = i32::try_from(run.attempt).unwrap_or(i32::MAX);
        status.state = Some(match run.state {
            State::Running => {
                ContainerState { running: Some(ContainerStateRunning { started_at: run.started_at.map(Time) }), ..Default::default() }
            }
            State::Exited => terminated(ended(run)),
            State::Created | State::Unknown => waiting(default_waiting(facts, kind)),
        });
        let before = facts.observed.last_exited(&container.name, Some(&run.id)).map(|run| terminated(ended(run)));
        status.last_state = before.or_else(|| previous.and_then(|p| p.last_state.clone())).or(status.last_state);
    } else if let Some(previous) = previous.filter(|p| p.state.as_ref().is_some_and(|s| s.terminated.is_some() || s.running.is_some())) {
        lost(&mut status, previous, facts);
    } else {
        status.state = Some(waiting(default_waiting(facts, kind)));
    }
    if let Some(why) = facts.waiting.get(&container.name).filter(|_| !facts.terminated && run.is_none_or(|r| r.state != State::Running)) {
        if let Some(ended) = status.state.take().filter(|s| s.terminated.is_some()) {
            status.last_state = Some(ended);
        }
        status.state = Some(waiting(why.clone()));
    }
    let id = run.filter(|r| r.state == State::Running).map(|r| r.id.as_str());
    (status.allocated_resources, status.resources) = facts.resizing.shown(&container.name, id);
    let running = status.state.as_ref().is_some_and(|s| s.running.is_some());
    let started = running && (container.startup_probe.is_none() || run.is_some_and(|r| facts.health.started.contains(&r.id)));
    status.started = Some(started);
    status.ready = match kind {
        Kind::Init => status.state.as_ref().and_then(|s| s.terminated.as_ref()).is_some_and(|t| t.exit_code == 0),
        Kind::Ephemeral => false,
        Kind::Main | Kind::Sidecar => {
            started && (container.readiness_probe.is_none() || run.is_some_and(|r| facts.health.ready.contains(&r.id)))
        }
    };
    status
}

/// The API server remembers a run that the runtime no longer knows.
fn lost(status: &mut ContainerStatus, previous: &ContainerStatus, facts: &Facts<'_>) {
    status.image = previous.image.clone();
    status.image_id = previous.image_id.clone();
    status.container_id = previous.container_id.clone();
    status.last_state = previous.last_state.clone();
    let was_running = previous.state.as_ref().is_some_and(|s| s.running.is_some());
    if !was_running {
        status.state = previous.state.clone();
    } else if facts.terminated {
        status.state = Some(terminated(unknown_end()));
    } else {
        status.last_state = Some(terminated(unknown_end()));
        status.state = Some(waiting(Waiting { reason: "ContainerCreating".into(), message: String::new() }));
    }
}

fn unknown_end() -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".into()),
        message: Some("The container could not be located when the pod was terminated".into()),
        ..Default::default()
    }
}

fn default_waiting(facts: &Facts<'_>, kind: Kind) -> Waiting {
    let init = matches!(kind, Kind::Init | Kind::Sidecar) || !spec::init_containers(facts.pod).is_empty();
    Waiting { reason: if init { "PodInitializing" } else { "ContainerCreating" }.into(), message: String::new() }
}

fn waiting(why: Waiting) -> ContainerState {
    let message = (!why.message.is_empty()).then_some(why.message);
    ContainerState { waiting: Some(ContainerStateWaiting { reason: Some(why.reason), message }), ..Default::default() }
}

fn terminated(end: ContainerStateTerminated) -> ContainerState {
    ContainerState { terminated: Some(end), ..Default::default() }
}

fn ended(run: &ContainerRun) -> ContainerStateTerminated {
    let reason = match run.reason.as_str() {
        "" if run.exit_code == 0 => "Completed",
        "" => "Error",
        reason => reason,
    };
    ContainerStateTerminated {
        exit_code: run.exit_code,
        reason: Some(reason.into()),
        message: (!run.message.is_empty()).then(|| run.message.clone()),
        started_at: Some(Time(run.started_at.unwrap_or_default())),
        finished_at: Some(Time(run.finished_at.unwrap_or_default())),
        container_id: Some(format!("containerd://{}", run.id)),
        signal: None,
    }
}

fn previous_status<'a>(pod: &'a Pod, kind: Kind, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let list = match kind {
        Kind::Main => &status.container_statuses,
        Kind::Ephemeral => &status.ephemeral_container_statuses,
        Kind::Init | Kind::Sidecar => &status.init_container_statuses,
    };
    list.iter().flatten().find(|c| c.name == name)
}

// === Phase

fn ended_well(status: &ContainerStatus) -> Option<bool> {
    status.state.as_ref()?.terminated.as_ref().map(|t| t.exit_code == 0)
}

fn phase(facts: &Facts<'_>, init: &[ContainerStatus], main: &[ContainerStatus]) -> &'static str {
    if facts.verdict.is_some() {
        return "Failed";
    }
    // A finished pod stays finished.
    match facts.pod.status.as_ref().and_then(|s| s.phase.as_deref()) {
        Some("Succeeded") => return "Succeeded",
        Some("Failed") => return "Failed",
        _ => {}
    }
    let policy = spec::restart_policy(facts.pod);
    let regular_init = || init.iter().zip(spec::init_containers(facts.pod)).filter(|(_, c)| !spec::is_sidecar(c)).map(|(s, _)| s);
    let init_failed = regular_init().any(|s| ended_well(s) == Some(false));
    if init_failed && (policy == RestartPolicy::Never || facts.terminated) {
        return "Failed";
    }
    let initialized = main.iter().any(|s| s.container_id.is_some()) || is_initialized(facts, init);
    if facts.terminated {
        return if main.iter().all(|s| ended_well(s) == Some(true)) { "Succeeded" } else { "Failed" };
    }
    if !initialized {
        return "Pending";
    }
    let never_ran = |s: &&ContainerStatus| {
        s.state.as_ref().is_some_and(|st| st.waiting.is_some()) && s.last_state.as_ref().is_none_or(|l| l.terminated.is_none())
    };
    if main.iter().any(|s| never_ran(&s)) { "Pending" } else { "Running" }
}

fn is_initialized(facts: &Facts<'_>, init: &[ContainerStatus]) -> bool {
    init.iter().zip(spec::init_containers(facts.pod)).all(|(s, c)| if spec::is_sidecar(c) { s.started == Some(true) } else { s.ready })
}

// === Conditions

fn conditions(facts: &Facts<'_>, before: &PodStatus, phase: &str, init: &[ContainerStatus], main: &[ContainerStatus]) -> Vec<PodCondition> {
    let mut all = Vec::new();
    let mut set =
        |type_: &str, status: bool, reason: &str, message: String| all.push(condition(facts, before, type_, status, reason, message));
    let has_network = facts.observed.ready_sandbox().is_some_and(|s| spec::is_host_network(facts.pod) || !s.ips.is_empty());
    set("PodReadyToStartContainers", has_network, "", String::new());

    let incomplete: Vec<&str> = init
        .iter()
        .zip(spec::init_containers(facts.pod))
        .filter(|(s, c)| if spec::is_sidecar(c) { s.started != Some(true) } else { !s.ready })
        .map(|(s, _)| s.name.as_str())
        .collect();
    let any_main_ran = main.iter().any(|s| s.container_id.is_some());
    if phase == "Succeeded" {
        set("Initialized", true, "PodCompleted", String::new());
    } else if incomplete.is_empty() || any_main_ran {
        set("Initialized", true, "", String::new());
    } else {
        set("Initialized", false, "ContainersNotInitialized", format!("containers with incomplete status: [{}]", incomplete.join(" ")));
    }

    let sidecars = init.iter().zip(spec::init_containers(facts.pod)).filter(|(_, c)| spec::is_sidecar(c)).map(|(s, _)| s);
    let unready: Vec<&str> = sidecars.chain(main).filter(|s| !s.ready).map(|s| s.name.as_str()).collect();
    let (ready, reason, message) = match phase {
        "Succeeded" => (false, "PodCompleted", String::new()),
        "Failed" => (false, "PodFailed", String::new()),
        _ if !unready.is_empty() => (false, "ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))),
        _ => (true, "", String::new()),
    };
    set("ContainersReady", ready, reason, message.clone());
    let gate = if ready { missing_gate(facts.pod, before) } else { None };
    match gate {
        Some(message) => set("Ready", false, "ReadinessGatesNotReady", message),
        None => set("Ready", ready, reason, message),
    }
    if let Some(pending) = &facts.resizing.pending {
        set(RESIZE_PENDING, true, pending.reason, pending.message.clone());
    }
    if let Some(failed) = &facts.resizing.in_progress {
        let reason = if failed.is_some() { "Error" } else { "" };
        set(RESIZE_IN_PROGRESS, true, reason, failed.clone().unwrap_or_default());
    }
    if let Some(verdict) = facts.verdict.filter(|verdict| verdict.is_eviction()) {
        set(DISRUPTION_TARGET, true, "TerminationByKubelet", verdict.message.clone());
    }
    let evicts = facts.verdict.is_some_and(Verdict::is_eviction);
    let ours = ["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready", RESIZE_PENDING, RESIZE_IN_PROGRESS];
    let mut others: Vec<PodCondition> = before
        .conditions
        .iter()
        .flatten()
        .filter(|c| !(ours.contains(&c.type_.as_str()) || evicts && c.type_ == DISRUPTION_TARGET))
        .cloned()
        .collect();
    if !others.iter().any(|c| c.type_ == "PodScheduled") {
        others.push(condition(facts, before, "PodScheduled", true, "", String::new()));
    }
    all.append(&mut others);
    all
}

fn missing_gate(pod: &Pod, before: &PodStatus) -> Option<String> {
    let messages: Vec<String> = spec::pod_spec(pod)
        .readiness_gates
        .iter()
        .flatten()
        .filter_map(|gate| match before.conditions.iter().flatten().find(|c| c.type_ == gate.condition_type) {
            None => Some(format!("corresponding condition of pod readiness gate {:?} does not exist.", gate.condition_type)),
            Some(c) if c.status != "True" => {
                Some(format!("the status of pod readiness gate {:?} is not \"True\", but {}", gate.condition_type, c.status))
            }
            Some(_) => None,
        })
        .collect();
    (!messages.is_empty()).then(|| messages.join(", "))
}

fn condition(facts: &Facts<'_>, before: &PodStatus, type_: &str, status: bool, reason: &str, message: String) -> PodCondition {
    let status = if status { "True" } else { "False" };
    let unchanged = before.conditions.iter().flatten().find(|c| c.type_ == type_ && c.status == status);
    PodCondition {
        type_: type_.into(),
        status: status.into(),
        reason: (!reason.is_empty()).then(|| reason.into()),
        message: (!message.is_empty()).then_some(message),
        last_transition_time: unchanged.and_then(|c| c.last_transition_time.clone()).or(Some(Time(facts.now))),
        last_probe_time: None,
        observed_generation: facts.pod.metadata.generation,
    }
}
