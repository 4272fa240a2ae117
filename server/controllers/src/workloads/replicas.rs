//! ReplicaSets and ReplicationControllers: as many pods as wanted, no more and no fewer.
//!
//! Owns pods (by owner reference) and the owner's status. Must not touch a pod that another controller owns.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/> and
//! <https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller/>.

mod owner;
mod plan;
mod status;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use trireme_client::{Client, Event, Informer, ObjectKey};

use super::status::status_patch;
use crate::ownership::references::{ByController, controller_key};
use crate::ownership::{Children, controller_of, slow_start};
use crate::runtime::{Context, Controller, Next, Watches, clock};
use crate::{Error, pods};
use owner::ReplicaOwner;
use plan::Plan;
use status::{Counts, Failure};

/// The controller of one kind of owner.
pub(crate) struct Replicas<O> {
    client: Client,
    owners: Arc<Informer<O>>,
    all_pods: Arc<Informer<Pod>>,
    pods: Children<O, Pod>,
    pods_by_controller: ByController<Pod>,
    owners_by_controller: ByController<O>,
}

impl<O: ReplicaOwner> Controller for Replicas<O> {
    const NAME: &'static str = O::NAME;
    const QUEUE: &'static str = O::QUEUE;
    type Key = ObjectKey;
    type Reads = (Arc<Informer<O>>, Arc<Informer<Pod>>);

    fn new((owners, pods): Self::Reads, context: &Context) -> Option<Self> {
        Some(Self {
            client: context.client.clone(),
            pods: Children::new(&pods, context),
            pods_by_controller: ByController::of(&pods),
            owners_by_controller: ByController::of(&owners),
            all_pods: pods,
            owners,
        })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, ObjectKey>) {
        watches.on(&self.owners, |event| [ObjectKey::of(&**event.object())]);
        let me = Arc::clone(self);
        watches.on(&self.all_pods, move |event| me.owners_of(event));
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        self.pods.settle(key).await?;
        let Some(owner) = self.owners.get_key(key) else { return Ok(Next::Wait) };
        let active = self.pods.claim(&owner, |pod| owner.selects(pod), pods::is_active).await?;
        let ending = self.pods.owned(&owner).iter().filter(|pod| owner.selects(pod) && pods::is_ending(pod)).count();
        let managed = if owner.meta().deletion_timestamp.is_none() { self.manage(&owner, &active).await } else { Ok(()) };
        let now = clock::now();
        let failure = managed.as_ref().err().map(|(reason, error)| Failure { reason, message: error.to_string() });
        let counts = Counts::of(owner.template(), owner.min_ready_secs(), &active, ending, now);
        self.write_status(&owner, &owner.new_status(counts, failure, now)).await?;
        managed.map_err(|(_, error)| error)?;
        let wait = active.iter().filter_map(|pod| pods::available_in_secs(pod, owner.min_ready_secs(), now)).filter(|secs| *secs > 0);
        Ok(Next::after_secs(wait.min()))
    }
}

impl<O: ReplicaOwner> Replicas<O> {
    /// The owners that an event of a pod concerns: its controllers before and after, or, if it has no controller, those that
    /// would adopt it.
    fn owners_of(&self, event: &Event<Pod>) -> Vec<ObjectKey> {
        let mut keys: Vec<ObjectKey> = event.versions().filter_map(|pod| controller_key::<O>(&pod.metadata)).collect();
        let pod = event.object();
        if controller_of(&pod.metadata).is_none() && !event.is_deletion() {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let matching = self.owners.list_namespace(namespace).into_iter().filter(|owner| owner.selects(pod));
            keys.extend(matching.map(|owner| ObjectKey::of(&*owner)));
        }
        keys
    }

    /// Creates or deletes; a failure comes with the reason for the ReplicaFailure condition.
    async fn manage(&self, owner: &O, active: &[Arc<Pod>]) -> Result<(), (&'static str, Error)> {
        match plan::plan(owner.replicas(), active, |node| self.colocated(owner, active, node)) {
            Plan::Nothing => Ok(()),
            Plan::Create(count) => {
                let pod = Children::pod_of(owner, &owner.template().cloned().unwrap_or_default());
                let (_, result) = slow_start(count, |_| self.pods.create_pod(owner, &pod)).await;
                result.map_err(|error| ("FailedCreate", error))
            }
            Plan::Delete(victims) => self.pods.delete_pods(owner, &victims).await.map_err(|error| ("FailedDelete", error)),
        }
    }

    /// Active pods on a node of all owners that the same object controls.
    fn colocated(&self, owner: &O, active: &[Arc<Pod>], node: &str) -> usize {
        let on_node = |pod: &Arc<Pod>| pods::is_active(pod) && pods::node_name(pod) == Some(node);
        let above = controller_of(owner.meta());
        let related = above.map(|above| self.owners_by_controller.owned_by_reference(owner.namespace(), above)).unwrap_or_default();
        let others: usize = related
            .iter()
            .filter(|other| other.uid() != owner.uid())
            .map(|other| self.pods_by_controller.owned(&**other).iter().filter(|pod| on_node(pod)).count())
            .sum();
        others + active.iter().filter(|pod| on_node(pod)).count()
    }

    async fn write_status(&self, owner: &O, wanted: &O::Status) -> Result<(), Error> {
        let old = owner.old_status();
        if *wanted == old {
            return Ok(());
        }
        let patch = status_patch(owner, &old, wanted)?;
        match self.client.patch_status::<O>(Some(owner.namespace()), owner.name(), &patch).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
