//! Deployments: one ReplicaSet for each revision of the pod template, scaled against each other.
//!
//! Owns ReplicaSets (by owner reference), their scale and revision annotations, and the Deployment's status and
//! revision annotation. Must not touch pods.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/>.

mod annotations;
mod hash;
mod rollout;
mod status;
mod view;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde_json::{Value, json};
use trireme_client::{Client, DeleteOptions, Event, EventKind, EventRecorder, Informer, Object, ObjectKey, Patch, labels};

use crate::informers::BY_CONTROLLER;
use crate::replicaset::status::status_patch;
use crate::runtime::{Lead, Next, Reconcile};
use crate::writes::OwnWrites;
use crate::{Error, clock, owners, pods};
use rollout::Step;
use view::View;

const NAME: &str = "deployment-controller";
const HASH_LABEL: &str = "pod-template-hash";

struct Controller {
    client: Client,
    recorder: EventRecorder,
    deployments: Arc<Informer<Deployment>>,
    sets: Arc<Informer<ReplicaSet>>,
    pods: Arc<Informer<Pod>>,
    set_writes: OwnWrites<ReplicaSet>,
    own_writes: OwnWrites<Deployment>,
}

pub(crate) fn start(lead: &mut Lead) {
    let informers = Arc::clone(&lead.informers);
    let queue = lead.queue("deployment");
    let controller = Arc::new(Controller {
        client: lead.client(NAME),
        recorder: lead.recorder(NAME),
        deployments: Arc::clone(&informers.deployments),
        sets: Arc::clone(&informers.replica_sets),
        pods: Arc::clone(&informers.pods),
        set_writes: OwnWrites::new(&informers.replica_sets),
        own_writes: OwnWrites::new(&informers.deployments),
    });
    let keys = queue.clone();
    lead.keep(informers.deployments.subscribe(move |event| keys.add(ObjectKey::of(&**event.object()))));
    let (keys, deployments) = (queue.clone(), Arc::clone(&informers.deployments));
    lead.keep(informers.replica_sets.subscribe(move |event| {
        for key in deployments_of(event, &deployments) {
            keys.add(key);
        }
    }));
    // A Recreate rollout waits for the last old pod to go.
    let (keys, sets) = (queue.clone(), Arc::clone(&informers.replica_sets));
    let deployments = Arc::clone(&informers.deployments);
    lead.keep(informers.pods.subscribe(move |event| {
        let pod = event.object();
        if !matches!(event, Event::Deleted(_)) && !pods::is_terminal(pod) {
            return;
        }
        let Some(owner) = owners::controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet") else { return };
        let Some(set) = sets.get(pod.namespace(), &owner.name) else { return };
        let Some(owner) = owners::controller_of(&set.metadata) else { return };
        let recreate = deployments.get(pod.namespace(), &owner.name).is_some_and(|deployment| view::is_recreate(&deployment));
        if recreate {
            keys.add(ObjectKey::new(pod.namespace(), &owner.name));
        }
    }));
    lead.work(NAME, &queue, &controller);
}

fn deployments_of(event: &Event<ReplicaSet>, deployments: &Informer<Deployment>) -> Vec<ObjectKey> {
    let set = event.object();
    let mut keys: Vec<ObjectKey> = event
        .old()
        .into_iter()
        .chain([set])
        .filter_map(|set| owners::controller_of(&set.metadata))
        .filter(|owner| owner.kind == "Deployment")
        .map(|owner| ObjectKey::new(set.namespace(), &owner.name))
        .collect();
    if owners::controller_of(&set.metadata).is_none() && !matches!(event, Event::Deleted(_)) {
        keys.extend(
            deployments
                .list_namespace(set.namespace())
                .iter()
                .filter(|deployment| {
                    deployment.spec.as_ref().is_some_and(|spec| {
                        !labels::is_empty(&spec.selector) && labels::matches(&spec.selector, set.metadata.labels.as_ref())
                    })
                })
                .map(|deployment| ObjectKey::of(&**deployment)),
        );
    }
    keys
}

impl Reconcile<ObjectKey> for Controller {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        self.set_writes.settle(key).await?;
        self.own_writes.settle(key).await?;
        let Some(deployment) = self.deployments.get_key(key) else { return Ok(Next::Wait) };
        let Some(spec) = &deployment.spec else { return Ok(Next::Wait) };
        if labels::is_empty(&spec.selector) {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder.record(&*deployment, EventKind::Warning, "SelectingAll", message);
            return Ok(Next::Wait);
        }
        let sets = self.claim(&deployment).await?;
        let old_pods_run = view::is_recreate(&deployment) && self.old_pods_run(&deployment, &sets);
        let view = View::new(&deployment, sets, old_pods_run);
        let mut status = DeploymentStatusDraft::new(&deployment);
        let step = if deployment.metadata.deletion_timestamp.is_some() { Step::default() } else { rollout::step(&view) };
        let done = self.take(key, &view, step, &mut status).await;
        self.write_status(key, &view, status).await?;
        done?;
        Ok(status::stuck_check_secs(&view, clock::now()).map_or(Next::Wait, |secs| Next::After(Duration::from_secs(secs.unsigned_abs()))))
    }
}

