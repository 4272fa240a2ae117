//! Makes the volumes of classes whose provisioner is the cluster's own, and deletes them with their data: folders on the nodes.
//!
//! Speaks with the volume binder as any provisioner does, through the annotations of claims and volumes, so that it serves beside another
//! kube-controller-manager too. Must not bind, nor choose a node (the scheduler does), nor delete data of volumes that others made.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/storage/dynamic-provisioning/> and k3s' local storage provider.

mod claim;
mod hands;
mod volume;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use trireme_client::{Event, Object, ObjectKey, storage};

use crate::Error;
use crate::runtime::{Context, Controller, Next, Watches};
use hands::Hands;

/// The object to reconcile.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Claim(ObjectKey),
    Volume(String),
}

/// The controller.
pub(crate) struct LocalProvisioner {
    hands: Arc<Hands>,
}

impl Controller for LocalProvisioner {
    const NAME: &'static str = "local-path-provisioner";
    const QUEUE: &'static str = "local_path_provisioner";
    type Key = Key;
    type Reads = hands::Reads;

    fn new(reads: Self::Reads, context: &Context) -> Option<Self> {
        Some(Self { hands: Arc::new(Hands::new(reads, context)) })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, Key>) {
        watches.on(&self.hands.claims, |event: &Event<PersistentVolumeClaim>| {
            let claim = event.object();
            (!event.is_deletion() && hands::asks(claim)).then(|| Key::Claim(ObjectKey::of(&**claim)))
        });
        watches.on(&self.hands.volumes, |event: &Event<PersistentVolume>| {
            let volume = event.object();
            (!event.is_deletion() && volume::is_ours(volume)).then(|| Key::Volume(volume.name().to_owned()))
        });
        let hands = Arc::clone(&self.hands);
        watches.on(&self.hands.classes, move |event| keys_of(&hands.claims_of_class(event.object().name())));
        let hands = Arc::clone(&self.hands);
        watches.on(&self.hands.nodes, move |event| of_node(&hands, event));
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        match key {
            Key::Claim(key) => claim::sync(&self.hands, key).await,
            Key::Volume(name) => volume::sync(&self.hands, name).await,
        }
        .map(|()| Next::Wait)
    }
}

fn keys_of(claims: &[Arc<PersistentVolumeClaim>]) -> Vec<Key> {
    claims.iter().map(|claim| Key::Claim(ObjectKey::of(&**claim))).collect()
}

/// A new node, or one that announces its folder, enqueues claims; a deleted node enqueues the volumes whose folders were on it.
fn of_node(hands: &Hands, event: &Event<Node>) -> Vec<Key> {
    let node = event.object();
    let folder = |node: &Node| storage::annotation(node, storage::LOCAL_FOLDER).map(str::to_owned);
    match event {
        Event::Deleted(_) => hands.volumes_on(node.name()).iter().map(|volume| Key::Volume(volume.name().to_owned())).collect(),
        Event::Updated { old, new } if folder(old) == folder(new) => Vec::new(),
        _ => keys_of(&hands.claims_for_node(node.name())),
    }
}
