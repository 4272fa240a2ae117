//! What a StatefulSet's controller does next. No I/O.
//!
//! In order: pods within the range of ordinals are made, lowest first; then those beyond it go, highest first; then outdated ones
//! go, highest first, and come back updated. An ordered set takes one step at a time, and none while a pod below is not available;
//! a parallel set takes all steps of one stage at once.
//!
//! Invariant: an ordinal whose pod exists is not created. A plan contains at most one deletion for a pod.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use trireme_client::Object;

use super::claims::{claim_name, is_owned_by_predecessor, new_owners};
use super::identity::{has_identity, has_storage, ordinal_in, pod_name, revision_of};
use super::view::View;
use crate::pods;

/// Pods created in one reconcile.
const BURST: usize = 500;

/// One write, or some that belong together.
#[derive(Debug)]
pub(super) enum Action {
    /// Makes the claims of an ordinal, and the pod from the current revision or from the updated one.
    Create {
        ordinal: i32,
        updated: bool,
    },
    /// Makes the claims that a pod waits for.
    Provide(Arc<Pod>),
    /// Makes labels and volumes of a pod those of its ordinal.
    Repair(Arc<Pod>),
    /// Gives the claims of a pod the owners that the retention policy wants.
    Own(Arc<Pod>),
    Delete(Arc<Pod>),
}

/// The steps of one pod, one after the other.
pub(super) type Task = Vec<Action>;

/// Stages are taken in order, up to one that fails. Within a stage an ordered set takes the tasks in order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) stages: Vec<Vec<Task>>,
}

/// What the plan is made from.
pub(super) struct Situation<'a> {
    pub(super) view: View<'a>,
    /// The set's pods; other names than the set gives do not count.
    pub(super) pods: &'a [Arc<Pod>],
    /// The name of the revision that the pods should have.
    pub(super) update: &'a str,
    pub(super) claim: &'a dyn Fn(&str) -> Option<Arc<PersistentVolumeClaim>>,
    pub(super) now: Timestamp,
}

/// Whether what is done for one pod lets an ordered set go on with the next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Go {
    On,
    Stop,
}

pub(super) fn plan(situation: &Situation<'_>) -> Plan {
    let view = &situation.view;
    let mut plan = Plan::default();
    let (wanted, condemned) = partition(view, situation.pods);
    let Some(tasks) = replicas(situation, &wanted, &mut plan) else { return plan };
    plan.stages.push(tasks);
    plan.stages.push(condemned.iter().rev().filter_map(|(ordinal, pod)| own(situation, pod, *ordinal).map(|own| vec![own])).collect());
    plan.stages.push(leaving(situation, &condemned));
    if view.updates_by_itself() && (condemned.is_empty() || !view.is_ordered()) {
        plan.stages.push(outdated(situation, &wanted));
    }
    plan
}

type ByOrdinal<'a> = BTreeMap<i32, &'a Arc<Pod>>;

/// The pods within the range of ordinals, and those that the set has too many.
fn partition<'a>(view: &View<'_>, pods: &'a [Arc<Pod>]) -> (ByOrdinal<'a>, ByOrdinal<'a>) {
    let known = pods.iter().filter_map(|pod| Some((ordinal_in(view.name(), pod.name())?, pod)));
    known.partition(|(ordinal, _)| view.ordinals().contains(ordinal))
}

/// The tasks for the range of ordinals; `None` if the plan ends with them, which are in the plan then.
fn replicas(situation: &Situation<'_>, present: &ByOrdinal<'_>, plan: &mut Plan) -> Option<Vec<Task>> {
    let view = &situation.view;
    let (mut tasks, mut created) = (Vec::new(), 0);
    for ordinal in view.ordinals() {
        let mut task = Vec::new();
        let go = match present.get(&ordinal) {
            Some(pod) => replica(situation, pod, ordinal, &mut task),
            None => missing(situation, ordinal, &mut task),
        };
        created += usize::from(task.iter().any(|action| matches!(action, Action::Create { .. })));
        if !task.is_empty() {
            tasks.push(task);
        }
        if (view.is_ordered() && go == Go::Stop) || created == BURST {
            plan.stages.push(tasks);
            return None;
        }
    }
    Some(tasks)
}

fn missing(situation: &Situation<'_>, ordinal: i32, task: &mut Task) -> Go {
    if !has_stale_claim(situation, ordinal) {
        task.push(Action::Create { ordinal, updated: !situation.view.is_made_from_current(ordinal) });
    }
    Go::Stop
}

/// Whether a claim of this ordinal still goes with an earlier pod of its name: it will be deleted, and a new pod must not use it.
fn has_stale_claim(situation: &Situation<'_>, ordinal: i32) -> bool {
    let view = &situation.view;
    if !view.retention().delete_with_pod {
        return false;
    }
    let mut unborn = Pod::default();
    unborn.metadata.name = Some(pod_name(view.name(), ordinal));
    each_claim(situation, ordinal).any(|claim| is_owned_by_predecessor(&claim, &unborn))
}

