//! The planner: given what a pod should be and what the runtime has of it, what to do next. Pure; no clock, no I/O.
//!
//! It is asked again after every change, so a plan only holds the steps that are possible *now*: a new sandbox first, then init
//! containers one after the other, then the rest. Answers to
//! <https://kubernetes.io/docs/concepts/workloads/pods/init-containers/> and `sidecar-containers`.
//!
//! Invariant: a container is only ever started under an attempt number above every attempt that the runtime lists, and a sandbox
//! likewise; the runtime refuses a second one of the same name. So however often a plan is carried out, a pod never runs twice.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::{
    backoff::Backoff,
    holds::{Hold, Holds},
    observed::{ContainerRun, Observed, State},
    spec::{self, Kind, RestartPolicy},
};

/// What the probes have found out about running containers, by container id.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Health {
    /// Passed its startup probe.
    pub(crate) started: HashSet<String>,
    /// Passes its readiness probe.
    pub(crate) ready: HashSet<String>,
    /// Failed its startup or liveness probe for good: why, and the probe's own grace period.
    pub(crate) unhealthy: HashMap<String, Unhealthy>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Unhealthy {
    pub(crate) message: String,
    pub(crate) grace_secs: Option<i64>,
}

/// All that a decision depends on.
pub(crate) struct Situation<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) observed: &'a Observed,
    pub(crate) health: &'a Health,
    pub(crate) backoffs: &'a BTreeMap<String, Backoff>,
    /// The containers that the kubelet has just stopped itself, by id, and when the run before that one ended.
    pub(crate) stopped: &'a BTreeMap<String, Option<Timestamp>>,
    /// What failed and may not be tried again yet.
    pub(crate) holds: &'a Holds,
    pub(crate) now: Timestamp,
}

/// A container to start.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Start {
    pub(crate) name: String,
    pub(crate) attempt: u32,
    /// Already created under this id (we died in between): only start it.
    pub(crate) existing: Option<String>,
    /// When the attempt ended from which the back-off is counted; none if this start does not count as a repetition.
    pub(crate) failed_at: Option<Timestamp>,
}

/// A container to stop.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kill {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) message: String,
    pub(crate) grace_secs: Option<i64>,
}

/// A container held back after it failed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wait {
    pub(crate) name: String,
    pub(crate) delay: SignedDuration,
}

/// What to do now.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Stop all that runs of this pod.
    pub(crate) kill_pod: bool,
    /// Nothing will run again: report the outcome and clean up.
    pub(crate) finished: bool,
    /// Make a sandbox under this attempt number, then plan again.
    pub(crate) new_sandbox: Option<u32>,
    /// Older sandboxes that are still up beside the current one.
    pub(crate) stop_sandboxes: Vec<String>,
    pub(crate) start: Vec<Start>,
    pub(crate) kill: Vec<Kill>,
    pub(crate) back_off: Vec<Wait>,
    /// Plan again at this moment even if nothing happens.
    pub(crate) again_at: Option<Timestamp>,
}

impl Plan {
    fn wake(&mut self, at: Timestamp) {
        self.again_at = Some(self.again_at.map_or(at, |before| before.min(at)));
    }
}

/// What is the matter with one container.
enum Verdict {
    /// Runs, and should.
    Runs,
    /// Ended, and need not run again.
    Done,
    /// Ended badly, and must not run again.
    Failed,
    /// Is being started, stopped or held back.
    Pending,
}

/// Decides what to do next for a pod that is meant to run.
pub(crate) fn plan(situation: &Situation<'_>) -> Plan {
    match situation.observed.ready_sandbox() {
        Some(sandbox) => {
            let mut plan = Plan::default();
            let older = situation.observed.sandboxes.iter().skip(1).filter(|s| s.ready);
            plan.stop_sandboxes = older.map(|s| s.id.clone()).collect();
            with_sandbox(situation, &sandbox.id, &mut plan);
            plan
        }
        None => without_sandbox(situation),
    }
}

