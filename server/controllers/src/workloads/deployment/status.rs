//! A Deployment's status and conditions from its ReplicaSets, in upstream's words: `kubectl rollout status` reads them. No
//! I/O.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use trireme_client::Object;

use super::DeploymentStatusDraft;
use super::view::{self, View};
use crate::runtime::clock::seconds_since;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const COMPLETE: &str = "NewReplicaSetAvailable";

pub(super) fn progressing(deployment: &Deployment) -> Option<&DeploymentCondition> {
    find(deployment.status.as_ref()?.conditions.as_deref()?, PROGRESSING)
}

/// `None` if the Deployment has all the time in the world.
pub(super) fn progress_deadline_secs(deployment: &Deployment) -> Option<i32> {
    deployment.spec.as_ref()?.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX)
}

/// Whether every pod is of the present template and available.
pub(super) fn is_complete(view: &View<'_>) -> bool {
    view.deployment.status.as_ref().is_some_and(|status| completes(view, status))
}

fn completes(view: &View<'_>, status: &DeploymentStatus) -> bool {
    status.updated_replicas.unwrap_or(0) == view.replicas
        && status.replicas.unwrap_or(0) == view.replicas
        && status.available_replicas.unwrap_or(0) == view.replicas
        && status.observed_generation.unwrap_or(0) >= view.deployment.metadata.generation.unwrap_or(0)
}

pub(super) fn status(view: &View<'_>, draft: DeploymentStatusDraft, now: Timestamp) -> DeploymentStatus {
    let old = view.deployment.status.clone().unwrap_or_default();
    let mut status = counts(view);
    status.collision_count = draft.collision_count;
    let mut conditions = Conditions { list: old.conditions.clone().unwrap_or_default(), now };
    let minimum = view.replicas - view::max_unavailable(view.deployment);
    if status.available_replicas.unwrap_or(0) >= minimum {
        conditions.set(AVAILABLE, "True", "MinimumReplicasAvailable", "Deployment has minimum availability.");
    } else {
        let message = "Deployment does not have minimum availability.";
        conditions.set(AVAILABLE, "False", "MinimumReplicasUnavailable", message);
    }
    if progress_deadline_secs(view.deployment).is_none() {
        conditions.remove(PROGRESSING);
    } else {
        if let Some((reason, message)) = draft.progress {
            let value = match reason {
                "DeploymentPaused" | "DeploymentResumed" => "Unknown",
                "ReplicaSetCreateError" => "False",
                _ => "True",
            };
            conditions.set(PROGRESSING, value, reason, &message);
        }
        if !view.paused() {
            judge_progress(view, &old, &status, &mut conditions);
        }
    }
    let failure = view
        .new
        .iter()
        .chain(view.old.iter())
        .find_map(|set| set.status.as_ref()?.conditions.iter().flatten().find(|one| one.type_ == REPLICA_FAILURE));
    match failure {
        Some(failure) => conditions.set(
            REPLICA_FAILURE,
            &failure.status,
            failure.reason.as_deref().unwrap_or_default(),
            failure.message.as_deref().unwrap_or_default(),
        ),
        None => conditions.remove(REPLICA_FAILURE),
    }
    status.conditions = Some(conditions.list).filter(|list| !list.is_empty());
    status
}

fn counts(view: &View<'_>) -> DeploymentStatus {
    let sum = |field: fn(&ReplicaSet) -> i32| -> i32 { view.all().map(|set| field(set)).sum() };
    let some = |number: i32| Some(number).filter(|number| *number != 0);
    let available = sum(view::available);
    DeploymentStatus {
        observed_generation: view.deployment.metadata.generation,
        replicas: some(sum(|set| set.status.as_ref().map_or(0, |status| status.replicas))),
        updated_replicas: some(view.new.as_ref().and_then(|new| new.status.as_ref()).map_or(0, |status| status.replicas)),
        ready_replicas: some(sum(|set| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0))),
        available_replicas: some(available),
        unavailable_replicas: some((sum(view::replicas) - available).max(0)),
        terminating_replicas: Some(sum(|set| set.status.as_ref().and_then(|status| status.terminating_replicas).unwrap_or(0))),
        collision_count: None,
        conditions: None,
    }
}

