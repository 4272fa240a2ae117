//! DaemonSets: one pod on every node that may have it.
//!
//! Owns pods and ControllerRevisions (by owner reference) and the set's status. The controller chooses the nodes; the pod's
//! affinity names its node, and the scheduler binds it there. Each template that the set had is a revision; a pod says in its label
//! `controller-revision-hash` which one it was made from.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/>.

mod backoff;
mod eligible;
mod manage;
mod pod;
mod revisions;
mod rollout;
mod status;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use tokio::time::Instant;
use trireme_client::{Client, Event, EventKind, EventRecorder, Informer, Object, ObjectKey, labels};

use super::history::{History, REVISION_LABEL, label};
use super::status::status_patch;
use crate::ownership::references::controller_key;
use crate::ownership::{Children, controller_of, slow_start};
use crate::runtime::{Context, Controller, Next, OwnWrites, Watches, clock};
use crate::{Error, pods};
use backoff::Backoff;
use eligible::Place;
use manage::Situation;
use pod::Newest;
use revisions::Revisions;

/// Pods created, and pods deleted, in one reconcile.
const BURST: usize = 250;

/// The DaemonSet controller.
pub(crate) struct DaemonSets {
    client: Client,
    recorder: EventRecorder,
    sets: Arc<Informer<DaemonSet>>,
    all_revisions: Arc<Informer<ControllerRevision>>,
    all_pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    pods: Children<DaemonSet, Pod>,
    history: History<DaemonSet>,
    own_writes: OwnWrites<DaemonSet>,
    backoff: Backoff,
}

impl Controller for DaemonSets {
    const NAME: &'static str = "daemon-set-controller";
    const COMPONENT: &'static str = "daemonset-controller";
    const QUEUE: &'static str = "daemonset";
    type Key = ObjectKey;
    type Reads = (Arc<Informer<DaemonSet>>, Arc<Informer<ControllerRevision>>, Arc<Informer<Pod>>, Arc<Informer<Node>>);

    fn new((sets, revisions, pods, nodes): Self::Reads, context: &Context) -> Option<Self> {
        Some(Self {
            client: context.client.clone(),
            recorder: context.recorder.clone(),
            pods: Children::new(&pods, context),
            history: History::new(&revisions, context),
            own_writes: OwnWrites::new(&sets),
            backoff: Backoff::default(),
            sets,
            all_revisions: revisions,
            all_pods: pods,
            nodes,
        })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, ObjectKey>) {
        watches.on(&self.sets, |event| [ObjectKey::of(&**event.object())]);
        let me = Arc::clone(self);
        watches.on(&self.all_pods, move |event| me.sets_of(event));
        let me = Arc::clone(self);
        watches.on(&self.all_revisions, move |event| if matters(event) { me.sets_of(event) } else { Vec::new() });
        let sets = Arc::clone(&self.sets);
        watches.on(&self.nodes, move |event| {
            let all = if moves_pods(event) { sets.list() } else { Vec::new() };
            all.into_iter().map(|set| ObjectKey::of(&*set))
        });
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        self.pods.settle(key).await?;
        self.history.settle(key).await?;
        self.own_writes.settle(key).await?;
        let Some(set) = self.sets.get_key(key) else { return Ok(Next::Wait) };
        let Some(spec) = &set.spec else { return Ok(Next::Wait) };
        if labels::is_empty(&spec.selector) {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.recorder.record(&*set, EventKind::Warning, "SelectingAll", message);
            return Ok(Next::Wait);
        }
        // The set's revisions may be deleted before its pods: without them, outdated pods cannot be identified.
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Wait);
        }
        let selects = |pod: &Pod| labels::matches(&spec.selector, pod.metadata.labels.as_ref());
        let all = self.pods.claim(&set, selects, |_| true).await?;
        let revisions = Revisions::find(&self.history, &self.pods, (&*set, spec), &all).await?;
        let (nodes, by_node) = (self.nodes.list(), pod::by_node(&all));
        let situation = Situation {
            nodes: &nodes,
            pods: &by_node,
            place: &Place::of(&set),
            newest: &Newest::of(&set, revisions.hash()),
            surges: rollout::surges(&set),
            min_ready_secs: spec.min_ready_seconds.unwrap_or(0),
            now: clock::now(),
        };
        let updated = self.update(&set, &situation).await;
        if updated.is_ok() {
            revisions.truncate(&self.history, (&*set, spec), &all).await?;
        }
        self.write_status(&set, &status::status(&set, &situation, revisions.collisions)).await?;
        let backoff = updated?;
        let waits = all.iter().filter_map(|pod| pods::available_in_secs(pod, situation.min_ready_secs, situation.now));
        let available = waits.filter(|secs| *secs > 0).min().map(|secs| Duration::from_secs(secs.unsigned_abs()));
        Ok(backoff.into_iter().chain(available).min().map_or(Next::Wait, Next::After))
    }
}

