//! The next step of a rollout: from a Deployment and its ReplicaSets to what to create, scale and delete. No I/O.
//!
//! A step never moves beyond the bounds that hold now: at most `replicas + maxSurge` pods, at least
//! `replicas - maxUnavailable` available ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use trireme_client::Object;

use super::view::{self, View, available, replicas};
use super::{annotations, status};

/// A ReplicaSet to create from the present template.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Create {
    pub(super) replicas: i32,
    pub(super) revision: i64,
}

#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) create: Option<Create>,
    pub(super) annotate: Vec<(Arc<ReplicaSet>, BTreeMap<String, String>)>,
    pub(super) min_ready: Option<(Arc<ReplicaSet>, i32)>,
    pub(super) scale: Vec<(Arc<ReplicaSet>, i32)>,
    pub(super) delete: Vec<Arc<ReplicaSet>>,
    /// The revision annotation to set on the Deployment.
    pub(super) deployment_revision: Option<i64>,
    /// A reason and message for the Progressing condition.
    pub(super) progress: Option<(&'static str, String)>,
}

pub(super) fn step(view: &View<'_>) -> Step {
    let mut step = Step { progress: pause_change(view), ..Step::default() };
    revise(view, &mut step);
    if view.paused() {
        resize(view, &mut step);
        clean_up(view, &mut step);
    } else if is_resized(view) {
        resize(view, &mut step);
    } else if view::is_recreate(view.deployment) {
        recreate(view, &mut step);
    } else {
        roll(view, &mut step);
    }
    step
}

fn is_active(set: &ReplicaSet) -> bool {
    replicas(set) > 0
}

fn total(view: &View<'_>) -> i32 {
    view.all().map(|set| replicas(set)).sum()
}

fn pause_change(view: &View<'_>) -> Option<(&'static str, String)> {
    status::progress_deadline_secs(view.deployment)?;
    let reason = status::progressing(view.deployment).and_then(|condition| condition.reason.as_deref());
    match (view.paused(), reason) {
        (_, Some("ProgressDeadlineExceeded")) | (true, Some("DeploymentPaused")) => None,
        (true, _) => Some(("DeploymentPaused", "Deployment is paused".to_owned())),
        (false, Some("DeploymentPaused")) => Some(("DeploymentResumed", "Deployment is resumed".to_owned())),
        _ => None,
    }
}

/// Gives the present template's ReplicaSet the highest revision.
fn revise(view: &View<'_>, step: &mut Step) {
    let Some(new) = &view.new else { return };
    let highest_old = view.old.iter().map(|set| annotations::revision(&**set)).max().unwrap_or(0);
    let wanted = highest_old + 1;
    let changed = annotations::update_new(view, new, wanted);
    if !changed.is_empty() {
        step.annotate.push((Arc::clone(new), changed));
    }
    let min_ready = |seconds: Option<i32>| seconds.unwrap_or(0);
    let wanted_ready = min_ready(view.deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds));
    if min_ready(new.spec.as_ref().and_then(|spec| spec.min_ready_seconds)) != wanted_ready {
        step.min_ready = Some((Arc::clone(new), wanted_ready));
    }
    let revision = wanted.max(annotations::revision(&**new));
    if annotations::revision(view.deployment) != revision {
        step.deployment_revision = Some(revision);
    }
    if status::progressing(view.deployment).is_none() && step.progress.is_none() {
        step.progress = Some(("FoundNewReplicaSet", format!("Found new replica set {:?}", new.name())));
    }
}

fn create(view: &View<'_>, replicas: i32, step: &mut Step) {
    let highest = view.old.iter().map(|set| annotations::revision(&**set)).max().unwrap_or(0);
    step.create = Some(Create { replicas, revision: highest + 1 });
    step.deployment_revision = Some(highest + 1).filter(|wanted| annotations::revision(view.deployment) != *wanted);
}

/// How large the new ReplicaSet may be now.
fn allowed_new(view: &View<'_>, present: i32) -> i32 {
    if view::is_recreate(view.deployment) {
        return view.replicas;
    }
    let room = view.replicas + view::max_surge(view.deployment) - total(view);
    if room <= 0 { present } else { present + room.min((view.replicas - present).max(0)) }
}

fn roll(view: &View<'_>, step: &mut Step) {
    let Some(new) = &view.new else { return create(view, allowed_new(view, 0), step) };
    let present = replicas(new);
    let wanted = if present > view.replicas { view.replicas } else { allowed_new(view, present) };
    if wanted != present {
        step.scale.push((Arc::clone(new), wanted));
        return;
    }
    let shrunk = shrink_old(view, new);
    if !shrunk.is_empty() {
        step.scale = shrunk;
    } else if status::is_complete(view) {
        clean_up(view, step);
    }
}

