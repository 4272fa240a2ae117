//! Deployments: one ReplicaSet for each revision of the pod template, scaled against each other.
//!
//! Owns ReplicaSets (by owner reference), their scale and revision annotations, and the Deployment's status and
//! revision annotation. Must not touch pods.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/>.

mod annotations;
mod rollout;
mod status;
mod view;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde_json::json;
use trireme_client::{Client, Event, EventKind, EventRecorder, Informer, Object, ObjectKey, Patch, labels};

use super::hash::template_hash;
use super::status::status_patch_any_revision;
use crate::ownership::references::{ByController, controller_key};
use crate::ownership::{Children, controller_of, controller_reference, is_controlled_by};
use crate::runtime::{Context, Controller, Next, OwnWrites, Watches, clock};
use crate::{Error, pods};
use rollout::Step;
use view::View;

const HASH_LABEL: &str = "pod-template-hash";

/// The Deployment controller.
pub(crate) struct Deployments {
    client: Client,
    recorder: EventRecorder,
    deployments: Arc<Informer<Deployment>>,
    all_sets: Arc<Informer<ReplicaSet>>,
    all_pods: Arc<Informer<Pod>>,
    sets: Children<Deployment, ReplicaSet>,
    pods_by_controller: ByController<Pod>,
    own_writes: OwnWrites<Deployment>,
}

impl Controller for Deployments {
    const NAME: &'static str = "deployment-controller";
    const QUEUE: &'static str = "deployment";
    type Key = ObjectKey;
    type Reads = (Arc<Informer<Deployment>>, Arc<Informer<ReplicaSet>>, Arc<Informer<Pod>>);

    fn new((deployments, sets, pods): Self::Reads, context: &Context) -> Option<Self> {
        Some(Self {
            client: context.client.clone(),
            recorder: context.recorder.clone(),
            sets: Children::new(&sets, context),
            pods_by_controller: ByController::of(&pods),
            own_writes: OwnWrites::new(&deployments),
            deployments,
            all_sets: sets,
            all_pods: pods,
        })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, ObjectKey>) {
        watches.on(&self.deployments, |event| [ObjectKey::of(&**event.object())]);
        let me = Arc::clone(self);
        watches.on(&self.all_sets, move |event| me.deployments_of(event));
        let me = Arc::clone(self);
        watches.on(&self.all_pods, move |event| me.waiting_for(event));
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        self.sets.settle(key).await?;
        self.own_writes.settle(key).await?;
        let Some(deployment) = self.deployments.get_key(key) else { return Ok(Next::Wait) };
        let Some(spec) = &deployment.spec else { return Ok(Next::Wait) };
        if labels::is_empty(&spec.selector) {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder.record(&*deployment, EventKind::Warning, "SelectingAll", message);
            return Ok(Next::Wait);
        }
        let sets = self.sets.claim(&deployment, |set| labels::matches(&spec.selector, set.metadata.labels.as_ref()), |_| true).await?;
        let old_pods_run = view::is_recreate(&deployment) && self.old_pods_run(&deployment, &sets);
        let view = View::new(&deployment, sets, old_pods_run);
        let mut status = DeploymentStatusDraft::new(&deployment);
        let step = if deployment.metadata.deletion_timestamp.is_some() { Step::default() } else { rollout::step(&view) };
        let done = self.take(key, &view, step, &mut status).await;
        self.write_status(key, &view, status).await?;
        done?;
        Ok(Next::after_secs(status::stuck_check_secs(&view, clock::now())))
    }
}

/// The changes of one step to the status, in addition to the counts from the ReplicaSets.
pub(crate) struct DeploymentStatusDraft {
    /// A condition reason and message to set on Progressing.
    progress: Option<(&'static str, String)>,
    collision_count: Option<i32>,
}

impl DeploymentStatusDraft {
    fn new(deployment: &Deployment) -> Self {
        let collision_count = deployment.status.as_ref().and_then(|status| status.collision_count);
        Self { progress: None, collision_count }
    }
}

impl Deployments {
    /// The Deployments that an event of a ReplicaSet concerns: its controllers before and after, or, if it has no controller,
    /// those that would adopt it.
    fn deployments_of(&self, event: &Event<ReplicaSet>) -> Vec<ObjectKey> {
        let mut keys: Vec<ObjectKey> = event.versions().filter_map(|set| controller_key::<Deployment>(&set.metadata)).collect();
        let set = event.object();
        if controller_of(&set.metadata).is_none() && !event.is_deletion() {
            let selects = |deployment: &Deployment| {
                deployment
                    .spec
                    .as_ref()
                    .is_some_and(|spec| !labels::is_empty(&spec.selector) && labels::matches(&spec.selector, set.metadata.labels.as_ref()))
            };
            let matching = self.deployments.list_namespace(set.namespace()).into_iter().filter(|deployment| selects(deployment));
            keys.extend(matching.map(|deployment| ObjectKey::of(&*deployment)));
        }
        keys
    }

    /// The Deployment whose Recreate rollout waits for this pod to end.
    fn waiting_for(&self, event: &Event<Pod>) -> Option<ObjectKey> {
        let pod = event.object();
        if !event.is_deletion() && !pods::is_terminal(pod) {
            return None;
        }
        let set = self.all_sets.get_key(&controller_key::<ReplicaSet>(&pod.metadata)?)?;
        let key = controller_key::<Deployment>(&set.metadata)?;
        self.deployments.get_key(&key).is_some_and(|deployment| view::is_recreate(&deployment)).then_some(key)
    }