fn without_sandbox(s: &Situation<'_>) -> Plan {
    let mut plan = Plan { kill_pod: s.observed.is_anything_running(), ..Plan::default() };
    let has_run = !s.observed.containers.is_empty();
    if has_run {
        let someone_must_run = spec::main_containers(s.pod).iter().any(|c| match s.observed.latest(&c.name) {
            Some(run) if run.state == State::Exited => should_restart(s.pod, Kind::Main, c, run),
            // It ran when the sandbox died, or was never reached: only a policy of Never forbids another try.
            _ => restart_policy_of(s.pod, c) != RestartPolicy::Never,
        });
        if !someone_must_run {
            plan.finished = true;
            plan.kill_pod = true;
            return plan;
        }
    }
    if let Some(at) = s.holds.until(&Hold::Sandbox, s.now) {
        plan.wake(at);
        return plan;
    }
    // Invariant: above every attempt that the runtime lists.
    plan.new_sandbox = Some(s.observed.sandboxes.first().map_or(0, |newest| newest.attempt + 1));
    plan
}

fn with_sandbox(s: &Situation<'_>, sandbox_id: &str, plan: &mut Plan) {
    // Ephemeral containers start whether or not initialization is complete, and once each: they are for looking into a pod that is stuck.
    for container in spec::ephemeral_containers(s.pod) {
        ephemeral(s, &container, plan);
    }
    // Init containers run once per sandbox; a new sandbox (after a reboot) runs them again.
    let here = |name: &str| s.observed.latest(name).is_some_and(|run| run.sandbox_id == sandbox_id);
    let initialized = spec::main_containers(s.pod).iter().any(|c| here(&c.name));
    for (kind, container) in spec::all_containers(s.pod).filter(|(kind, _)| *kind != Kind::Main) {
        if kind == Kind::Init && initialized {
            continue;
        }
        let verdict = consider(s, sandbox_id, kind, container, plan);
        if initialized {
            continue;
        }
        match verdict {
            Verdict::Failed => {
                *plan = Plan { kill_pod: true, finished: true, ..Plan::default() };
                return;
            }
            Verdict::Pending => return,
            // A regular init container in progress holds back all that follow, a sidecar only until it has started.
            Verdict::Runs if kind == Kind::Init || !is_started(s, container) => return,
            Verdict::Runs | Verdict::Done => {}
        }
    }
    let verdicts: Vec<Verdict> = spec::main_containers(s.pod).iter().map(|c| consider(s, sandbox_id, Kind::Main, c, plan)).collect();
    if verdicts.iter().all(|v| matches!(v, Verdict::Done | Verdict::Failed)) {
        *plan = Plan { kill_pod: true, finished: true, ..Plan::default() };
    }
}

fn ephemeral(s: &Situation<'_>, container: &Container, plan: &mut Plan) {
    match s.observed.latest(&container.name) {
        Some(run) if run.state == State::Created => {
            plan.start.push(Start { name: run.name.clone(), attempt: run.attempt, existing: Some(run.id.clone()), failed_at: None })
        }
        Some(_) => {}
        // The runtime may have lost the container that ran: it is not started again.
        None if has_run(s.pod, &container.name) => {}
        None => {
            start(s, container, plan, 0, None);
        }
    }
}

fn has_run(pod: &Pod, name: &str) -> bool {
    let known = pod.status.as_ref().and_then(|s| s.ephemeral_container_statuses.as_ref());
    known.into_iter().flatten().any(|c| c.name == name && c.container_id.as_deref().is_some_and(|id| !id.is_empty()))
}

fn is_started(s: &Situation<'_>, container: &Container) -> bool {
    container.startup_probe.is_none() || s.observed.latest(&container.name).is_some_and(|run| s.health.started.contains(&run.id))
}