/// Scales old ReplicaSets down: first what is not healthy anyway, then what may be missed.
fn shrink_old(view: &View<'_>, new: &ReplicaSet) -> Vec<(Arc<ReplicaSet>, i32)> {
    if !view.old.iter().any(|set| is_active(set)) {
        return Vec::new();
    }
    let minimum = view.replicas - view::max_unavailable(view.deployment);
    let new_unavailable = replicas(new) - available(new);
    let mut spare = total(view) - minimum - new_unavailable;
    if spare <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<(&Arc<ReplicaSet>, i32)> = view.old.iter().map(|set| (set, replicas(set))).collect();
    for (set, size) in &mut sizes {
        let unhealthy = (*size - available(set)).clamp(0, spare.max(0));
        *size -= unhealthy;
        spare -= unhealthy;
    }
    let mut missable = view.all().map(|set| available(set)).sum::<i32>() - minimum;
    for (_, size) in &mut sizes {
        let less = (*size).min(missable).max(0);
        *size -= less;
        missable -= less;
    }
    sizes.into_iter().filter(|(set, size)| *size != replicas(set)).map(|(set, size)| (Arc::clone(set), size)).collect()
}

fn recreate(view: &View<'_>, step: &mut Step) {
    step.scale = view.old.iter().filter(|set| is_active(set)).map(|set| (Arc::clone(set), 0)).collect();
    if !step.scale.is_empty() || view.old_pods_run {
        return;
    }
    match &view.new {
        None => create(view, view.replicas, step),
        Some(new) if replicas(new) != view.replicas => step.scale.push((Arc::clone(new), view.replicas)),
        Some(_) if status::is_complete(view) => clean_up(view, step),
        Some(_) => {}
    }
}

/// Whether the Deployment was resized since its ReplicaSets were last scaled.
fn is_resized(view: &View<'_>) -> bool {
    view.all().filter(|set| is_active(set)).any(|set| annotations::desired(set).is_some_and(|desired| desired != view.replicas))
}

/// Applies a new size to what is there, in proportion if several ReplicaSets share it.
fn resize(view: &View<'_>, step: &mut Step) {
    let active: Vec<&Arc<ReplicaSet>> = view.all().filter(|set| is_active(set)).collect();
    let single = match active.as_slice() {
        [] => view.new.as_ref().or(view.old.last()),
        [single] => Some(*single),
        _ => None,
    };
    if let Some(set) = single {
        if replicas(set) != view.replicas || annotations::desired(set) != Some(view.replicas) {
            step.scale.push((Arc::clone(set), view.replicas));
        }
        return;
    }
    if view.new.as_ref().is_some_and(|new| is_saturated(view, new)) {
        step.scale.extend(view.old.iter().filter(|set| is_active(set)).map(|set| (Arc::clone(set), 0)));
        return;
    }
    if !view::is_recreate(view.deployment) {
        step.scale.extend(proportional(view, active));
    }
}

/// Whether the new ReplicaSet alone is the whole Deployment.
fn is_saturated(view: &View<'_>, new: &ReplicaSet) -> bool {
    replicas(new) == view.replicas && annotations::desired(new) == Some(view.replicas) && available(new) == view.replicas
}

fn proportional(view: &View<'_>, mut active: Vec<&Arc<ReplicaSet>>) -> Vec<(Arc<ReplicaSet>, i32)> {
    let allowed = if view.replicas > 0 { view.replicas + view::max_surge(view.deployment) } else { 0 };
    let to_add = allowed - total(view);
    let created = |set: &ReplicaSet| set.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    // Larger first; of equals the newer grows and the older shrinks first.
    active.sort_by_key(|set| {
        let age = if to_add > 0 { -created(set) } else { created(set) };
        (-replicas(set), age)
    });
    let mut added = 0;
    let mut sizes: Vec<(Arc<ReplicaSet>, i32)> = Vec::with_capacity(active.len());
    for set in active {
        let size = replicas(set);
        let share = if to_add == 0 { 0 } else { proportion(view, set, to_add, added) };
        added += share;
        sizes.push((Arc::clone(set), size + share));
    }
    if let Some((_, first)) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    sizes
}

fn proportion(view: &View<'_>, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    let share = fraction(view, set);
    let left = to_add - added;
    if to_add > 0 { share.min(left) } else { share.max(left) }
}

fn fraction(view: &View<'_>, set: &ReplicaSet) -> i32 {
    let size = replicas(set);
    if view.replicas == 0 {
        return -size;
    }
    let maximum = f64::from(view.replicas + view::max_surge(view.deployment));
    let status_replicas = view.deployment.status.as_ref().and_then(|status| status.replicas);
    let before = annotations::max(set).filter(|max| *max > 0).or(status_replicas).filter(|max| *max > 0);
    let Some(before) = before else { return 0 };
    #[allow(clippy::cast_possible_truncation)]
    let scaled = (f64::from(size) * maximum / f64::from(before)).round() as i32;
    scaled - size
}

/// Drops the oldest revisions beyond the history limit, if nothing of them runs.
fn clean_up(view: &View<'_>, step: &mut Step) {
    let Some(limit) = view.deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit) else { return };
    let mut alive: Vec<&Arc<ReplicaSet>> = view.old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
    let surplus = alive.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    alive.sort_by_key(|set| annotations::revision(&***set));
    step.delete = alive
        .into_iter()
        .take(surplus)
        .filter(|set| {
            let status = set.status.clone().unwrap_or_default();
            status.replicas == 0 && replicas(set) == 0 && set.metadata.generation.unwrap_or(0) <= status.observed_generation.unwrap_or(0)
        })
        .cloned()
        .collect();
}

#[cfg(test)]
mod tests;
