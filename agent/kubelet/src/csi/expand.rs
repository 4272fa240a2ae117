//! Lets a file system grow to what its volume has become. The volume itself is made larger by the driver's resizer.
//!
//! Answers to <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#expanding-persistent-volumes-claims>.

use std::path::Path;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::json;
use trireme_client::{EventKind, Patch};
use trireme_proto::csi::{self, node_service_capability::rpc::Type};

use super::{
    capability,
    mount::{Step, text},
    state::Csi,
};
use crate::{
    amount,
    error::{Error, Result},
};

const OPERATION: &str = "NodeExpandVolume.NodeExpandVolume";

impl Csi {
    /// Has the driver make a published volume as large as its PersistentVolume says, where the claim says that it is not. A failure is
    /// told, and tried again when the volume is looked at again: the pod runs with what there is.
    pub(super) async fn expand(&self, step: &Step<'_>, staging: Option<&Path>) {
        let Some((bytes, size)) = wanted_size(step) else { return };
        let volume = &step.wanted.spec_name;
        match self.expand_to(step, staging, bytes, &size).await {
            Ok(()) => {
                let text = format!("{OPERATION} succeeded for volume {volume:?}");
                self.events.pod(step.context.pod, EventKind::Normal, "FileSystemResizeSuccessful", &text);
            }
            Err(error) => {
                let text = format!("{OPERATION} failed for volume {volume:?} : {error}");
                self.events.pod(step.context.pod, EventKind::Warning, "VolumeResizeFailed", &text);
            }
        }
    }

    async fn expand_to(&self, step: &Step<'_>, staging: Option<&Path>, bytes: i64, size: &str) -> Result<()> {
        let wanted = step.wanted;
        let request = csi::NodeExpandVolumeRequest {
            volume_id: wanted.id.handle.clone(),
            volume_path: text(&step.target())?,
            capacity_range: Some(csi::CapacityRange { required_bytes: bytes, limit_bytes: 0 }),
            staging_target_path: staging.map(text).transpose()?.unwrap_or_default(),
            volume_capability: Some(capability::of(wanted, &step.driver.abilities, None)),
            secrets: self.secrets("NodeExpandSecretRef", wanted.expand_secret.as_ref(), step.context).await?,
        };
        step.driver.expand(request).await?;
        let Some((namespace, name)) = &wanted.claim else { return Ok(()) };
        let over = |condition: &str| json!({"$patch": "delete", "type": condition});
        let patch = json!({"status": {
            "capacity": {"storage": size},
            "conditions": [over("FileSystemResizePending"), over("Resizing")],
            "allocatedResourceStatuses": {"storage": null},
        }});
        let written = self.client.patch_status::<PersistentVolumeClaim>(Some(namespace), name, &Patch::Strategic(patch)).await;
        written.map(drop).map_err(Error::from)
    }
}

/// The size of the volume in bytes and as it is written, if the claim does not have it yet.
fn wanted_size(step: &Step<'_>) -> Option<(i64, String)> {
    let wanted = step.wanted;
    let (capacity, told) = wanted.sizes.as_ref()?;
    let (is, was) = (amount::parse(capacity)?, amount::parse(told)?);
    let grows = is > was && !wanted.read_only && step.driver.abilities.has(Type::ExpandVolume);
    grows.then(|| (is.units(), capacity.clone()))
}
