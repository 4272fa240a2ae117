//! StatefulSets: pods with names and storage of their own, made and replaced in order.
//!
//! Owns pods and ControllerRevisions (by owner reference), the claims of the set's templates, and the set's status. Each template
//! that the set had is a revision; a pod says in its label `controller-revision-hash` which one it was made from. The status holds
//! the revision that all pods had when the last update was complete (`currentRevision`) and the one that they are updated to
//! (`updateRevision`): these and the partition determine the revision of a pod that is created.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/>.

mod claims;
mod identity;
mod members;
mod plan;
mod revisions;
mod status;
mod storage;
mod view;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use trireme_client::{Client, Event, EventKind, EventRecorder, Informer, Object, ObjectKey, labels};

use super::history::{History, template_of};
use super::status::status_patch;
use crate::ownership::references::controller_key;
use crate::ownership::{controller_of, slow_start};
use crate::runtime::{Context, Controller, Next, OwnWrites, Watches, clock};
use crate::{Error, pods};
use identity::ordinal_in;
use members::Members;
use plan::{Action, Plan, Situation, Task};
use revisions::Revisions;
use status::Names;
use storage::Storage;
use view::View;

/// The StatefulSet controller.
pub(crate) struct StatefulSets {
    client: Client,
    recorder: EventRecorder,
    sets: Arc<Informer<StatefulSet>>,
    all_pods: Arc<Informer<Pod>>,
    all_claims: Arc<Informer<PersistentVolumeClaim>>,
    all_revisions: Arc<Informer<ControllerRevision>>,
    members: Members,
    history: History<StatefulSet>,
    own_writes: OwnWrites<StatefulSet>,
}

impl Controller for StatefulSets {
    const NAME: &'static str = "statefulset-controller";
    const QUEUE: &'static str = "statefulset";
    type Key = ObjectKey;
    type Reads = (Arc<Informer<StatefulSet>>, Arc<Informer<Pod>>, Arc<Informer<PersistentVolumeClaim>>, Arc<Informer<ControllerRevision>>);

    fn new((sets, pods, claims, revisions): Self::Reads, context: &Context) -> Option<Self> {
        Some(Self {
            client: context.client.clone(),
            recorder: context.recorder.clone(),
            members: Members::new(&pods, Storage::new(&claims, context), context),
            history: History::new(&revisions, context),
            own_writes: OwnWrites::new(&sets),
            sets,
            all_pods: pods,
            all_claims: claims,
            all_revisions: revisions,
        })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, ObjectKey>) {
        watches.on(&self.sets, |event| [ObjectKey::of(&**event.object())]);
        let me = Arc::clone(self);
        watches.on(&self.all_pods, move |event| me.sets_of_pod(event));
        let me = Arc::clone(self);
        watches.on(&self.all_claims, move |event| me.sets_of_claim(event));
        watches.on(&self.all_revisions, |event| {
            let gone = Some(event.object()).filter(|_| event.is_deletion());
            gone.and_then(|revision| controller_key::<StatefulSet>(&revision.metadata))
        });
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        self.members.settle(key).await?;
        self.history.settle(key).await?;
        self.own_writes.settle(key).await?;
        let Some(set) = self.sets.get_key(key) else { return Ok(Next::Wait) };
        let Some(view) = View::of(&set) else { return Ok(Next::Wait) };
        if labels::is_empty(&view.spec.selector) {
            let message = "This stateful set is selecting all pods. A non-empty selector is required.";
            self.recorder.record(&*set, EventKind::Warning, "SelectingAll", message);
            return Ok(Next::Wait);
        }
        let pods = self.members.claim(&view).await?;
        let now = clock::now();
        if set.metadata.deletion_timestamp.is_some() {
            self.write_status(&set, &status_while_deleted(&view, &pods, now)).await?;
            return Ok(Next::Wait);
        }
        let revisions = Revisions::find(&self.history, &view).await?;
        let done = self.update(&view, &pods, &revisions, now).await;
        revisions.truncate(&self.history, &view, &pods).await?;
        done?;
        let wait = pods.iter().filter_map(|pod| pods::available_in_secs(pod, view.min_ready_secs(), now)).filter(|secs| *secs > 0);
        Ok(Next::after_secs(wait.min()))
    }
}

