//! Claims that ask for more than their volumes have: volumes of CSI drivers are made larger by the drivers' resizers, and the file systems
//! by the kubelet. Here it is only said that this is awaited. Volumes of other types do not grow; admission refuses such claims.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#expanding-persistent-volumes-claims>.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use trireme_api::quantity::Quantity;
use trireme_client::{Event, EventKind, EventRecorder, Informer, ObjectKey, storage};

use crate::Error;
use crate::runtime::{Context, Controller, Next, Watches};

/// The controller.
pub(crate) struct Expansion {
    recorder: EventRecorder,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    volumes: Arc<Informer<PersistentVolume>>,
}

impl Controller for Expansion {
    const NAME: &'static str = "expand-controller";
    const COMPONENT: &'static str = "volume_expand";
    const QUEUE: &'static str = "volume_expand";
    type Key = ObjectKey;
    type Reads = (Arc<Informer<PersistentVolumeClaim>>, Arc<Informer<PersistentVolume>>);

    fn new((claims, volumes): Self::Reads, context: &Context) -> Option<Self> {
        Some(Self { recorder: context.recorder.clone(), claims, volumes })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, ObjectKey>) {
        watches.on(&self.claims, |event| match event {
            Event::Updated { old, new } if asked(old) == asked(new) => None,
            Event::Deleted(_) => None,
            _ => Some(ObjectKey::of(&**event.object())),
        });
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(claim) = self.claims.get_key(key) else { return Ok(Next::Wait) };
        let volume = self.volumes.get("", storage::volume_of(&claim));
        let has_driver = volume.is_some_and(|volume| volume.spec.as_ref().is_some_and(|spec| spec.csi.is_some()));
        if has_driver && storage::is_bound(&claim) && grows(&claim) {
            self.recorder.record(&*claim, EventKind::Normal, "ExternalExpanding", "waiting for an external controller to expand this PVC");
        }
        Ok(Next::Wait)
    }
}

/// The size that a claim asks for.
fn asked(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")?.0.parse().ok()
}

/// Whether a claim asks for more than it has.
fn grows(claim: &PersistentVolumeClaim) -> bool {
    let has = || claim.status.as_ref()?.capacity.as_ref()?.get("storage")?.0.parse::<Quantity>().ok();
    asked(claim).zip(has()).is_some_and(|(asked, has)| asked > has)
}
