//! Has volumes of CSI drivers attached to the nodes whose pods use them, and detached when no pod does.
//!
//! Owns the VolumeAttachments that it names (`storage::csi`), and `status.volumesAttached` of nodes whose kubelets leave attaching to it.
//! Must not speak to drivers: each driver's attacher acts on the VolumeAttachments.
//!
//! Invariant: a volume that a kubelet says it uses (`volumesInUse`) is not detached, unless the node has been unhealthy for six minutes or
//! is out of service. Before a volume is detached the node is told that it is not attached, and its answer is looked at: a kubelet that
//! has begun to use the volume meanwhile is seen there.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/storage/persistent-volumes/> and
//! <https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/#storage-force-detach-on-timeout>.

mod desired;
mod plan;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;
use trireme_client::{Client, DeleteOptions, Event, EventKind, EventRecorder, Informer, Object, ObjectKey, Patch, storage};

use crate::Error;
use crate::pods::{self, ByNode};
use crate::runtime::{Context, Controller, Next, OwnWrites, Watches};
use desired::{Attachable, Catalog};
use plan::{Attached, Plan};

/// Between looks at a node whose volume is kept from being detached.
const LOOK: Duration = Duration::from_secs(10);

/// The controller. Its unit of work is a node.
pub(crate) struct AttachDetach {
    client: Client,
    recorder: EventRecorder,
    nodes: Arc<Informer<Node>>,
    by_node: ByNode,
    attachments: Arc<Informer<VolumeAttachment>>,
    catalog: Arc<Catalog>,
    node_writes: OwnWrites<Node>,
    attachment_writes: OwnWrites<VolumeAttachment>,
    memory: Mutex<Memory>,
}

/// What was seen and told, by the name of the attachment.
#[derive(Default)]
struct Memory {
    /// Since when no pod wants it.
    unwanted: HashMap<String, Instant>,
    /// Pods were told that it is elsewhere.
    told_elsewhere: HashSet<String>,
    /// The failure that pods were told of.
    told_failure: HashMap<String, String>,
}

impl Controller for AttachDetach {
    const NAME: &'static str = "attachdetach-controller";
    const QUEUE: &'static str = "attachdetach";
    type Key = String;
    type Reads = (
        Arc<Informer<Node>>,
        Arc<Informer<Pod>>,
        Arc<Informer<PersistentVolumeClaim>>,
        Arc<Informer<PersistentVolume>>,
        Arc<Informer<VolumeAttachment>>,
        Arc<Informer<CSIDriver>>,
    );

    fn new((nodes, pods, claims, volumes, attachments, drivers): Self::Reads, context: &Context) -> Option<Self> {
        Some(Self {
            client: context.client.clone(),
            recorder: context.recorder.clone(),
            by_node: ByNode::of(&pods),
            node_writes: OwnWrites::new(&nodes),
            attachment_writes: OwnWrites::new(&attachments),
            nodes,
            attachments,
            catalog: Arc::new(Catalog { pods, claims, volumes, drivers }),
            memory: Mutex::default(),
        })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, String>) {
        watches.on(&self.nodes, |event| {
            let matters = match event {
                Event::Updated { old, new } => plan::seen(old) != plan::seen(new),
                _ => true,
            };
            matters.then(|| event.object().name().to_owned())
        });
        watches.on(&self.catalog.pods, |event| {
            let nodes: HashSet<String> = event.versions().filter_map(|pod| pods::node_name(pod).map(str::to_owned)).collect();
            if storage::claims_of(event.object()).next().is_some() { nodes } else { HashSet::new() }
        });
        let catalog = Arc::clone(&self.catalog);
        watches.on(&self.catalog.claims, move |event| catalog.nodes_of_claim(event.object().namespace(), event.object().name()));
        let catalog = Arc::clone(&self.catalog);
        watches.on(&self.catalog.volumes, move |event| catalog.nodes_of_volume(event.object()));
        let catalog = Arc::clone(&self.catalog);
        watches.on(&self.attachments, move |event| {
            // Where it goes away, other nodes may have waited for it.
            let name = event.object().spec.source.persistent_volume_name.as_deref().unwrap_or_default();
            let mut nodes = catalog.volumes.get("", name).map(|volume| catalog.nodes_of_volume(&volume)).unwrap_or_default();
            nodes.insert(event.object().spec.node_name.clone());
            nodes
        });
        let nodes = Arc::clone(&self.nodes);
        watches.on(&self.catalog.drivers, move |_| nodes.list().iter().map(|node| node.name().to_owned()).collect::<Vec<_>>());
    }

