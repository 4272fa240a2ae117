//! The revisions of a StatefulSet: the current one, the update revision, and older ones.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use trireme_client::Object;

use super::identity::revision_of;
use super::view::View;
use crate::Error;
use crate::workloads::history::{History, NewRevision, holds, means, snapshot};

/// The label of a StatefulSet's revision that holds its hash.
const HASH_LABEL: &str = "controller.kubernetes.io/hash";

/// The revisions of one set.
pub(super) struct Revisions {
    pub(super) current: Arc<ControllerRevision>,
    pub(super) update: Arc<ControllerRevision>,
    /// How many names of revisions were taken.
    pub(super) collisions: i32,
    /// All that there were, oldest number first.
    all: Vec<Arc<ControllerRevision>>,
}

impl Revisions {
    /// Finds the set's revisions; makes one for the present template if there is none, and gives it the highest number.
    pub(super) async fn find(history: &History<StatefulSet>, view: &View<'_>) -> Result<Self, Error> {
        let (set, spec) = (view.set, view.spec);
        let all = history.of(set, &spec.selector).await?;
        let status = set.status.as_ref();
        let mut collisions = status.and_then(|status| status.collision_count).unwrap_or(0);
        let data = snapshot(&spec.template);
        let number = all.last().map_or(1, |last| last.revision.saturating_add(1));
        let update = match all.iter().rposition(|revision| holds(revision, &data)) {
            Some(at) if at + 1 == all.len() => Arc::clone(&all[at]),
            Some(at) => history.renumber(set, &all[at], number).await?,
            None if all.last().is_some_and(|last| means::<StatefulSet>(last, &spec.template)) => Arc::clone(&all[all.len() - 1]),
            None => {
                let new = NewRevision { template: &spec.template, selector: &spec.selector, number, hash_label: HASH_LABEL };
                history.create(set, &new, &mut collisions).await?
            }
        };
        let named = status.and_then(|status| status.current_revision.as_deref());
        let current = all.iter().find(|revision| named == Some(revision.name())).unwrap_or(&update);
        Ok(Self { current: Arc::clone(current), update: Arc::clone(&update), collisions, all })
    }

    /// Deletes the oldest revisions that neither the set nor a pod uses, until the limit is kept.
    pub(super) async fn truncate(&self, history: &History<StatefulSet>, view: &View<'_>, pods: &[Arc<Pod>]) -> Result<(), Error> {
        for revision in surplus(&self.all, [self.current.name(), self.update.name()], pods, view.history_limit()) {
            history.delete(view.set, revision).await?;
        }
        Ok(())
    }
}

fn surplus<'a>(
    all: &'a [Arc<ControllerRevision>],
    used: [&str; 2],
    pods: &[Arc<Pod>],
    limit: Option<usize>,
) -> Vec<&'a Arc<ControllerRevision>> {
    let lives =
        |revision: &ControllerRevision| used.contains(&revision.name()) || pods.iter().any(|pod| revision_of(pod) == revision.name());
    let past: Vec<&Arc<ControllerRevision>> = all.iter().filter(|revision| !lives(revision)).collect();
    let kept = limit.unwrap_or(usize::MAX).min(past.len());
    past[..past.len() - kept].to_vec()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn the_oldest_that_nothing_uses_go() {
        let revision = |name: &str| {
            Arc::new(ControllerRevision {
                metadata: serde_json::from_value(json!({"name": name})).unwrap(),
                ..ControllerRevision::default()
            })
        };
        let all = ["a", "b", "c", "d", "e", "f"].map(revision);
        let pods = [Arc::new(serde_json::from_value(json!({"metadata": {"labels": {"controller-revision-hash": "b"}}})).unwrap())];
        let names = |limit: Option<usize>| {
            surplus(&all, ["e", "f"], &pods, limit).iter().map(|revision| revision.name().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(Some(1)), ["a", "c"]);
        assert_eq!(names(Some(0)), ["a", "c", "d"]);
        assert!(names(Some(10)).is_empty() && names(None).is_empty());
    }
}
