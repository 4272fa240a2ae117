//! Which revisions a DaemonSet has: the present one, and older ones to go back to.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use trireme_client::{Object, Patch};

use crate::Error;
use crate::ownership::Children;
use crate::workloads::history::{History, NewRevision, REVISION_LABEL, holds, label, means, snapshot};

/// The revisions of one set.
pub(super) struct Revisions {
    pub(super) current: Arc<ControllerRevision>,
    /// All others, oldest number first.
    old: Vec<Arc<ControllerRevision>>,
    /// How many names of revisions were taken, if any was.
    pub(super) collisions: Option<i32>,
}

impl Revisions {
    /// The value of the label by which pods name the present revision.
    pub(super) fn hash(&self) -> &str {
        label(&self.current.metadata, REVISION_LABEL)
    }

    /// Finds the set's revisions; makes one for the present template if there is none, and gives it the highest number.
    pub(super) async fn find(
        history: &History<DaemonSet>,
        pods: &Children<DaemonSet, Pod>,
        (set, spec): (&DaemonSet, &DaemonSetSpec),
        all_pods: &[Arc<Pod>],
    ) -> Result<Self, Error> {
        let mut known = Vec::new();
        for revision in history.of(set, &spec.selector).await? {
            let is_labelled = !label(&revision.metadata, REVISION_LABEL).is_empty();
            known.push(if is_labelled { revision } else { history.label(set, &revision, REVISION_LABEL, revision.name()).await? });
        }
        let data = snapshot(&spec.template);
        let (mut current, mut old): (Vec<_>, Vec<_>) = known.into_iter().partition(|revision| holds(revision, &data));
        if current.is_empty() {
            current.extend(old.pop_if(|last| means::<DaemonSet>(last, &spec.template)));
        }
        let number = old.last().map_or(1, |last| last.revision.saturating_add(1));
        let mut collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let Some(newest) = current.pop() else {
            let new = NewRevision { template: &spec.template, selector: &spec.selector, number, hash_label: REVISION_LABEL };
            let mut taken = collisions.unwrap_or(0);
            let created = history.create(set, &new, &mut taken).await?;
            if taken != 0 {
                collisions = Some(taken);
            }
            return Ok(Self { current: created, old, collisions });
        };
        merge(history, pods, set, all_pods, &newest, &current).await?;
        let newest = if newest.revision < number { history.renumber(set, &newest, number).await? } else { newest };
        Ok(Self { current: newest, old, collisions })
    }

    /// Deletes the oldest revisions that no pod has, until the limit is kept.
    pub(super) async fn truncate(
        &self,
        history: &History<DaemonSet>,
        (set, spec): (&DaemonSet, &DaemonSetSpec),
        all_pods: &[Arc<Pod>],
    ) -> Result<(), Error> {
        let limit = usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
        for revision in surplus(&self.old, all_pods, limit) {
            history.delete(set, revision).await?;
        }
        Ok(())
    }
}

/// Makes the newest of equal revisions the only one: pods of the others become its own.
async fn merge(
    history: &History<DaemonSet>,
    pods: &Children<DaemonSet, Pod>,
    set: &DaemonSet,
    all_pods: &[Arc<Pod>],
    newest: &ControllerRevision,
    others: &[Arc<ControllerRevision>],
) -> Result<(), Error> {
    let hash = label(&newest.metadata, REVISION_LABEL);
    for other in others {
        let before = label(&other.metadata, REVISION_LABEL);
        for pod in all_pods.iter().filter(|pod| before != hash && label(&pod.metadata, REVISION_LABEL) == before) {
            let patch = json!({"metadata": {"uid": pod.uid(), "labels": {REVISION_LABEL: hash}}});
            match pods.patch(set, pod, &Patch::Merge(patch)).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                Ok(_) | Err(_) => {}
            }
        }
        history.delete(set, other).await?;
    }
    Ok(())
}

fn surplus<'a>(old: &'a [Arc<ControllerRevision>], pods: &[Arc<Pod>], limit: usize) -> Vec<&'a Arc<ControllerRevision>> {
    let live: BTreeSet<&str> = pods.iter().map(|pod| label(&pod.metadata, REVISION_LABEL)).collect();
    let unused = old.iter().filter(|revision| !live.contains(label(&revision.metadata, REVISION_LABEL)));
    unused.take(old.len().saturating_sub(limit)).collect()
}
