//! A volume's way out of a pod: unpublished when the pod has ended, unstaged when no pod of this node has it, then free to be detached.
//!
//! What has to be done is read from disk, so an agent that did not publish a volume releases it. A pod waits for its own volumes to be
//! unpublished, and for nothing else.

use std::{path::Path, sync::Arc, time::Duration};

use trireme_proto::csi;

use super::{
    layout::{self, Form, VolumeId},
    mount::text,
    record::{self, Found},
    state::Csi,
};
use crate::{
    clock::blocking,
    error::{Error, Result},
    volume::mounts,
};

/// Between attempts to unstage a volume: doubled from the first up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(122);

impl Csi {
    /// Unpublishes what a pod has. The pod's processes must have ended.
    pub(crate) async fn release_pod(self: &Arc<Self>, pod_uid: &str) -> Result<()> {
        let mut failure = None;
        for found in record::of_pod(&self.layout, pod_uid)? {
            if let Err(error) = self.unpublish(&found).await {
                failure = Some(failed(&found, &error));
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        self.published.lock().retain(|(uid, _), published| {
            let stays = uid != pod_uid;
            if !stays {
                self.clean_later(&published.id);
            }
            stays
        });
        for id in self.unuse(pod_uid) {
            self.clean_later(&id);
        }
        Ok(())
    }

    async fn unpublish(self: &Arc<Self>, found: &Found) -> Result<()> {
        let id = found.record.id();
        let driver = self.drivers.find(&id.driver).await.map_err(Error::Config)?;
        let _guard = self.lock(&id).await;
        let target = layout::target(&found.folder, found.form);
        let request = csi::NodeUnpublishVolumeRequest { volume_id: id.handle.clone(), target_path: text(&target)? };
        driver.unpublish(request).await?;
        blocking(|| take_away(&target))?;
        blocking(|| record::remove(&found.folder))?;
        self.clean_later(&id);
        Ok(())
    }

    /// Begins to release what pods of earlier agents left behind.
    pub(crate) fn clean_all(self: &Arc<Self>) {
        for id in self.candidates() {
            self.clean_later(&id);
        }
    }

    /// Has a volume unstaged if no pod has it, by a task of its own: a driver that hangs holds up nothing but its own volume.
    pub(super) fn clean_later(self: &Arc<Self>, id: &VolumeId) {
        if !self.cleaning.lock().insert(id.clone()) {
            return;
        }
        let (me, id) = (self.clone(), id.clone());
        tokio::spawn(async move {
            let cancel = me.cancel.clone();
            cancel.run_until_cancelled(me.clean(&id)).await;
        });
    }

    async fn clean(self: &Arc<Self>, id: &VolumeId) {
        let mut pause = FIRST_PAUSE;
        loop {
            let guard = self.lock(id).await;
            let outcome = if self.is_used(id) { Ok(()) } else { self.unstage(id).await };
            match outcome {
                Ok(()) => {
                    self.may_detach(id);
                    drop(guard);
                    self.cleaning.lock().remove(id);
                    // A pod that let go of it in between found the task still there.
                    if self.is_used(id) || !self.candidates().contains(id) || !self.cleaning.lock().insert(id.clone()) {
                        return;
                    }
                }
                Err(error) => {
                    drop(guard);
                    tracing::warn!(%error, driver = id.driver, volume = id.handle, "UnmountVolume.UnmountDevice failed, will be retried");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LAST_PAUSE);
                }
            }
        }
    }

    async fn unstage(&self, id: &VolumeId) -> Result<()> {
        let folder = self.layout.staging(id)?;
        let Some(found) = record::staged(&self.layout).into_iter().find(|found| found.folder == folder) else { return Ok(()) };
        let driver = self.drivers.find(&id.driver).await.map_err(Error::Config)?;
        let path = layout::global_mount(&found.folder);
        let request = csi::NodeUnstageVolumeRequest { volume_id: id.handle.clone(), staging_target_path: text(&path)? };
        driver.unstage(request).await?;
        blocking(|| take_away(&path))?;
        blocking(|| record::remove(&found.folder))
    }
}

/// Takes a mount point away that a driver says it has unmounted, and its empty folder. What is in a folder that is no mount point is
/// data that somebody may want: it is left.
fn take_away(path: &Path) -> Result<()> {
    mounts::unmount_below(path)?;
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => record::remove_empty(path),
        Ok(_) => std::fs::remove_file(path).map_err(Error::io(format!("remove {}", path.display()))),
        Err(_) => Ok(()),
    }
}

fn failed(found: &Found, error: &Error) -> Error {
    let operation = match found.form {
        Form::FileSystem => "UnmountVolume.TearDown",
        Form::Device => "UnmapVolume.UnmapPodDevice",
    };
    Error::Mount { operation, volume: found.record.spec_name.clone(), why: error.to_string() }
}
