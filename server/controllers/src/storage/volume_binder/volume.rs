//! Reconciles one volume.

use trireme_client::storage;

use super::binder::{Binder, volume_key};
use super::{plan, reclaim};
use crate::Error;
use crate::runtime::Next;

pub(super) async fn sync(binder: &Binder, name: &str) -> Result<Next, Error> {
    let key = volume_key(name);
    binder.settle(&key).await?;
    let Some(volume) = binder.volumes.get("", name) else { return Ok(Next::Wait) };
    let claim = binder.claim_of(&volume).await?;
    match plan::volume(&volume, claim.as_deref()) {
        plan::Volume::Offer if volume.metadata.deletion_timestamp.is_some() => Ok(Next::Wait),
        plan::Volume::Offer => binder.set_volume_phase(&key, volume, "Available", "").await.map(|_| Next::Wait),
        plan::Volume::Keep => binder.set_volume_phase(&key, volume, "Bound", "").await.map(|_| Next::Wait),
        // The claim is in the queue: every event of a volume puts it there.
        plan::Volume::Await => Ok(Next::Wait),
        plan::Volume::Mismatch => {
            if let (Some(claim), Some(said)) = (&claim, claim.as_ref().and_then(|claim| claim.metadata.name.as_deref())) {
                let of =
                    format!("Cannot bind PersistentVolume to requested PersistentVolumeClaim {said:?} due to incompatible volumeMode.");
                binder.warn(&*volume, "VolumeMismatch", of);
                let of =
                    format!("Cannot bind PersistentVolume {name:?} to requested PersistentVolumeClaim due to incompatible volumeMode.");
                binder.warn(&**claim, "VolumeMismatch", of);
            }
            Ok(Next::Wait)
        }
        plan::Volume::Reclaim => {
            let volume = match storage::volume_phase(&volume) {
                "Released" | "Failed" => volume,
                _ => binder.set_volume_phase(&key, volume, "Released", "").await?,
            };
            reclaim::reclaim(binder, &key, volume).await.map(|()| Next::Wait)
        }
        plan::Volume::Unbind => binder.unbind(&key, &volume).await.map(|()| Next::Wait),
    }
}