impl StatefulSets {
    /// The sets that an event of a pod concerns: its controllers before and after, or, if it has no controller, those that would
    /// adopt it.
    fn sets_of_pod(&self, event: &Event<Pod>) -> Vec<ObjectKey> {
        let mut keys: Vec<ObjectKey> = event.versions().filter_map(|pod| controller_key::<StatefulSet>(&pod.metadata)).collect();
        let pod = event.object();
        if controller_of(&pod.metadata).is_none() && !event.is_deletion() {
            let adopts = |set: &StatefulSet| {
                set.spec
                    .as_ref()
                    .is_some_and(|spec| !labels::is_empty(&spec.selector) && labels::matches(&spec.selector, pod.metadata.labels.as_ref()))
            };
            let adopting = self.sets.list_namespace(pod.namespace()).into_iter().filter(|set| adopts(set));
            keys.extend(adopting.map(|set| ObjectKey::of(&*set)));
        }
        keys
    }

    /// The sets whose templates give a claim this name.
    fn sets_of_claim(&self, event: &Event<PersistentVolumeClaim>) -> Vec<ObjectKey> {
        let claim = event.object();
        let is_of = |set: &StatefulSet| {
            let templates = set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_deref()).unwrap_or_default();
            templates.iter().any(|template| {
                let pod = claim.name().strip_prefix(template.name()).and_then(|rest| rest.strip_prefix('-'));
                pod.is_some_and(|pod| ordinal_in(set.name(), pod).is_some())
            })
        };
        let sets = self.sets.list_namespace(claim.namespace()).into_iter().filter(|set| is_of(set));
        sets.map(|set| ObjectKey::of(&*set)).collect()
    }

    /// Takes the next steps and writes what is then.
    async fn update(&self, view: &View<'_>, pods: &[Arc<Pod>], revisions: &Revisions, now: Timestamp) -> Result<(), Error> {
        let update = revisions.update.name();
        let claim = |name: &str| self.members.storage.get(view.set.namespace(), name);
        let Plan { stages } = plan::plan(&Situation { view: *view, pods, update, claim: &claim, now });
        let mut done = Ok(());
        for tasks in &stages {
            done = self.take(view, revisions, tasks).await;
            if done.is_err() {
                break;
            }
        }
        let names = Names { current: revisions.current.name(), update, collisions: revisions.collisions };
        let written = self.write_status(view.set, &status::status(view, pods, names, now)).await;
        done.and(written)
    }

    /// Carries one stage out: in order, or in growing batches.
    async fn take(&self, view: &View<'_>, revisions: &Revisions, tasks: &[Task]) -> Result<(), Error> {
        if !view.is_ordered() {
            return slow_start(tasks.len(), |at| self.take_task(view, revisions, &tasks[at])).await.1;
        }
        for task in tasks {
            self.take_task(view, revisions, task).await?;
        }
        Ok(())
    }

    async fn take_task(&self, view: &View<'_>, revisions: &Revisions, task: &Task) -> Result<(), Error> {
        let ordinal_of = |pod: &Pod| ordinal_in(view.name(), pod.name()).unwrap_or(0);
        for action in task {
            match action {
                Action::Create { ordinal, updated: true } => {
                    self.members.create(view, &view.spec.template, revisions.update.name(), *ordinal).await?;
                }
                Action::Create { ordinal, updated: false } => {
                    let template = template_of(&revisions.current)?;
                    self.members.create(view, &template, revisions.current.name(), *ordinal).await?;
                }
                Action::Provide(pod) => self.members.storage.provide(view, ordinal_of(pod)).await?,
                Action::Repair(pod) => self.members.repair(view, pod, ordinal_of(pod)).await?,
                Action::Own(pod) => self.members.own(view, pod, ordinal_of(pod)).await?,
                Action::Delete(pod) => self.members.delete(view, pod).await?,
            }
        }
        Ok(())
    }

    async fn write_status(&self, set: &StatefulSet, wanted: &StatefulSetStatus) -> Result<(), Error> {
        let old = set.status.clone().unwrap_or_default();
        if *wanted == old {
            return Ok(());
        }
        let patch = status_patch(set, &old, wanted)?;
        match self.client.patch_status::<StatefulSet>(Some(set.namespace()), set.name(), &patch).await {
            Ok(written) => {
                self.own_writes.wrote(&ObjectKey::of(set), &written);
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A set that is being deleted makes no revisions any more: it counts by those that it knew.
fn status_while_deleted(view: &View<'_>, pods: &[Arc<Pod>], now: Timestamp) -> StatefulSetStatus {
    let old = view.set.status.clone().unwrap_or_default();
    let (current, update) = (old.current_revision.unwrap_or_default(), old.update_revision.unwrap_or_default());
    let names = Names { current: &current, update: &update, collisions: old.collision_count.unwrap_or(0) };
    let mut status = status::status(view, pods, names, now);
    status.current_revision = Some(current).filter(|name| !name.is_empty());
    status.update_revision = Some(update).filter(|name| !name.is_empty());
    status
}
