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
    spec::{self, Kind, RestartPolicy},
};

/// Why a container does not run, in the two words and the sentence that kubectl shows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Waiting {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// An end that was decided, not reached: admission refused the pod, its deadline passed, it was evicted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
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
    let init: Vec<ContainerStatus> =
        spec::all_containers(facts.pod).filter(|(kind, _)| *kind != Kind::Main).map(|(kind, c)| container_status(facts, kind, c)).collect();
    let main: Vec<ContainerStatus> = spec::main_containers(facts.pod).iter().map(|c| container_status(facts, Kind::Main, c)).collect();
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
        qos_class: Some(before.qos_class.unwrap_or_else(|| spec::qos(facts.pod).as_str().into())),
        observed_generation: facts.pod.metadata.generation,
        ..PodStatus::default()
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
    if facts.terminated && status.state.as_ref().is_none_or(|s| s.terminated.is_none()) {
        status.state = Some(terminated(unknown_end()));
    }
    let running = status.state.as_ref().is_some_and(|s| s.running.is_some());
    let started = running && (container.startup_probe.is_none() || run.is_some_and(|r| facts.health.started.contains(&r.id)));
    status.started = Some(started);
    status.ready = match kind {
        Kind::Init => status.state.as_ref().and_then(|s| s.terminated.as_ref()).is_some_and(|t| t.exit_code == 0),
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
    let init = kind != Kind::Main || !spec::init_containers(facts.pod).is_empty();
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
    let list = if kind == Kind::Main { &status.container_statuses } else { &status.init_container_statuses };
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
    let ours = ["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"];
    let mut others: Vec<PodCondition> = before.conditions.iter().flatten().filter(|c| !ours.contains(&c.type_.as_str())).cloned().collect();
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

/// The strategic merge patch that turns `before` into `after`, or None when they are the same. It carries the UID, so that it can
/// never hit a successor of the same name.
pub(crate) fn patch(uid: &str, before: Option<&PodStatus>, after: &PodStatus) -> Option<serde_json::Value> {
    use serde_json::{Map, Value, json};
    let to_map = |status: &PodStatus| match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (old, new) = (before.map(to_map).unwrap_or_default(), to_map(after));
    let mut changed = Map::new();
    for (key, value) in &new {
        if old.get(key) == Some(value) {
            continue;
        }
        let value = match (key.as_str(), value) {
            // These lists merge by key: what is gone has to be said.
            ("podIPs" | "hostIPs", Value::Array(items)) if old.contains_key(key) => {
                Value::Array(std::iter::once(json!({"$patch": "replace"})).chain(items.iter().cloned()).collect())
            }
            // Conditions merge by type: only ours that changed are sent, so that nobody else's is touched.
            ("conditions", Value::Array(items)) => {
                let known = old.get(key).and_then(Value::as_array);
                let fresh: Vec<Value> = items.iter().filter(|c| !known.is_some_and(|k| k.contains(c))).map(explicit_nulls).collect();
                if fresh.is_empty() {
                    continue;
                }
                Value::Array(fresh)
            }
            _ => value.clone(),
        };
        changed.insert(key.clone(), value);
    }
    for key in ["reason", "message"] {
        if old.contains_key(key) && !new.contains_key(key) {
            changed.insert(key.into(), Value::Null);
        }
    }
    (!changed.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": changed}))
}

/// A condition merges field by field, so a reason or message that went away must be nulled.
fn explicit_nulls(condition: &serde_json::Value) -> serde_json::Value {
    let mut condition = condition.clone();
    if let Some(map) = condition.as_object_mut() {
        for key in ["reason", "message"] {
            map.entry(key).or_insert(serde_json::Value::Null);
        }
    }
    condition
}