/// What a step adds to the status beside what the ReplicaSets say.
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

impl Controller {
    async fn claim(&self, deployment: &Deployment) -> Result<Vec<Arc<ReplicaSet>>, Error> {
        let Some(spec) = &deployment.spec else { return Ok(Vec::new()) };
        let mut candidates = self.sets.by_index(BY_CONTROLLER, deployment.uid());
        candidates.extend(
            self.sets.list_namespace(deployment.namespace()).into_iter().filter(|set| owners::controller_of(&set.metadata).is_none()),
        );
        let claim = owners::claim(&deployment.metadata, &spec.selector, candidates);
        let key = ObjectKey::of(deployment);
        let mut owned = claim.owned;
        if !claim.adopt.is_empty() {
            let fresh: Deployment = self.client.get(Some(deployment.namespace()), deployment.name()).await?;
            if fresh.uid() != deployment.uid() || fresh.metadata.deletion_timestamp.is_some() {
                return Err(Error::StaleCache);
            }
        }
        let owner = owners::controller_reference(deployment);
        let adopting = claim.adopt.into_iter().map(|set| {
            let patch = owners::adopt_patch(&owner, set.uid());
            (set, patch, true)
        });
        let releasing = claim.release.into_iter().map(|set| {
            let patch = owners::release_patch(deployment.uid(), set.uid());
            (set, patch, false)
        });
        for (set, patch, adopt) in adopting.chain(releasing) {
            let patch = Patch::Strategic(patch);
            match self.client.patch::<ReplicaSet>(Some(set.namespace()), set.name(), &patch).await {
                Ok(written) => {
                    self.set_writes.wrote(&key, &written);
                    if adopt {
                        owned.push(set);
                    }
                }
                Err(error) if error.is_not_found() || error.is_invalid() || error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(owned)
    }

    fn old_pods_run(&self, deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> bool {
        let new = view::find_new(deployment, sets).map(|set| set.uid().to_owned());
        sets.iter()
            .filter(|set| Some(set.uid()) != new.as_deref())
            .any(|set| self.pods.by_index(BY_CONTROLLER, set.uid()).iter().any(|pod| !pods::is_terminal(pod)))
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
            self.create(key, view, create, status).await?;
        }
        for (set, annotations) in step.annotate {
            let patch = json!({"metadata": {"uid": set.uid(), "annotations": annotations}});
            let written: ReplicaSet = self.client.patch(Some(set.namespace()), set.name(), &Patch::Merge(patch)).await?;
            self.set_writes.wrote(key, &written);
        }
        if let Some((set, seconds)) = step.min_ready {
            let patch = json!({"metadata": {"uid": set.uid()}, "spec": {"minReadySeconds": seconds}});
            let written: ReplicaSet = self.client.patch(Some(set.namespace()), set.name(), &Patch::Merge(patch)).await?;
            self.set_writes.wrote(key, &written);
        }
        for (set, replicas) in step.scale {
            self.scale(key, view, &set, replicas).await?;
        }
        for set in step.delete {
            match self.client.delete::<ReplicaSet>(Some(set.namespace()), set.name(), &DeleteOptions::uid(set.uid())).await {
                Ok(()) => self.set_writes.deleted(key, &set),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
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

    async fn create(
        &self,
        key: &ObjectKey,
        view: &View<'_>,
        create: rollout::Create,
        status: &mut DeploymentStatusDraft,
    ) -> Result<(), Error> {
        let deployment = view.deployment;
        let set = new_set(view, &create, status.collision_count);
        match self.client.create(Some(deployment.namespace()), &set).await {
            Ok(created) => {
                self.set_writes.wrote(key, &created);
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
                let ours = owners::controller_of(&other.metadata).is_some_and(|owner| owner.uid == deployment.uid());
                if ours && view::same_template(deployment, &other) {
                    // Our cache was behind.
                    self.set_writes.wrote(key, &other);
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

    async fn scale(&self, key: &ObjectKey, view: &View<'_>, set: &ReplicaSet, replicas: i32) -> Result<(), Error> {
        let before = view::replicas(set);
        let patch = json!({
            "metadata": {
                "uid": set.uid(),
                "resourceVersion": set.metadata.resource_version,
                "annotations": annotations::size(view),
            },
            "spec": {"replicas": replicas},
        });
        let written: ReplicaSet = self.client.patch(Some(set.namespace()), set.name(), &Patch::Merge(patch)).await?;
        self.set_writes.wrote(key, &written);
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
        let encode = |status: &DeploymentStatus| -> Result<Value, Error> {
            serde_json::to_value(status).map_err(|error| Error::Invalid(error.to_string()))
        };
        let mut patch = status_patch(deployment, &encode(&old)?, &encode(&new)?);
        if let Patch::Merge(value) = &mut patch {
            // Our own annotation may just have moved it on; the status speaks for the generation it names.
            value["metadata"] = json!({"uid": deployment.uid()});
        }
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
    let hash = hash::template_hash(&spec.template, collision_count);
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
            owner_references: Some(vec![owners::controller_reference(deployment)]),
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
