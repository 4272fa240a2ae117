//! The annotations by which Deployments and ReplicaSets remember revisions and sizes.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use trireme_client::Object;

use super::view::{self, View};

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
pub(super) const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";
/// Older revisions are dropped from the history beyond this many bytes.
const HISTORY_MAX_BYTES: usize = 2000;

fn number<T: Object>(object: &T, key: &str) -> Option<i64> {
    object.meta().annotations.as_ref()?.get(key)?.parse().ok()
}

/// The revision of a Deployment or ReplicaSet; zero if it has none.
pub(super) fn revision<T: Object>(object: &T) -> i64 {
    number(object, REVISION).unwrap_or(0)
}

pub(super) fn desired(set: &ReplicaSet) -> Option<i32> {
    number(set, DESIRED_REPLICAS).and_then(|value| i32::try_from(value).ok())
}

pub(super) fn max(set: &ReplicaSet) -> Option<i32> {
    number(set, MAX_REPLICAS).and_then(|value| i32::try_from(value).ok())
}

/// What a scaled ReplicaSet remembers of its Deployment's size.
pub(super) fn size(view: &View<'_>) -> BTreeMap<String, String> {
    BTreeMap::from([
        (DESIRED_REPLICAS.to_owned(), view.replicas.to_string()),
        (MAX_REPLICAS.to_owned(), (view.replicas + view::max_surge(view.deployment)).to_string()),
    ])
}

/// The Deployment's annotations that its ReplicaSets carry too.
pub(super) fn inherited(deployment: &Deployment) -> BTreeMap<String, String> {
    const OWN: [&str; 6] = [LAST_APPLIED, REVISION, REVISION_HISTORY, DESIRED_REPLICAS, MAX_REPLICAS, ROLLBACK_TO];
    deployment
        .metadata
        .annotations
        .iter()
        .flatten()
        .filter(|(key, _)| !OWN.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// What must change on the new ReplicaSet's annotations so that it is `revision`; empty if nothing.
pub(super) fn update_new(view: &View<'_>, set: &ReplicaSet, wanted: i64) -> BTreeMap<String, String> {
    let mut changed = inherited(view.deployment);
    let known = set.metadata.annotations.clone().unwrap_or_default();
    changed.retain(|key, value| known.get(key) != Some(value));
    let old = revision(set);
    if old < wanted {
        changed.insert(REVISION.to_owned(), wanted.to_string());
        if old > 0 {
            let mut history = known.get(REVISION_HISTORY).cloned().unwrap_or_default();
            if !history.is_empty() {
                history.push(',');
            }
            history.push_str(&old.to_string());
            while history.len() > HISTORY_MAX_BYTES {
                let Some((_, rest)) = history.split_once(',') else { break };
                history = rest.to_owned();
            }
            changed.insert(REVISION_HISTORY.to_owned(), history);
        }
    }
    changed
}