/// Whether labels or taints of a node are new, or the node is.
fn moves_pods(event: &Event<Node>) -> bool {
    let taints = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    event.old().is_none_or(|old| old.metadata.labels != event.object().metadata.labels || taints(old) != taints(event.object()))
}

/// Whether a change of a revision is one that its owner has to see: not that it made it, nor that someone labelled it.
fn matters(event: &Event<ControllerRevision>) -> bool {
    let now = event.object();
    match event.old() {
        None => event.is_deletion() || controller_of(&now.metadata).is_none(),
        Some(old) => {
            old.revision != now.revision
                || old.metadata.owner_references != now.metadata.owner_references
                || label(&old.metadata, REVISION_LABEL) != label(&now.metadata, REVISION_LABEL)
                || controller_of(&now.metadata).is_none()
        }
    }
}

impl DaemonSets {
    /// The sets that an event of a dependent concerns: its controllers before and after, or, if it has no controller, those that
    /// would adopt it.
    fn sets_of<T: Object>(&self, event: &Event<T>) -> Vec<ObjectKey> {
        let mut keys: Vec<ObjectKey> = event.versions().filter_map(|object| controller_key::<DaemonSet>(object.meta())).collect();
        let meta = event.object().meta();
        if controller_of(meta).is_none() && !event.is_deletion() {
            let adopts = |set: &DaemonSet| {
                set.spec
                    .as_ref()
                    .is_some_and(|spec| !labels::is_empty(&spec.selector) && labels::matches(&spec.selector, meta.labels.as_ref()))
            };
            let adopting = self.sets.list_namespace(event.object().namespace()).into_iter().filter(|set| adopts(set));
            keys.extend(adopting.map(|set| ObjectKey::of(&*set)));
        }
        keys
    }

    /// Takes the next steps; returns after which time a failed pod may be replaced.
    async fn update(&self, set: &DaemonSet, situation: &Situation<'_>) -> Result<Option<Duration>, Error> {
        let manage::Plan { create, mut delete, failed, succeeded } = manage::manage(situation);
        let mut soonest: Option<Duration> = None;
        for (node, pod) in failed {
            let generation = set.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
            if let Some(wait) = self.backoff.wait((set.uid().to_owned(), generation, node.clone()), Instant::now()) {
                soonest = Some(soonest.map_or(wait, |known| known.min(wait)));
                continue;
            }
            let pod_name = format!("{}/{}", pod.namespace(), pod.name());
            let message = format!("Found failed daemon pod {pod_name} on node {node}, will try to kill it");
            self.recorder.record(set, EventKind::Warning, "FailedDaemonPod", message);
            delete.push(pod);
        }
        for pod in succeeded {
            let node = pod::target(&pod).unwrap_or_default();
            let pod_name = format!("{}/{}", pod.namespace(), pod.name());
            let message = format!("Found succeeded daemon pod {pod_name} on node {node}, will try to delete it");
            self.recorder.record(set, EventKind::Normal, "SucceededDaemonPod", message);
            delete.push(pod);
        }
        // A rolling update starts only when nothing was created or deleted now: the cache does not show these changes yet, and the
        // update's limits are computed from it.
        let is_settled = create.is_empty() && delete.is_empty();
        self.sync(set, situation.newest, &create, &delete).await?;
        if is_settled && rollout::updates_by_itself(set) {
            let rollout::Step { create, delete } = rollout::step(situation, set);
            self.sync(set, situation.newest, &create, &delete).await?;
        }
        Ok(soonest)
    }

    /// Makes pods for nodes and deletes others.
    async fn sync(&self, set: &DaemonSet, newest: &Newest<'_>, create: &[String], delete: &[Arc<Pod>]) -> Result<(), Error> {
        let (create, delete) = (&create[..create.len().min(BURST)], &delete[..delete.len().min(BURST)]);
        let made = slow_start(create.len(), |at| {
            let pod = pod::new_pod(set, newest, &create[at]);
            async move { self.pods.create_pod(set, &pod).await }
        });
        let (_, made) = made.await;
        let deleted = self.pods.delete_pods(set, delete).await;
        made.and(deleted)
    }

    async fn write_status(&self, set: &DaemonSet, wanted: &DaemonSetStatus) -> Result<(), Error> {
        let old = set.status.clone().unwrap_or_default();
        if *wanted == old {
            return Ok(());
        }
        let patch = status_patch(set, &old, wanted)?;
        match self.client.patch_status::<DaemonSet>(Some(set.namespace()), set.name(), &patch).await {
            Ok(written) => {
                self.own_writes.wrote(&ObjectKey::of(set), &written);
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
