//! A Deployment with its ReplicaSets, as the plan sees them. No I/O.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use trireme_client::Object;

use super::HASH_LABEL;
use crate::workloads::amount::scaled;
use crate::workloads::hash::template_hash;

pub(super) struct View<'a> {
    pub(super) deployment: &'a Deployment,
    /// `spec.replicas`.
    pub(super) replicas: i32,
    /// The ReplicaSet of the present template, if there is one.
    pub(super) new: Option<Arc<ReplicaSet>>,
    /// All others, oldest first.
    pub(super) old: Vec<Arc<ReplicaSet>>,
    /// Whether pods of the others still run (looked up for Recreate only).
    pub(super) old_pods_run: bool,
}

impl<'a> View<'a> {
    pub(super) fn new(deployment: &'a Deployment, mut sets: Vec<Arc<ReplicaSet>>, old_pods_run: bool) -> Self {
        sets.sort_by_key(|set| (set.metadata.creation_timestamp.as_ref().map(|time| time.0), set.metadata.name.clone()));
        let new = find_new(deployment, &sets).cloned();
        let old = sets.into_iter().filter(|set| new.as_ref().is_none_or(|new| new.uid() != set.uid())).collect();
        let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        Self { deployment, replicas, new, old, old_pods_run }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(self.new.as_ref())
    }

    pub(super) fn paused(&self) -> bool {
        self.deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true)
    }
}

/// The oldest ReplicaSet that has the present template.
pub(super) fn find_new<'s>(deployment: &Deployment, sets: &'s [Arc<ReplicaSet>]) -> Option<&'s Arc<ReplicaSet>> {
    sets.iter()
        .filter(|set| same_template(deployment, set))
        .min_by_key(|set| (set.metadata.creation_timestamp.as_ref().map(|time| time.0), set.metadata.name.clone()))
}

/// Whether a ReplicaSet was made from the Deployment's present template: the templates are equal but for the hash, or the
/// hash is the present one (a server that learned a new default may show equal templates differently).
pub(super) fn same_template(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let (Some(spec), Some(set_spec)) = (&deployment.spec, &set.spec) else { return false };
    let set_template = set_spec.template.clone().unwrap_or_default();
    if without_hash(set_template) == without_hash(spec.template.clone()) {
        return true;
    }
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let label = set.metadata.labels.as_ref().and_then(|labels| labels.get(HASH_LABEL));
    label.is_some_and(|label| *label == template_hash(&spec.template, collisions))
}

fn without_hash(mut template: PodTemplateSpec) -> PodTemplateSpec {
    let meta = template.metadata.get_or_insert_default();
    meta.creation_timestamp = None;
    if let Some(labels) = &mut meta.labels {
        labels.remove(HASH_LABEL);
        if labels.is_empty() {
            meta.labels = None;
        }
    }
    template
}

pub(super) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

pub(super) fn is_recreate(deployment: &Deployment) -> bool {
    strategy_type(deployment) == "Recreate"
}

fn strategy_type(deployment: &Deployment) -> &str {
    deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.strategy.as_ref())
        .and_then(|strategy| strategy.type_.as_deref())
        .unwrap_or("RollingUpdate")
}

/// How many pods there may be beyond `replicas`.
pub(super) fn max_surge(deployment: &Deployment) -> i32 {
    fenceposts(deployment).0
}

/// How many pods may be missing.
pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    fenceposts(deployment).1.min(replicas)
}

/// (maxSurge rounded up, maxUnavailable rounded down); never both zero, or nothing could ever move.
fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    let Some(spec) = &deployment.spec else { return (0, 0) };
    let replicas = spec.replicas.unwrap_or(1);
    if is_recreate(deployment) || replicas == 0 {
        return (0, 0);
    }
    let rolling = spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let quarter = || IntOrString::String("25%".to_owned());
    let surge = rolling.and_then(|rolling| rolling.max_surge.clone()).unwrap_or_else(quarter);
    let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.clone()).unwrap_or_else(quarter);
    let surge = scaled(&surge, replicas, true);
    let unavailable = scaled(&unavailable, replicas, false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}