    async fn reconcile(&self, name: &String) -> Result<Next, Error> {
        let key = ObjectKey::new("", name);
        self.node_writes.settle(&key).await?;
        self.attachment_writes.settle(&key).await?;
        let node = self.nodes.get("", name);
        let managed = node.as_ref().is_none_or(|node| storage::annotation(&**node, storage::CONTROLLER_ATTACHES).is_some());
        if !managed {
            return Ok(Next::Wait);
        }
        let wanted = self.catalog.wanted(&self.by_node.get(name));
        let wanted: BTreeMap<String, Attachable> = wanted.into_iter().map(|(id, one)| (id.attachment(name), one)).collect();
        let attached = self.attached(name);
        let plan = plan::plan(name, node.as_deref(), &wanted, &attached, |name| self.unwanted_since(name));
        self.remember(&plan, &wanted, &attached);
        self.tell_failures(&wanted, &attached);
        let mut errors = Vec::new();
        for name in &plan.create {
            errors.extend(self.create(&key, name, &wanted[name]).await.err());
        }
        errors.extend(self.report_and_detach(&key, node.as_deref(), &plan, &wanted).await.err());
        Error::first_of(errors).map_or(Ok(if plan.look_again { Next::After(LOOK) } else { Next::Wait }), Err)
    }
}

impl AttachDetach {
    /// The attachments of a node that are this controller's, by name.
    fn attached(&self, node: &str) -> BTreeMap<String, Attached> {
        let all = self.attachments.list();
        let of_node = all.into_iter().filter(|attachment| attachment.spec.node_name == node);
        let ours = of_node.filter_map(|attachment| {
            let volume = attachment.spec.source.persistent_volume_name.as_deref()?;
            // Without its volume it cannot be told whose it is but by the form of its name.
            let id = self.catalog.volumes.get("", volume).and_then(|volume| desired::id_of(&volume));
            let name = attachment.name().to_owned();
            let is_ours = match &id {
                Some(id) => id.attachment(node) == name,
                None => name.starts_with("csi-") && name.len() == "csi-".len() + 64,
            };
            is_ours.then_some((name, Attached { object: attachment, id }))
        });
        ours.collect()
    }

    fn unwanted_since(&self, name: &str) -> Duration {
        self.memory.lock().unwanted.entry(name.to_owned()).or_insert_with(Instant::now).elapsed()
    }

    /// Forgets what does not hold any more.
    fn remember(&self, plan: &Plan, wanted: &BTreeMap<String, Attachable>, attached: &BTreeMap<String, Attached>) {
        let mut memory = self.memory.lock();
        for name in wanted.keys() {
            memory.unwanted.remove(name);
        }
        for name in attached.keys().chain(&plan.create) {
            memory.told_elsewhere.remove(name);
        }
        let exist = |name: &String| attached.contains_key(name) || self.attachments.get("", name).is_some();
        memory.unwanted.retain(|name, _| exist(name));
        memory.told_failure.retain(|name, _| exist(name));
    }

    fn tell(&self, pods: &[Arc<Pod>], kind: EventKind, reason: &str, message: &str) {
        for pod in pods {
            self.recorder.record(&**pod, kind, reason, message);
        }
    }

    fn tell_failures(&self, wanted: &BTreeMap<String, Attachable>, attached: &BTreeMap<String, Attached>) {
        for (name, one) in wanted {
            let failure = attached.get(name).and_then(|attached| attached.object.status.as_ref()?.attach_error.as_ref());
            let Some(failure) = failure else { continue };
            let text = failure.message.clone().unwrap_or_default();
            let seen = format!("{text}{:?}", failure.time);
            if self.memory.lock().told_failure.insert(name.clone(), seen.clone()) != Some(seen) {
                let message = format!("AttachVolume.Attach failed for volume {:?} : {text}", one.volume);
                self.tell(&one.pods, EventKind::Warning, "FailedAttachVolume", &message);
            }
        }
    }

