//! What a running kubelet knows of its drivers' volumes beyond what is on disk: who uses them, and who works on them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;
use trireme_client::Client;

use super::{
    drivers::Drivers,
    layout::{Layout, VolumeId},
    record,
    volume_use::VolumeUse,
};
use crate::{device::Devices, error::Result, events::Events};

/// A pod's volume: the pod's UID and the name of its folder.
pub(super) type Key = (String, String);

/// A volume that this agent published.
#[derive(Clone)]
pub(super) struct Published {
    pub(super) id: VolumeId,
    /// The pod's name for it, and the claim that it came by: namespace and name.
    pub(super) volume: String,
    pub(super) claim: Option<(String, String)>,
    pub(super) target: PathBuf,
    /// Where it is staged, if its driver stages volumes.
    pub(super) staging: Option<PathBuf>,
    /// When the driver wants to be told again.
    pub(super) republish_at: Option<Timestamp>,
    /// How full it was when the driver was asked last.
    pub(super) usage: Option<VolumeUse>,
}

/// The CSI part of a kubelet.
pub(crate) struct Csi {
    pub(super) client: Client,
    pub(super) node_name: String,
    pub(super) layout: Layout,
    pub(super) drivers: Drivers,
    pub(super) events: Events,
    /// This kubelet's Node as the API server last had it.
    pub(super) node: Arc<RwLock<Option<Arc<Node>>>>,
    /// Device plugins may register as drivers do.
    pub(super) devices: Arc<Devices>,
    pub(super) cancel: CancellationToken,
    /// Told when the node's `volumesInUse` has to be written anew.
    pub(crate) in_use_changed: Notify,
    /// Of the CSINode object there is one writer at a time.
    pub(super) node_info: AsyncMutex<()>,
    locks: Mutex<HashMap<VolumeId, Arc<AsyncMutex<()>>>>,
    /// The UIDs of the pods that have a volume or are about to.
    users: Mutex<HashMap<VolumeId, HashSet<String>>>,
    /// Attached volumes that must not be detached yet.
    in_use: Mutex<BTreeSet<VolumeId>>,
    pub(super) published: Mutex<BTreeMap<Key, Published>>,
    /// Volumes that a task is about to unstage.
    pub(super) cleaning: Mutex<HashSet<VolumeId>>,
}

/// What comes from other parts of the kubelet.
pub(crate) struct Parts<'a> {
    pub(crate) client: Client,
    pub(crate) node_name: &'a str,
    pub(crate) root: &'a Path,
    pub(crate) events: Events,
    pub(crate) node: Arc<RwLock<Option<Arc<Node>>>>,
    pub(crate) devices: Arc<Devices>,
    pub(crate) cancel: CancellationToken,
}

impl Csi {
    /// Takes over what an earlier agent left on disk.
    pub(crate) fn new(parts: Parts<'_>) -> Arc<Csi> {
        let layout = Layout::new(parts.root);
        let on_disk = record::of_pods(&layout).into_iter().chain(record::staged(&layout));
        let in_use = on_disk.filter(|found| !found.record.attachment.is_empty()).map(|found| found.record.id()).collect();
        Arc::new(Csi {
            client: parts.client,
            node_name: parts.node_name.to_owned(),
            layout,
            drivers: Drivers::new(),
            events: parts.events,
            node: parts.node,
            devices: parts.devices,
            cancel: parts.cancel,
            in_use_changed: Notify::new(),
            node_info: AsyncMutex::default(),
            locks: Mutex::default(),
            users: Mutex::default(),
            in_use: Mutex::new(in_use),
            published: Mutex::default(),
            cleaning: Mutex::default(),
        })
    }

    /// What the node's status says in `volumesInUse`.
    pub(crate) fn volumes_in_use(&self) -> Vec<String> {
        self.in_use.lock().iter().map(VolumeId::unique_name).collect()
    }

    /// Waits for the lock of this volume.
    pub(super) async fn lock(&self, id: &VolumeId) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock();
            locks.retain(|known, lock| known == id || Arc::strong_count(lock) > 1);
            locks.entry(id.clone()).or_default().clone()
        };
        lock.lock_owned().await
    }

    pub(super) fn use_by(&self, id: &VolumeId, pod_uid: &str) {
        self.users.lock().entry(id.clone()).or_default().insert(pod_uid.to_owned());
    }

    /// The pod is gone; returns the volumes that it used.
    pub(super) fn unuse(&self, pod_uid: &str) -> Vec<VolumeId> {
        let mut left = Vec::new();
        self.users.lock().retain(|id, pods| {
            if pods.remove(pod_uid) {
                left.push(id.clone());
            }
            !pods.is_empty()
        });
        left
    }

    /// Whether a pod has the volume, or is about to. Ask under its lock.
    pub(super) fn is_used(&self, id: &VolumeId) -> bool {
        self.users.lock().contains_key(id) || record::of_pods(&self.layout).iter().any(|found| found.record.id() == *id)
    }

    /// From now on the volume must not be detached.
    pub(super) fn keep_attached(&self, id: &VolumeId) {
        if self.in_use.lock().insert(id.clone()) {
            self.in_use_changed.notify_one();
        }
    }

    /// The volume may be detached, unless a pod has it or was promised it in the meantime. Call under its lock.
    pub(super) fn may_detach(&self, id: &VolumeId) {
        let on_disk = record::of_pods(&self.layout).iter().any(|found| found.record.id() == *id);
        // A pod notes its use before it keeps the volume attached: either it is seen here, or it adds the volume again.
        let users = self.users.lock();
        if !on_disk && !users.contains_key(id) && self.in_use.lock().remove(id) {
            self.in_use_changed.notify_one();
        }
    }

    /// All volumes that something may have to be released of.
    pub(super) fn candidates(&self) -> BTreeSet<VolumeId> {
        // A record that does not lie where its volume is staged is not this kubelet's.
        let is_own = |found: &record::Found| self.layout.staging(&found.record.id()).is_ok_and(|folder| folder == found.folder);
        let staged = record::staged(&self.layout).into_iter().filter(is_own).map(|found| found.record.id());
        staged.chain(self.in_use.lock().iter().cloned()).collect()
    }

    /// Whether a pod has volumes of drivers on disk.
    pub(crate) fn holds(&self, pod_uid: &str) -> Result<bool> {
        Ok(!record::of_pod(&self.layout, pod_uid)?.is_empty())
    }
}
