//! ReplicaSets: as many pods as wanted, no more and no fewer.
//!
//! Owns pods (by owner reference) and the ReplicaSet's status. Must not touch a pod that another controller owns.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/>.

mod plan;
pub(crate) mod status;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use trireme_client::{Client, DeleteOptions, Event, EventKind, EventRecorder, Informer, Object, ObjectKey, Patch};

use crate::informers::BY_CONTROLLER;
use crate::runtime::{Lead, Next, Reconcile};
use crate::writes::OwnWrites;
use crate::{Error, clock, owners, pods};
use plan::Plan;

const NAME: &str = "replicaset-controller";

struct Controller {
    client: Client,
    recorder: EventRecorder,
    sets: Arc<Informer<ReplicaSet>>,
    pods: Arc<Informer<Pod>>,
    writes: OwnWrites<Pod>,
}

pub(crate) fn start(lead: &mut Lead) {
    let informers = Arc::clone(&lead.informers);
    let queue = lead.queue("replicaset");
    let controller = Arc::new(Controller {
        client: lead.client(NAME),
        recorder: lead.recorder(NAME),
        sets: Arc::clone(&informers.replica_sets),
        pods: Arc::clone(&informers.pods),
        writes: OwnWrites::new(&informers.pods),
    });
    let keys = queue.clone();
    lead.keep(informers.replica_sets.subscribe(move |event| keys.add(ObjectKey::of(&**event.object()))));
    let (keys, sets) = (queue.clone(), Arc::clone(&informers.replica_sets));
    lead.keep(informers.pods.subscribe(move |event| {
        for key in sets_of(event, &sets) {
            keys.add(key);
        }
    }));
    lead.work(NAME, &queue, &controller);
}

/// The ReplicaSets that an event of a pod concerns: its controllers before and after, or, if nobody controls it, those
/// that would adopt it.
fn sets_of(event: &Event<Pod>, sets: &Informer<ReplicaSet>) -> Vec<ObjectKey> {
    let mut keys = Vec::new();
    let pod = event.object();
    for pod in event.old().into_iter().chain([pod]) {
        match owners::controller_of(&pod.metadata) {
            Some(owner) if owner.kind == "ReplicaSet" => keys.push(ObjectKey::new(pod.namespace(), &owner.name)),
            _ => {}
        }
    }
    if owners::controller_of(&pod.metadata).is_none() && !matches!(event, Event::Deleted(_)) {
        keys.extend(
            sets.list_namespace(pod.namespace())
                .iter()
                .filter(|set| {
                    set.spec.as_ref().is_some_and(|spec| trireme_client::labels::matches(&spec.selector, pod.metadata.labels.as_ref()))
                })
                .map(|set| ObjectKey::of(&**set)),
        );
    }
    keys
}

impl Reconcile<ObjectKey> for Controller {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        self.writes.settle(key).await?;
        let Some(set) = self.sets.get_key(key) else { return Ok(Next::Wait) };
        let owned = self.claim(&set).await?;
        let managed = if set.metadata.deletion_timestamp.is_none() { self.manage(&set, &owned).await } else { Ok(()) };
        let now = clock::now();
        let failure = managed.as_ref().err().map(|failure| (failure.reason, failure.error.to_string()));
        self.write_status(&set, &owned, failure, now).await?;
        managed.map_err(|failure| failure.error)?;
        let min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        let wait = owned.iter().filter_map(|pod| pods::available_in_secs(pod, min_ready, now)).filter(|secs| *secs > 0).min();
        Ok(wait.map_or(Next::Wait, |secs| Next::After(std::time::Duration::from_secs(secs.unsigned_abs()))))
    }
}

/// A failure to create or delete, with the reason for the ReplicaFailure condition.
struct Failure {
    reason: &'static str,
    error: Error,
}