    async fn create(&self, key: &ObjectKey, name: &str, wanted: &Attachable) -> Result<(), Error> {
        if let Some(why) = self.elsewhere(key.name.as_str(), wanted) {
            if self.memory.lock().told_elsewhere.insert(name.to_owned()) {
                let message = format!("Multi-Attach error for volume {:?} {why}", wanted.volume);
                self.tell(&wanted.pods, EventKind::Warning, "FailedAttachVolume", &message);
            }
            return Ok(());
        }
        let object = json!({"metadata": {"name": name}, "spec": {
            "attacher": wanted.driver, "nodeName": key.name, "source": {"persistentVolumeName": wanted.volume}}});
        let object: VolumeAttachment = serde_json::from_value(object).map_err(|error| Error::Invalid(error.to_string()))?;
        match self.client.create(None, &object).await {
            Ok(made) => {
                self.attachment_writes.wrote(key, &made);
                Ok(())
            }
            Err(error) if error.is_already_exists() => Err(Error::StaleCache),
            Err(error) => Err(error.into()),
        }
    }

    /// Why a volume that one node only may have cannot go to this one, in upstream's words.
    fn elsewhere(&self, node: &str, wanted: &Attachable) -> Option<String> {
        if wanted.is_shared {
            return None;
        }
        let all = self.attachments.list();
        let others: Vec<&str> = all
            .iter()
            .filter(|one| one.spec.source.persistent_volume_name.as_deref() == Some(&wanted.volume) && one.spec.node_name != node)
            .map(|one| one.spec.node_name.as_str())
            .collect();
        if others.is_empty() {
            return None;
        }
        let mut names: Vec<String> = self.catalog.users(&wanted.volume, &others).iter().map(|pod| pod.name().to_owned()).collect();
        names.sort();
        Some(match names.is_empty() {
            true => "Volume is already exclusively attached to one node and can't be attached to another".to_owned(),
            false => format!("Volume is already used by pod(s) {}", names.join(", ")),
        })
    }

    /// Tells the node what is attached to it, then detaches what no pod of it wants.
    async fn report_and_detach(
        &self,
        key: &ObjectKey,
        node: Option<&Node>,
        plan: &Plan,
        wanted: &BTreeMap<String, Attachable>,
    ) -> Result<(), Error> {
        let mut told = None;
        if let Some(node) = node.filter(|node| plan::reported(node) != plan.report) {
            let before = plan::reported(node);
            let list: Vec<Value> = plan.report.iter().map(|name| json!({"name": name, "devicePath": ""})).collect();
            let patch = Patch::Merge(json!({"metadata": {"uid": node.uid()}, "status": {"volumesAttached": list}}));
            match self.client.patch_status::<Node>(None, node.name(), &patch).await {
                Ok(stored) => {
                    self.node_writes.wrote(key, &stored);
                    told = Some(stored);
                }
                Err(error) if error.is_not_found() => return Err(Error::StaleCache),
                Err(error) => return Err(error.into()),
            }
            for one in wanted.values().filter(|one| plan.report.contains(&one.id.unique_name()) && !before.contains(&one.id.unique_name()))
            {
                let message = format!("AttachVolume.Attach succeeded for volume {:?} ", one.volume);
                self.tell(&one.pods, EventKind::Normal, "SuccessfulAttachVolume", &message);
            }
        }
        let now = told.as_ref().or(node);
        for detach in &plan.detach {
            if !detach.is_forced && now.is_some_and(|node| detach.is_in_use(node)) {
                // The kubelet was faster. Its next status brings the node back here.
                return Err(Error::StaleCache);
            }
            if detach.is_forced {
                tracing::warn!(node = key.name, attachment = detach.attachment.name(), "a volume is detached by force");
            }
            let options = DeleteOptions::uid(detach.attachment.uid().to_owned());
            match self.client.delete::<VolumeAttachment>(None, detach.attachment.name(), &options).await {
                Ok(()) => self.attachment_writes.deleted(key, &detach.attachment),
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
