//! Binds claims to volumes, has volumes made for those that find none, and says which are released.
//!
//! Owns: `spec.claimRef` and the phase of volumes, `spec.volumeName` and the status of claims, and the annotations that tell of
//! both. Must not: choose a node (the scheduler does), make volumes or delete them and their data (their provisioners do).
//!
//! A binding has two ends. The volume's is written first; each write names the version that it was decided on, so that of two claims that
//! want a volume one gets it, and what a leader left half done the next one ends, or undoes.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#lifecycle-of-a-volume-and-claim> and upstream's
//! `pkg/controller/volume/persistentvolume`.

mod binder;
mod claim;
mod plan;
mod provision;
mod reclaim;
mod volume;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use trireme_client::{Event, Object, ObjectKey, storage};

use crate::Error;
use crate::runtime::{Context, Controller, Next, Watches};
use binder::Binder;

/// The object to reconcile.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Claim(ObjectKey),
    Volume(String),
}

/// The controller.
pub(crate) struct VolumeBinder {
    binder: Arc<Binder>,
}

impl Controller for VolumeBinder {
    const NAME: &'static str = "persistent-volume-binder";
    const COMPONENT: &'static str = "persistentvolume-controller";
    const QUEUE: &'static str = "volumes";
    type Key = Key;
    type Reads = binder::Reads;

    fn new(reads: Self::Reads, context: &Context) -> Option<Self> {
        Some(Self { binder: Arc::new(Binder::new(reads, context)) })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, Key>) {
        let binder = Arc::clone(&self.binder);
        watches.on(&self.binder.claims, move |event| of_claim(&binder, event));
        let binder = Arc::clone(&self.binder);
        watches.on(&self.binder.volumes, move |event| of_volume(&binder, event));
        let binder = Arc::clone(&self.binder);
        watches.on(&self.binder.classes, move |event| {
            let class = event.object();
            let mut keys = keys_of(binder.unbound_claims(class.name()));
            if storage::is_default(class) {
                keys.extend(keys_of(binder.unbound_claims("")));
            }
            keys
        });
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        match key {
            Key::Claim(key) => claim::sync(&self.binder, key).await,
            Key::Volume(name) => volume::sync(&self.binder, name).await,
        }
    }
}

fn keys_of(claims: Vec<Arc<PersistentVolumeClaim>>) -> Vec<Key> {
    claims.iter().map(|claim| Key::Claim(ObjectKey::of(&**claim))).collect()
}

fn volume_keys(volumes: Vec<Arc<PersistentVolume>>) -> impl Iterator<Item = Key> {
    volumes.into_iter().map(|volume| Key::Volume(volume.name().to_owned()))
}

fn of_claim(binder: &Binder, event: &Event<PersistentVolumeClaim>) -> Vec<Key> {
    let claim = event.object();
    let mut keys = vec![Key::Claim(ObjectKey::of(&**claim))];
    keys.extend(
        event
            .versions()
            .map(|version| storage::volume_of(version))
            .filter(|name| !name.is_empty())
            .map(|name| Key::Volume(name.to_owned())),
    );
    keys.extend(volume_keys(binder.volumes_naming(claim)));
    keys
}

fn of_volume(binder: &Binder, event: &Event<PersistentVolume>) -> Vec<Key> {
    let volume = event.object();
    let mut keys = vec![Key::Volume(volume.name().to_owned())];
    keys.extend(event.versions().filter_map(|version| binder::claim_key(version)).map(Key::Claim));
    keys.extend(keys_of(binder.claims_naming(volume.name())));
    let is_free = volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none()) && storage::volume_phase(volume) == "Available";
    if is_free && !event.is_deletion() {
        keys.extend(keys_of(binder.unbound_claims(storage::class_of_volume(volume))));
    }
    keys
}
