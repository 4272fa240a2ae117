//! The steps of a Job's status. No I/O.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobCondition, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use trireme_client::Object;

use super::pod;
use super::view::{Outcome, View};
use crate::pods;

/// Uids that a status lists at most.
const UNCOUNTED_MAX: usize = 500;

/// Whether a Job has ended, one way or the other.
pub(crate) fn is_finished(job: &Job) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True")
}

/// The clock of a Job starts when it is first seen unsuspended.
pub(super) fn start(view: &mut View<'_>) {
    if view.status.start_time.is_none() && !view.is_suspended() {
        view.status.start_time = Some(Time(view.now));
    }
}

/// Says whether the Job is suspended; returns the event to tell, if that is news.
pub(super) fn suspension(view: &mut View<'_>) -> Option<(&'static str, &'static str)> {
    let known = view.status.conditions.iter().flatten().find(|condition| condition.type_ == "Suspended").cloned();
    if view.is_suspended() {
        if known.is_some_and(|condition| condition.status == "True") {
            return None;
        }
        set(view, "Suspended", "True", "JobSuspended", "Job suspended");
        view.status.start_time = None;
        return Some(("Suspended", "Job suspended"));
    }
    if known.is_none_or(|condition| condition.status != "True") {
        return None;
    }
    set(view, "Suspended", "False", "JobResumed", "Job resumed");
    view.status.start_time = Some(Time(view.now));
    Some(("Resumed", "Job resumed"))
}

fn set(view: &mut View<'_>, kind: &str, status: &str, reason: &str, message: &str) {
    let now = Some(Time(view.now));
    let condition = JobCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: now.clone(),
        last_transition_time: now,
    };
    let conditions = view.status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|known| known.type_ == kind) {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
}

/// Lists finished pods as uncounted and sets the counts; returns the pods whose finalizer may go once the status is written.
pub(super) fn note_finished(view: &mut View<'_>, outcome: Option<&Outcome>) -> Vec<Arc<Pod>> {
    let kept: BTreeSet<String> = view.to_be_replaced().values().map(|pod| pod.uid().to_owned()).collect();
    let mut uncounted = view.status.uncounted_terminated_pods.clone().unwrap_or_default();
    let (mut succeeded, mut failed) = (uncounted.succeeded.take().unwrap_or_default(), uncounted.failed.take().unwrap_or_default());
    let mut counted = Vec::new();
    let ends_badly = outcome.is_some_and(|outcome| !outcome.succeeded);
    for pod in view.pods.iter().filter(|pod| pod::is_tracked(pod)) {
        if succeeded.len() + failed.len() >= UNCOUNTED_MAX {
            break;
        }
        let uid = pod.uid().to_owned();
        let is_failed = view.is_failed(pod);
        let has_succeeded = pods::phase(pod) == "Succeeded";
        let may_go = has_succeeded || outcome.is_some() || view.job.metadata.deletion_timestamp.is_some() || is_failed;
        if !may_go || (outcome.is_none() && is_failed && kept.contains(&uid)) {
            continue;
        }
        counted.push(Arc::clone(pod));
        if succeeded.contains(&uid) || failed.contains(&uid) {
            continue;
        }
        if has_succeeded {
            // An index set needs no uids: it cannot count twice.
            if !view.is_indexed() {
                succeeded.push(uid);
            }
        } else if (is_failed && view.counts_as_failed(pod) || !is_failed && ends_badly)
            && (!view.is_indexed() || view.index_of(pod).is_some())
        {
            failed.push(uid);
        }
    }
    let some = |list: Vec<String>| Some(list).filter(|list| !list.is_empty());
    let listed = UncountedTerminatedPods { succeeded: some(succeeded), failed: some(failed) };
    let is_empty = listed == UncountedTerminatedPods::default();
    view.status.uncounted_terminated_pods =
        view.status.uncounted_terminated_pods.take().or((!is_empty).then(Default::default)).map(|_| listed);
    if view.is_indexed() {
        view.status.succeeded = Some(view.succeeded_indexes.total()).filter(|total| *total > 0);
        view.status.completed_indexes = Some(view.succeeded_indexes.to_string()).filter(|text| !text.is_empty());
        view.status.failed_indexes = view.limits_each_index().then(|| view.failed_indexes.to_string());
    }
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    view.status.active = Some(number(view.active.len())).filter(|active| *active > 0);
    view.status.ready = Some(number(view.active.iter().filter(|pod| pods::is_ready(pod)).count()));
    view.status.terminating = Some(number(view.ending()));
    counted
}

/// Notes an outcome, and ends the Job when no pod is left that runs or is uncounted. True if it ended.
pub(super) fn conclude(view: &mut View<'_>, outcome: Option<&Outcome>, all_counted: bool) -> bool {
    let Some(outcome) = outcome else { return false };
    let (interim, last) = if outcome.succeeded { ("SuccessCriteriaMet", "Complete") } else { ("FailureTarget", "Failed") };
    if !view.condition(interim) {
        set(view, interim, "True", &outcome.reason, &outcome.message);
    }
    let listed = view.status.uncounted_terminated_pods.as_ref();
    let listed = listed.is_some_and(|pods| pods.succeeded.is_some() || pods.failed.is_some());
    let running = view.pods.iter().any(|pod| !pods::is_terminal(pod));
    if listed || running || !all_counted {
        return false;
    }
    set(view, last, "True", &outcome.reason, &outcome.message);
    if outcome.succeeded {
        view.status.completion_time = Some(Time(view.now));
    }
    true
}
