//! Makes the claims of pods' ephemeral volumes, each owned by its pod, so that it goes with it.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/storage/ephemeral-volumes/#generic-ephemeral-volumes>.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimTemplate, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use trireme_client::{Client, EventKind, EventRecorder, Informer, Object, ObjectKey, storage};

use crate::Error;
use crate::ownership::controller_reference;
use crate::ownership::references::controller_key;
use crate::pods;
use crate::runtime::{Context, Controller, Next, Watches};

/// The controller.
pub(crate) struct EphemeralVolumes {
    client: Client,
    recorder: EventRecorder,
    pods: Arc<Informer<Pod>>,
    claims: Arc<Informer<PersistentVolumeClaim>>,
}

impl Controller for EphemeralVolumes {
    const NAME: &'static str = "ephemeral-volume-controller";
    const COMPONENT: &'static str = "ephemeral_volume";
    const QUEUE: &'static str = "ephemeral_volume";
    type Key = ObjectKey;
    type Reads = (Arc<Informer<Pod>>, Arc<Informer<PersistentVolumeClaim>>);

    fn new((pods, claims): Self::Reads, context: &Context) -> Option<Self> {
        Some(Self { client: context.client.clone(), recorder: context.recorder.clone(), pods, claims })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, ObjectKey>) {
        watches.on(&self.pods, |event| {
            let pod = event.object();
            let needs = !event.is_deletion() && pods::is_active(pod) && templates(pod).next().is_some();
            needs.then(|| ObjectKey::of(&**pod))
        });
        watches.on(&self.claims, |event| if event.is_deletion() { controller_key::<Pod>(event.object().meta()) } else { None });
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(pod) = self.pods.get_key(key).filter(|pod| pods::is_active(pod)) else { return Ok(Next::Wait) };
        for (volume, template) in templates(&pod) {
            if let Err(error) = self.provide(&pod, volume, template).await {
                self.recorder.record(&*pod, EventKind::Warning, "FailedBinding", format!("ephemeral volume {volume}: {error}"));
                return Err(error);
            }
        }
        Ok(Next::Wait)
    }
}

impl EphemeralVolumes {
    async fn provide(&self, pod: &Pod, volume: &str, template: &PersistentVolumeClaimTemplate) -> Result<(), Error> {
        let name = storage::ephemeral_name(pod, volume);
        if let Some(claim) = self.claims.get(pod.namespace(), &name) {
            return storage::made_for(&claim, pod).map_err(Error::Invalid);
        }
        let meta = template.metadata.clone().unwrap_or_default();
        let claim = PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: pod.metadata.namespace.clone(),
                labels: meta.labels,
                annotations: meta.annotations,
                owner_references: Some(vec![controller_reference(pod)]),
                ..ObjectMeta::default()
            },
            spec: Some(template.spec.clone()),
            status: None,
        };
        match self.client.create(Some(pod.namespace()), &claim).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) if error.is_already_exists() => {
                let claim = self.client.get::<PersistentVolumeClaim>(Some(pod.namespace()), &name).await?;
                storage::made_for(&claim, pod).map_err(Error::Invalid)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The ephemeral volumes of a pod, each with the template of its claim.
fn templates(pod: &Pod) -> impl Iterator<Item = (&str, &PersistentVolumeClaimTemplate)> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| Some((volume.name.as_str(), volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?)))
}