fn each_claim(situation: &Situation<'_>, ordinal: i32) -> impl Iterator<Item = Arc<PersistentVolumeClaim>> {
    let view = &situation.view;
    let names = view.claim_templates().iter().map(move |template| claim_name(view.name(), template.name(), ordinal));
    names.filter_map(|name| (situation.claim)(&name))
}

fn replica(situation: &Situation<'_>, pod: &Arc<Pod>, ordinal: i32, task: &mut Task) -> Go {
    let view = &situation.view;
    if pods::is_terminal(pod) {
        // A finished pod is replaced whatever its containers' exit codes: pods of a StatefulSet always run.
        if !pods::is_terminating(pod) {
            task.push(Action::Delete(Arc::clone(pod)));
        }
        return Go::Stop;
    }
    if pods::phase(pod) == "Pending" && !view.claim_templates().is_empty() {
        task.push(Action::Provide(Arc::clone(pod)));
        task.extend(own(situation, pod, ordinal));
    }
    let runs = pods::phase(pod) == "Running" && is_available(situation, pod);
    if view.is_ordered() && (pods::is_terminating(pod) || !runs) {
        return Go::Stop;
    }
    if !has_identity(pod) || !has_storage(view, pod, ordinal) {
        task.push(Action::Repair(Arc::clone(pod)));
    }
    if !task.iter().any(|action| matches!(action, Action::Own(_))) {
        task.extend(own(situation, pod, ordinal));
    }
    Go::On
}

/// What to do about the owners of a pod's claims.
fn own(situation: &Situation<'_>, pod: &Arc<Pod>, ordinal: i32) -> Option<Action> {
    let view = &situation.view;
    let scaled_away = !view.ordinals().contains(&ordinal);
    let wrong = each_claim(situation, ordinal).any(|claim| new_owners(view, &claim, pod, scaled_away).is_some());
    wrong.then(|| Action::Own(Arc::clone(pod)))
}

/// The pods beyond the range that go now.
fn leaving(situation: &Situation<'_>, condemned: &ByOrdinal<'_>) -> Vec<Task> {
    let delete = |pod: &Arc<Pod>| vec![Action::Delete(Arc::clone(pod))];
    if !situation.view.is_ordered() {
        return condemned.values().rev().filter(|pod| !pods::is_terminating(pod)).map(|pod| delete(pod)).collect();
    }
    let Some((_, last)) = condemned.last_key_value() else { return Vec::new() };
    // The last pod is deleted if it is available, or if no pod below it is unavailable; otherwise it waits for those below.
    let first_unavailable = condemned.values().find(|pod| is_unavailable(situation, pod));
    let may_go = pods::phase(last) == "Running" && is_available(situation, last);
    let is_first = first_unavailable.is_some_and(|pod| pod.uid() == last.uid());
    if pods::is_terminating(last) || !(may_go || is_first) { Vec::new() } else { vec![delete(last)] }
}

/// The outdated pods that go now, to come back updated.
fn outdated(situation: &Situation<'_>, present: &ByOrdinal<'_>) -> Vec<Task> {
    let view = &situation.view;
    let is_old = |pod: &Pod| revision_of(pod) != situation.update && !pods::is_terminating(pod);
    let delete = |pod: &Arc<Pod>| vec![Action::Delete(Arc::clone(pod))];
    // A finished pod is deleted already, in this plan or before.
    let candidates = view.ordinals().rev().take_while(|ordinal| *ordinal >= view.first_updated());
    if let Some(most) = view.max_unavailable() {
        let up = |ordinal: i32| present.get(&ordinal).is_some_and(|pod| !is_unavailable(situation, pod));
        let down = view.ordinals().filter(|ordinal| !up(*ordinal)).count();
        let room = usize::try_from(most).unwrap_or(0).saturating_sub(down);
        let old = candidates.filter_map(|ordinal| present.get(&ordinal)).filter(|pod| is_old(pod) && !pods::is_terminal(pod));
        return old.take(room).map(|pod| delete(pod)).collect();
    }
    for ordinal in candidates {
        match present.get(&ordinal) {
            Some(pod) if is_old(pod) && !pods::is_terminal(pod) => return vec![delete(pod)],
            Some(pod) if !is_unavailable(situation, pod) => {}
            _ => return Vec::new(),
        }
    }
    Vec::new()
}

fn is_available(situation: &Situation<'_>, pod: &Pod) -> bool {
    pods::available_in_secs(pod, situation.view.min_ready_secs(), situation.now) == Some(0)
}

fn is_unavailable(situation: &Situation<'_>, pod: &Pod) -> bool {
    !is_available(situation, pod) || pods::is_terminating(pod)
}

#[cfg(test)]
mod tests;