fn judge_progress(view: &View<'_>, old: &DeploymentStatus, new: &DeploymentStatus, conditions: &mut Conditions) {
    let current = find(&conditions.list, PROGRESSING).cloned();
    let was_complete =
        new.replicas == new.updated_replicas && current.as_ref().and_then(|condition| condition.reason.as_deref()) == Some(COMPLETE);
    if was_complete {
        return;
    }
    let subject = match &view.new {
        Some(set) => format!("ReplicaSet {:?}", set.name()),
        None => format!("Deployment {:?}", view.deployment.name()),
    };
    if completes(view, new) {
        conditions.set(PROGRESSING, "True", COMPLETE, &format!("{subject} has successfully progressed."));
    } else if progresses(old, new) {
        let message = format!("{subject} is progressing.");
        conditions.renew(PROGRESSING, "True", "ReplicaSetUpdated", &message);
    } else if timed_out(view.deployment, current.as_ref(), conditions.now) {
        conditions.set(PROGRESSING, "False", TIMED_OUT, &format!("{subject} has timed out progressing."));
    }
}

fn progresses(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let number = |value: Option<i32>| value.unwrap_or(0);
    let outdated = |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
    number(new.updated_replicas) > number(old.updated_replicas)
        || outdated(new) < outdated(old)
        || number(new.ready_replicas) > number(old.ready_replicas)
        || number(new.available_replicas) > number(old.available_replicas)
}

fn timed_out(deployment: &Deployment, current: Option<&DeploymentCondition>, now: Timestamp) -> bool {
    let (Some(deadline), Some(current)) = (progress_deadline_secs(deployment), current) else { return false };
    match current.reason.as_deref() {
        Some(COMPLETE | "DeploymentPaused") => false,
        Some(TIMED_OUT) => true,
        _ => current.last_update_time.as_ref().is_some_and(|since| seconds_since(since, now) > i64::from(deadline)),
    }
}

/// In how many seconds a rollout that makes no progress must be looked at again; `None` if it need not.
pub(super) fn stuck_check_secs(view: &View<'_>, now: Timestamp) -> Option<i64> {
    let deadline = progress_deadline_secs(view.deployment)?;
    let current = progressing(view.deployment)?;
    if view.paused() || is_complete(view) || matches!(current.reason.as_deref(), Some(TIMED_OUT | COMPLETE)) {
        return None;
    }
    let since = current.last_update_time.as_ref()?;
    Some((i64::from(deadline) - seconds_since(since, now)).max(0) + 1)
}

fn find<'a>(list: &'a [DeploymentCondition], kind: &str) -> Option<&'a DeploymentCondition> {
    list.iter().find(|condition| condition.type_ == kind)
}

struct Conditions {
    list: Vec<DeploymentCondition>,
    now: Timestamp,
}

impl Conditions {
    /// Sets a condition. The same status and reason again changes nothing, so that its times mean something.
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let same = find(&self.list, kind).is_some_and(|known| known.status == status && known.reason.as_deref() == Some(reason));
        if !same {
            self.renew(kind, status, reason, message);
        }
    }

    /// Sets a condition and says that it was looked at now.
    fn renew(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let since = find(&self.list, kind).filter(|known| known.status == status).and_then(|known| known.last_transition_time.clone());
        self.list.retain(|known| known.type_ != kind);
        self.list.push(DeploymentCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_update_time: Some(Time(self.now)),
            last_transition_time: Some(since.unwrap_or(Time(self.now))),
        });
    }

    fn remove(&mut self, kind: &str) {
        self.list.retain(|known| known.type_ != kind);
    }
}
