//! Reclaims a volume that its claim has released.
//!
//! Must not delete data: the provisioner that made a volume deletes it with its data.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#reclaiming>.

use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolume;
use trireme_client::{ObjectKey, storage};

use super::binder::Binder;
use crate::Error;

/// Does what the volume's policy says.
pub(super) async fn reclaim(binder: &Binder, key: &ObjectKey, volume: Arc<PersistentVolume>) -> Result<(), Error> {
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref()).unwrap_or("Retain");
    match policy {
        "Retain" => Ok(()),
        "Delete" if storage::annotation(&*volume, storage::PROVISIONED_BY).is_some() => Ok(()),
        "Delete" => {
            let message = "no provisioner made this volume, so none deletes it: delete its data and then the volume";
            fail(binder, key, volume, "VolumeFailedDelete", message).await
        }
        "Recycle" => {
            let message = "Recycle is not supported: delete the data, then remove spec.claimRef to offer the volume again";
            fail(binder, key, volume, "VolumeFailedRecycle", message).await
        }
        _ => fail(binder, key, volume, "VolumeUnknownReclaimPolicy", "Volume has unrecognized PersistentVolumeReclaimPolicy").await,
    }
}

/// Says so once, and leaves the volume to people.
async fn fail(binder: &Binder, key: &ObjectKey, volume: Arc<PersistentVolume>, reason: &str, message: &str) -> Result<(), Error> {
    if storage::volume_phase(&volume) != "Failed" {
        let volume = binder.set_volume_phase(key, volume, "Failed", message).await?;
        binder.warn(&*volume, reason, message);
    }
    Ok(())
}
