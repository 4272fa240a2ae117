//! What the API is told of this node's drivers: the CSINode object, the node's labels of topology, and the annotation with its ids.
//!
//! Answers to <https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/csi-node-v1/>.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        core::v1::Node,
        storage::v1::{CSINode, CSINodeDriver, CSINodeSpec, VolumeNodeResources},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use serde_json::{Value, json};
use trireme_client::{Patch, storage};
use trireme_proto::csi;

use super::state::Csi;
use crate::error::{Error, Result};

/// On a node: what drivers call it, as a JSON object.
const NODE_IDS: &str = "csi.volume.kubernetes.io/nodeid";
/// Conflicts in a row after which a write is given up, to be tried again later.
const TRIES: usize = 5;
const RETRY: Duration = Duration::from_secs(2);

impl Csi {
    /// Sees to it that this node has a CSINode object: schedulers and controllers take a missing one for a node that is not ready.
    pub(crate) async fn introduce(self: Arc<Self>) {
        while let Err(error) = self.change_csi_node(|_| {}).await {
            tracing::debug!(%error, "CSINode not written, will be retried");
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Publishes a driver, and what it reports about this node.
    pub(super) async fn announce(&self, name: &str, info: &csi::NodeGetInfoResponse) -> Result<()> {
        if info.node_id.is_empty() {
            return Err(Error::Config(format!("error updating CSINode object with CSI driver node info: driver {name} gives no node id")));
        }
        let segments: BTreeMap<String, String> = info.accessible_topology.iter().flat_map(|topology| topology.segments.clone()).collect();
        self.change_node(&segments, |ids| {
            ids.insert(name.to_owned(), info.node_id.clone());
        })
        .await?;
        let count = i32::try_from(info.max_volumes_per_node).unwrap_or(i32::MAX);
        let driver = CSINodeDriver {
            name: name.to_owned(),
            node_id: info.node_id.clone(),
            topology_keys: (!segments.is_empty()).then(|| segments.keys().cloned().collect()),
            allocatable: (count > 0).then_some(VolumeNodeResources { count: Some(count) }),
        };
        self.change_csi_node(|drivers| {
            drivers.retain(|known| known.name != name);
            drivers.push(driver.clone());
        })
        .await
    }

    /// A driver is gone. The labels stay: volumes are bound to them.
    pub(super) async fn withdraw(&self, name: &str) -> Result<()> {
        self.change_csi_node(|drivers| drivers.retain(|known| known.name != name)).await?;
        self.change_node(&BTreeMap::new(), |ids| {
            ids.remove(name);
        })
        .await
    }

    async fn change_csi_node(&self, change: impl Fn(&mut Vec<CSINodeDriver>)) -> Result<()> {
        let _one_at_a_time = self.node_info.lock().await;
        for _ in 0..TRIES {
            match self.try_csi_node(&change).await {
                Err(error) if error.is_conflict() || error.is_already_exists() => {}
                outcome => return outcome.map_err(Error::from),
            }
        }
        Err(Error::Config("CSINode is changed by others again and again".into()))
    }

    async fn try_csi_node(&self, change: impl Fn(&mut Vec<CSINodeDriver>)) -> Result<(), trireme_client::Error> {
        match self.client.get::<CSINode>(None, &self.node_name).await {
            Ok(known) => {
                let mut drivers = known.spec.drivers.clone();
                change(&mut drivers);
                if drivers == known.spec.drivers {
                    return Ok(());
                }
                let metadata = json!({"resourceVersion": known.metadata.resource_version, "uid": known.metadata.uid});
                let patch = Patch::Merge(json!({"metadata": metadata, "spec": {"drivers": drivers}}));
                self.client.patch::<CSINode>(None, &self.node_name, &patch).await.map(drop)
            }
            Err(error) if error.is_not_found() => {
                let node = self.client.get::<Node>(None, &self.node_name).await?;
                let mut drivers = Vec::new();
                change(&mut drivers);
                let owner = OwnerReference {
                    api_version: "v1".into(),
                    kind: "Node".into(),
                    name: self.node_name.clone(),
                    uid: node.metadata.uid.unwrap_or_default(),
                    ..OwnerReference::default()
                };
                let metadata =
                    ObjectMeta { name: Some(self.node_name.clone()), owner_references: Some(vec![owner]), ..ObjectMeta::default() };
                self.client.create(None, &CSINode { metadata, spec: CSINodeSpec { drivers } }).await.map(drop)
            }
            Err(error) => Err(error),
        }
    }

    /// Changes the ids in the node's annotation, and adds labels of topology.
    async fn change_node(&self, segments: &BTreeMap<String, String>, change: impl Fn(&mut BTreeMap<String, String>)) -> Result<()> {
        let _one_at_a_time = self.node_info.lock().await;
        let node = self.client.get::<Node>(None, &self.node_name).await?;
        let label = |key: &String| node.metadata.labels.as_ref().and_then(|labels| labels.get(key));
        for (key, value) in segments {
            if let Some(known) = label(key).filter(|known| *known != value) {
                let why =
                    format!("detected topology value collision: driver reported {key:?}:{value:?} but existing label is {key:?}:{known:?}");
                return Err(Error::Config(why));
            }
        }
        let written = storage::annotation(&node, NODE_IDS).unwrap_or_default();
        let before: BTreeMap<String, String> = serde_json::from_str(written).unwrap_or_default();
        let mut ids = before.clone();
        change(&mut ids);
        let labels: BTreeMap<&String, &String> = segments.iter().filter(|(key, _)| label(key).is_none()).collect();
        if ids == before && labels.is_empty() {
            return Ok(());
        }
        let ids = if ids.is_empty() { Value::Null } else { json!(json!(ids).to_string()) };
        let metadata = json!({"annotations": {NODE_IDS: ids}, "labels": labels});
        let stored = self.client.patch::<Node>(None, &self.node_name, &Patch::Merge(json!({"metadata": metadata}))).await?;
        *self.node.write() = Some(Arc::new(stored));
        Ok(())
    }
}