impl Controller {
    /// Adopts and releases; returns the pods that are this set's.
    async fn claim(&self, set: &ReplicaSet) -> Result<Vec<Arc<Pod>>, Error> {
        let Some(spec) = &set.spec else { return Ok(Vec::new()) };
        let mut candidates = self.pods.by_index(BY_CONTROLLER, set.uid());
        candidates.extend(
            self.pods
                .list_namespace(set.namespace())
                .into_iter()
                .filter(|pod| owners::controller_of(&pod.metadata).is_none() && pods::is_active(pod)),
        );
        let claim = owners::claim(&set.metadata, &spec.selector, candidates);
        let mut owned = claim.owned;
        if !claim.adopt.is_empty() {
            // The cache may be older than the set's deletion or replacement: ask.
            let fresh: ReplicaSet = self.client.get(Some(set.namespace()), set.name()).await?;
            if fresh.uid() != set.uid() || fresh.metadata.deletion_timestamp.is_some() {
                return Err(Error::StaleCache);
            }
            let owner = owners::controller_reference(set);
            for pod in claim.adopt {
                let patch = Patch::Strategic(owners::adopt_patch(&owner, pod.uid()));
                match self.client.patch::<Pod>(Some(pod.namespace()), pod.name(), &patch).await {
                    Ok(written) => {
                        self.writes.wrote(&ObjectKey::of(set), &written);
                        owned.push(pod);
                    }
                    Err(error) if error.is_not_found() || error.is_invalid() || error.is_conflict() => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        for pod in claim.release {
            let patch = Patch::Strategic(owners::release_patch(set.uid(), pod.uid()));
            match self.client.patch::<Pod>(Some(pod.namespace()), pod.name(), &patch).await {
                Ok(written) => self.writes.wrote(&ObjectKey::of(set), &written),
                Err(error) if error.is_not_found() || error.is_invalid() || error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(owned)
    }

    async fn manage(&self, set: &Arc<ReplicaSet>, owned: &[Arc<Pod>]) -> Result<(), Failure> {
        match plan::plan(set, owned, |node| plan::colocated(set, owned, &self.sets, &self.pods, node)) {
            Plan::Nothing => Ok(()),
            Plan::Create(count) => self.create(set, count).await.map_err(|error| Failure { reason: "FailedCreate", error }),
            Plan::Delete(victims) => self.delete(set, victims).await.map_err(|error| Failure { reason: "FailedDelete", error }),
        }
    }

    /// Creates in growing batches, so that what fails for all (a quota, an admission refusal) fails once and not 500 times.
    async fn create(&self, set: &Arc<ReplicaSet>, count: usize) -> Result<(), Error> {
        let pod = pod_of(set);
        let mut left = count;
        let mut batch = 1;
        while left > 0 {
            let size = batch.min(left);
            let results = futures::future::join_all((0..size).map(|_| self.create_one(set, &pod))).await;
            let errors: Vec<Error> = results.into_iter().filter_map(Result::err).collect();
            if let Some(error) = Error::first_of(errors) {
                return Err(error);
            }
            left -= size;
            batch *= 2;
        }
        Ok(())
    }

    async fn create_one(&self, set: &ReplicaSet, pod: &Pod) -> Result<(), Error> {
        match self.client.create(Some(set.namespace()), pod).await {
            Ok(created) => {
                self.writes.wrote(&ObjectKey::of(set), &created);
                let message = format!("Created pod: {}", created.name());
                self.recorder.record(set, EventKind::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) => {
                self.recorder.record(set, EventKind::Warning, "FailedCreate", format!("Error creating: {error}"));
                Err(error.into())
            }
        }
    }

    async fn delete(&self, set: &ReplicaSet, victims: Vec<Arc<Pod>>) -> Result<(), Error> {
        let deleting = victims.iter().map(|pod| async move {
            let options = DeleteOptions::uid(pod.uid());
            match self.client.delete::<Pod>(Some(pod.namespace()), pod.name(), &options).await {
                Ok(()) => {
                    self.writes.deleted(&ObjectKey::of(set), pod);
                    let message = format!("Deleted pod: {}", pod.name());
                    self.recorder.record(set, EventKind::Normal, "SuccessfulDelete", message);
                    Ok(())
                }
                Err(error) if error.is_not_found() => Ok(()),
                Err(error) => {
                    self.recorder.record(set, EventKind::Warning, "FailedDelete", format!("Error deleting: {error}"));
                    Err(Error::from(error))
                }
            }
        });
        let errors = futures::future::join_all(deleting).await.into_iter().filter_map(Result::err).collect();
        Error::first_of(errors).map_or(Ok(()), Err)
    }

    async fn write_status(
        &self,
        set: &ReplicaSet,
        owned: &[Arc<Pod>],
        failure: Option<(&'static str, String)>,
        now: jiff::Timestamp,
    ) -> Result<(), Error> {
        let wanted = status::status(set, owned, failure, now);
        let old = set.status.clone().unwrap_or_default();
        let seen = old.observed_generation == set.metadata.generation;
        if wanted == old && seen {
            return Ok(());
        }
        let patch = status::patch(set, &old, &wanted)?;
        match self.client.patch_status::<ReplicaSet>(Some(set.namespace()), set.name(), &patch).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The pod that a set's template describes.
fn pod_of(set: &ReplicaSet) -> Pod {
    let template = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", set.name())),
            namespace: set.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owners::controller_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}