/// Judges one container and adds what it needs to the plan.
fn consider(s: &Situation<'_>, sandbox_id: &str, kind: Kind, container: &Container, plan: &mut Plan) -> Verdict {
    let Some(run) = s.observed.latest(&container.name) else {
        return start(s, container, plan, first_attempt(s.pod, &container.name), None);
    };
    let in_place = run.sandbox_id == sandbox_id && run.hash == spec::container_hash(container);
    match run.state {
        State::Created if in_place => {
            plan.start.push(Start { name: run.name.clone(), attempt: run.attempt, existing: Some(run.id.clone()), failed_at: None });
            Verdict::Pending
        }
        State::Running if in_place => match s.health.unhealthy.get(&run.id) {
            None => Verdict::Runs,
            Some(unhealthy) => kill(run, unhealthy.message.clone(), unhealthy.grace_secs, plan),
        },
        State::Running => kill(run, format!("Container {} definition changed, will be restarted", run.name), None, plan),
        State::Created | State::Unknown => {
            kill(run, format!("Container {} is in an unexpected state, will be restarted", run.name), None, plan)
        }
        State::Exited if run.sandbox_id != sandbox_id && kind != Kind::Main => start(s, container, plan, run.attempt + 1, Some(run)),
        State::Exited if should_restart(s.pod, kind, container, run) => start(s, container, plan, run.attempt + 1, Some(run)),
        State::Exited if kind == Kind::Init && run.exit_code != 0 => Verdict::Failed,
        State::Exited => Verdict::Done,
    }
}

fn kill(run: &ContainerRun, message: String, grace_secs: Option<i64>, plan: &mut Plan) -> Verdict {
    plan.kill.push(Kill { id: run.id.clone(), name: run.name.clone(), message, grace_secs });
    Verdict::Pending
}

fn start(s: &Situation<'_>, container: &Container, plan: &mut Plan, attempt: u32, before: Option<&ContainerRun>) -> Verdict {
    let waiting = |at: Timestamp| s.backoffs.get(&container.name).and_then(|b| b.waiting(at, s.now));
    let ended = before.map(|run| run.finished_at.unwrap_or(run.created_at));
    // Upstream's kubelet stops a container and starts it again in one go, and looks at the run before the one that it stopped.
    let failed_at = match before.and_then(|run| s.stopped.get(&run.id)) {
        Some(earlier) if earlier.and_then(waiting).is_none() => *earlier,
        _ => ended,
    };
    if let Some((delay, until)) = failed_at.and_then(waiting) {
        plan.back_off.push(Wait { name: container.name.clone(), delay });
        plan.wake(until);
    } else if let Some(at) = s.holds.container(&container.name, s.now) {
        plan.wake(at);
    } else {
        plan.start.push(Start { name: container.name.clone(), attempt, existing: None, failed_at });
    }
    Verdict::Pending
}

/// Zero, unless the API server remembers runs that the runtime has lost.
fn first_attempt(pod: &Pod, name: &str) -> u32 {
    let Some(status) = pod.status.as_ref() else { return 0 };
    let lists = [&status.container_statuses, &status.init_container_statuses];
    let known = lists.into_iter().flatten().flatten().find(|c| c.name == name);
    match known {
        Some(status) if status.container_id.as_deref().is_some_and(|id| !id.is_empty()) => {
            u32::try_from(status.restart_count).unwrap_or(0) + 1
        }
        Some(status) => u32::try_from(status.restart_count).unwrap_or(0),
        None => 0,
    }
}

fn restart_policy_of(pod: &Pod, container: &Container) -> RestartPolicy {
    match container.restart_policy.as_deref() {
        Some("Always") => RestartPolicy::Always,
        Some("OnFailure") => RestartPolicy::OnFailure,
        Some("Never") => RestartPolicy::Never,
        _ => spec::restart_policy(pod),
    }
}

/// Whether an ended container is to run again.
pub(crate) fn should_restart(pod: &Pod, kind: Kind, container: &Container, run: &ContainerRun) -> bool {
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(codes) = rule.exit_codes.as_ref() else { continue };
        let listed = codes.values.iter().flatten().any(|code| *code == run.exit_code);
        if rule.action == "Restart" && listed == (codes.operator == "In") {
            return true;
        }
    }
    match (kind, restart_policy_of(pod, container)) {
        (Kind::Sidecar, _) => true,
        (Kind::Init, RestartPolicy::Never) => false,
        (Kind::Init, _) => run.exit_code != 0,
        (Kind::Main, RestartPolicy::Always) => true,
        (Kind::Main, RestartPolicy::OnFailure) => run.exit_code != 0,
        (Kind::Main, RestartPolicy::Never) => false,
        (Kind::Ephemeral, _) => false,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
