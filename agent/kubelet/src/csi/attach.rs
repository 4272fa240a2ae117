//! Waits until a volume is attached to this node. The attach/detach controller and the driver's attacher do that.
//!
//! Invariant: before a volume is used the node's status says so (`volumesInUse`), and afterwards the controller's list is looked at
//! (`volumesAttached`): a volume that the controller has begun to detach is in neither.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use tokio::time::Instant;

use super::{layout::VolumeId, state::Csi};
use crate::error::{Error, Result};

/// Between looks at the attachment.
const LOOK: Duration = Duration::from_millis(200);
/// So long one set-up waits, before the pod's other needs are looked at.
const PATIENCE: Duration = Duration::from_secs(15);

/// Whether a driver's volumes are attached to nodes: unless its object says that they are not.
pub(super) fn is_needed(driver: Option<&CSIDriver>) -> bool {
    driver.is_none_or(|driver| driver.spec.attach_required != Some(false))
}

impl Csi {
    /// The driver's object in the API, if it has one.
    pub(super) async fn driver_object(&self, name: &str) -> Result<Option<CSIDriver>> {
        match self.client.get(None, name).await {
            Ok(driver) => Ok(Some(driver)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// What the driver's controller said when it attached the volume to this node.
    pub(super) async fn attached(&self, id: &VolumeId) -> Result<BTreeMap<String, String>> {
        self.keep_attached(id);
        let until = Instant::now() + PATIENCE;
        loop {
            match self.look_at_attachment(id).await {
                Err(Error::Waiting(_)) if Instant::now() < until => tokio::time::sleep(LOOK).await,
                looked => return looked,
            }
        }
    }

    async fn look_at_attachment(&self, id: &VolumeId) -> Result<BTreeMap<String, String>> {
        let name = id.unique_name();
        let status = self.node.read().clone().and_then(|node| node.status.clone()).unwrap_or_default();
        if !status.volumes_in_use.iter().flatten().any(|used| *used == name) {
            return Err(Error::Waiting(format!("volume {name} is not marked as in use on the node yet")));
        }
        if !status.volumes_attached.iter().flatten().any(|attached| attached.name == name) {
            return Err(Error::Waiting(format!("volume not attached according to node status (UniqueName: {name:?})")));
        }
        let attachment = id.attachment(&self.node_name);
        let found = match self.client.get::<VolumeAttachment>(None, &attachment).await {
            Ok(found) => found,
            Err(e) if e.is_not_found() => return Err(Error::Waiting(format!("volumeattachment {attachment:?} not found"))),
            Err(e) => return Err(e.into()),
        };
        let status = found.status.unwrap_or_default();
        if found.metadata.deletion_timestamp.is_some() || !status.attached {
            return Err(Error::Waiting(format!("volume attachment {attachment} is not attached yet")));
        }
        Ok(status.attachment_metadata.unwrap_or_default())
    }
}
