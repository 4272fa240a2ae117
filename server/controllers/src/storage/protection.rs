//! Claims and volumes that are in use are not removed.
//!
//! Owns two finalizers: `kubernetes.io/pvc-protection` stays until no pod that was given to a node names the claim,
//! `kubernetes.io/pv-protection` until the volume is bound to no claim. Admission adds them to new objects; objects from before get them
//! here. Must not touch other finalizers.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection>.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use serde_json::json;
use trireme_client::{Client, Event, Informer, ListOptions, Object, ObjectKey, Patch, Typed};

use crate::Error;
use crate::ownership::controller_of;
use crate::pods;
use crate::runtime::{Context, Controller, Next, Watches};

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// The controller of claims.
pub(crate) struct ClaimProtection {
    client: Client,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    pods: Arc<Informer<Pod>>,
}

impl Controller for ClaimProtection {
    const NAME: &'static str = "pvc-protection-controller";
    const QUEUE: &'static str = "pvcprotection";
    type Key = ObjectKey;
    type Reads = (Arc<Informer<PersistentVolumeClaim>>, Arc<Informer<Pod>>);

    fn new((claims, pods): Self::Reads, context: &Context) -> Option<Self> {
        Some(Self { client: context.client.clone(), claims, pods })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, ObjectKey>) {
        watches.on(&self.claims, |event| needs_work(event, CLAIM_FINALIZER));
        let claims = Arc::clone(&self.claims);
        watches.on(&self.pods, move |event| {
            let (pod, over) = (event.object(), event.is_deletion() || pods::is_terminal(event.object()));
            let named = if over { named_claims(pod) } else { Vec::new() };
            let mut keys: Vec<ObjectKey> = named.iter().map(|(name, _)| ObjectKey::new(pod.namespace(), name)).collect();
            keys.retain(|key| claims.get_key(key).is_some_and(|claim| is_leaving(&*claim, CLAIM_FINALIZER)));
            keys
        });
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(claim) = self.claims.get_key(key) else { return Ok(Next::Wait) };
        if is_leaving(&*claim, CLAIM_FINALIZER) {
            // The informer may not have the newest pod yet: before the claim goes, the API is asked.
            if !self.pods.list_namespace(claim.namespace()).iter().any(|pod| uses(pod, &claim))
                && !self
                    .client
                    .list::<Pod>(Some(claim.namespace()), &ListOptions::default())
                    .await?
                    .items
                    .iter()
                    .any(|pod| uses(pod, &claim))
            {
                set(&self.client, &*claim, CLAIM_FINALIZER, false).await?;
            }
        } else if is_unprotected(&*claim, CLAIM_FINALIZER) {
            set(&self.client, &*claim, CLAIM_FINALIZER, true).await?;
        }
        Ok(Next::Wait)
    }
}

/// The controller of volumes.
pub(crate) struct VolumeProtection {
    client: Client,
    volumes: Arc<Informer<PersistentVolume>>,
}

impl Controller for VolumeProtection {
    const NAME: &'static str = "pv-protection-controller";
    const QUEUE: &'static str = "pvprotection";
    type Key = ObjectKey;
    type Reads = Arc<Informer<PersistentVolume>>;

    fn new(volumes: Self::Reads, context: &Context) -> Option<Self> {
        Some(Self { client: context.client.clone(), volumes })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, ObjectKey>) {
        watches.on(&self.volumes, |event| needs_work(event, VOLUME_FINALIZER));
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(volume) = self.volumes.get_key(key) else { return Ok(Next::Wait) };
        let is_bound = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        if is_leaving(&*volume, VOLUME_FINALIZER) && !is_bound {
            set(&self.client, &*volume, VOLUME_FINALIZER, false).await?;
        } else if is_unprotected(&*volume, VOLUME_FINALIZER) {
            set(&self.client, &*volume, VOLUME_FINALIZER, true).await?;
        }
        Ok(Next::Wait)
    }
}

fn needs_work<T: Object>(event: &Event<T>, finalizer: &str) -> Option<ObjectKey> {
    let object = event.object();
    let needs = !event.is_deletion() && (is_leaving(&**object, finalizer) || is_unprotected(&**object, finalizer));
    needs.then(|| ObjectKey::of(&**object))
}

fn has(object: &impl Object, finalizer: &str) -> bool {
    object.meta().finalizers.iter().flatten().any(|known| known == finalizer)
}

/// Being deleted, and held by us.
fn is_leaving(object: &impl Object, finalizer: &str) -> bool {
    object.meta().deletion_timestamp.is_some() && has(object, finalizer)
}

fn is_unprotected(object: &impl Object, finalizer: &str) -> bool {
    object.meta().deletion_timestamp.is_none() && !has(object, finalizer)
}

/// Adds or removes our finalizer from the object as it was read.
async fn set<T: Typed>(client: &Client, object: &T, finalizer: &str, wanted: bool) -> Result<(), Error> {
    let mut finalizers: Vec<&str> =
        object.meta().finalizers.iter().flatten().map(String::as_str).filter(|known| *known != finalizer).collect();
    if wanted {
        finalizers.push(finalizer);
    }
    let metadata = json!({"uid": object.uid(), "resourceVersion": object.meta().resource_version, "finalizers": finalizers});
    let namespace = Some(object.namespace()).filter(|namespace| !namespace.is_empty());
    match client.patch::<T>(namespace, object.name(), &Patch::Merge(json!({"metadata": metadata}))).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether a pod keeps a claim: it names it and a node has it. A kubelet starts no pod whose claim is being deleted, so others do not.
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let made_for_it = || controller_of(claim.meta()).is_some_and(|owner| owner.uid == pod.uid());
    let keeps = |(name, ephemeral): &(String, bool)| name == claim.name() && (!ephemeral || (!pods::is_terminal(pod) && made_for_it()));
    pods::node_name(pod).is_some() && named_claims(pod).iter().any(keeps)
}

/// The claims that a pod names, and whether they were made for it.
fn named_claims(pod: &Pod) -> Vec<(String, bool)> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(source), _) => Some((source.claim_name.clone(), false)),
            (None, Some(_)) => Some((format!("{}-{}", pod.name(), volume.name), true)),
            (None, None) => None,
        })
        .collect()
}