    fn old_pods_run(&self, deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> bool {
        let new = view::find_new(deployment, sets).map(|set| set.uid().to_owned());
        sets.iter()
            .filter(|set| Some(set.uid()) != new.as_deref())
            .any(|set| self.pods_by_controller.owned(&**set).iter().any(|pod| !pods::is_terminal(pod)))
    }

    /// Carries the step out.
    async fn take(&self, key: &ObjectKey, view: &View<'_>, step: Step, status: &mut DeploymentStatusDraft) -> Result<(), Error> {
        if let Some((reason, message)) = step.progress {
            status.progress = Some((reason, message));
        }
        if let Some(revision) = step.deployment_revision {
            self.write_revision(key, view.deployment, revision).await?;
        }
        if let Some(create) = step.create {
            self.create(view, create, status).await?;
        }
        for (set, annotations) in step.annotate {
            let patch = json!({"metadata": {"uid": set.uid(), "annotations": annotations}});
            self.sets.patch(view.deployment, &set, &Patch::Merge(patch)).await?;
        }
        if let Some((set, seconds)) = step.min_ready {
            let patch = json!({"metadata": {"uid": set.uid()}, "spec": {"minReadySeconds": seconds}});
            self.sets.patch(view.deployment, &set, &Patch::Merge(patch)).await?;
        }
        for (set, replicas) in step.scale {
            self.scale(view, &set, replicas).await?;
        }
        for set in step.delete {
            self.sets.delete(view.deployment, &set).await?;
        }
        Ok(())
    }

    async fn write_revision(&self, key: &ObjectKey, deployment: &Deployment, revision: i64) -> Result<(), Error> {
        let patch = json!({"metadata": {
            "uid": deployment.uid(),
            "annotations": {annotations::REVISION: revision.to_string()},
        }});
        let written: Deployment = self.client.patch(Some(deployment.namespace()), deployment.name(), &Patch::Merge(patch)).await?;
        self.own_writes.wrote(key, &written);
        Ok(())
    }

    async fn create(&self, view: &View<'_>, create: rollout::Create, status: &mut DeploymentStatusDraft) -> Result<(), Error> {
        let deployment = view.deployment;
        let set = new_set(view, &create, status.collision_count);
        match self.sets.create(deployment, &set).await {
            Ok(_) => {
                if create.replicas > 0 {
                    let message = format!("Scaled up replica set {} from 0 to {}", set.name(), create.replicas);
                    self.recorder.record(deployment, EventKind::Normal, "ScalingReplicaSet", message);
                }
                let message = format!("Created new replica set {:?}", set.name());
                status.progress = Some(("NewReplicaSetCreated", message));
                Ok(())
            }
            Err(error) if error.is_already_exists() => {
                let other: ReplicaSet = self.client.get(Some(deployment.namespace()), set.name()).await?;
                if is_controlled_by(&other.metadata, deployment) && view::same_template(deployment, &other) {
                    // The cache was behind.
                    self.sets.found(deployment, &other);
                    return Ok(());
                }
                status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
                Err(error.into())
            }
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) => {
                let message = format!("Failed to create new replica set {:?}: {error}", set.name());
                status.progress = Some(("ReplicaSetCreateError", message.clone()));
                self.recorder.record(deployment, EventKind::Warning, "ReplicaSetCreateError", message);
                Err(error.into())
            }
        }
    }

    async fn scale(&self, view: &View<'_>, set: &ReplicaSet, replicas: i32) -> Result<(), Error> {
        let before = view::replicas(set);
        let patch = json!({
            "metadata": {
                "uid": set.uid(),
                "resourceVersion": set.metadata.resource_version,
                "annotations": annotations::size(view),
            },
            "spec": {"replicas": replicas},
        });
        self.sets.patch(view.deployment, set, &Patch::Merge(patch)).await?;
        if before != replicas {
            let direction = if before < replicas { "up" } else { "down" };
            let message = format!("Scaled {direction} replica set {} from {before} to {replicas}", set.name());
            self.recorder.record(view.deployment, EventKind::Normal, "ScalingReplicaSet", message);
        }
        Ok(())
    }

    async fn write_status(&self, key: &ObjectKey, view: &View<'_>, draft: DeploymentStatusDraft) -> Result<(), Error> {
        let deployment = view.deployment;
        let old = deployment.status.clone().unwrap_or_default();
        let new = status::status(view, draft, clock::now());
        if old == new {
            return Ok(());
        }
        // The own annotation may just have moved the revision on; the status names the generation it speaks for.
        let patch = status_patch_any_revision(deployment, &old, &new)?;
        match self.client.patch_status::<Deployment>(Some(deployment.namespace()), deployment.name(), &patch).await {
            Ok(written) => {
                self.own_writes.wrote(key, &written);
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The ReplicaSet of a Deployment's present template.
fn new_set(view: &View<'_>, create: &rollout::Create, collision_count: Option<i32>) -> ReplicaSet {
    let deployment = view.deployment;
    let spec = deployment.spec.clone().unwrap_or_default();
    let hash = template_hash(&spec.template, collision_count);
    let mut template = spec.template;
    let template_meta = template.metadata.get_or_insert_default();
    template_meta.labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    let set_labels = template_meta.labels.clone();
    let mut selector: LabelSelector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    let mut annotations = annotations::inherited(deployment);
    annotations.extend(annotations::size(view));
    annotations.insert(annotations::REVISION.to_owned(), create.revision.to_string());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.name())),
            namespace: deployment.metadata.namespace.clone(),
            labels: set_labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(create.replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}
