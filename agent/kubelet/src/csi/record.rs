//! `vol_data.json`: what is written beside a volume before a driver is told to stage or publish it, in upstream's form.

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::layout::{Form, Layout, VolumeId};
use crate::{
    error::{Error, Result},
    files,
};

const NAME: &str = "vol_data.json";
/// A handle has at most 192 bytes; no file that a kubelet wrote is longer.
const MAX_BYTES: u64 = 64 << 10;

/// One volume, staged or published. Keys that are unknown here are another kubelet's and ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Record {
    pub(super) driver_name: String,
    pub(super) volume_handle: String,
    /// The PersistentVolume, or the pod's volume.
    #[serde(rename = "specVolID", skip_serializing_if = "String::is_empty")]
    pub(super) spec_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) node_name: String,
    /// The VolumeAttachment; empty for a volume that is not attached.
    #[serde(rename = "attachmentID", skip_serializing_if = "String::is_empty")]
    pub(super) attachment: String,
    /// `Persistent` or `Ephemeral`.
    #[serde(rename = "volumeLifecycleMode", skip_serializing_if = "String::is_empty")]
    pub(super) lifecycle: String,
}

/// A record where it was found.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    /// The folder that has the record beside the volume.
    pub(super) folder: PathBuf,
    pub(super) form: Form,
    pub(super) record: Record,
}

impl Record {
    pub(super) fn id(&self) -> VolumeId {
        VolumeId { driver: self.driver_name.clone(), handle: self.volume_handle.clone() }
    }

    /// Writes it, complete or not at all, and synced: it is relied on after a power cut.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        if read(folder).as_ref() == Some(self) {
            return Ok(());
        }
        let wrap = || Error::io(format!("write {}", folder.join(NAME).display()));
        files::make_directories(folder, 0o750)?;
        let text = serde_json::to_vec(self).map_err(|e| wrap()(e.into()))?;
        let temporary = folder.join(format!("{NAME}.new"));
        let mut file = std::fs::File::create(&temporary).map_err(wrap())?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(wrap())?;
        std::fs::rename(&temporary, folder.join(NAME)).map_err(wrap())?;
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(wrap())
    }
}

/// The record in a folder, if there is one that can be understood.
fn read(folder: &Path) -> Option<Record> {
    let mut text = Vec::new();
    std::fs::File::open(folder.join(NAME)).ok()?.take(MAX_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok().filter(|record: &Record| !record.driver_name.is_empty() && !record.volume_handle.is_empty())
}

/// Removes a record with its folder. Other files in it are left, and the folder with them.
pub(super) fn remove(folder: &Path) -> Result<()> {
    for path in [folder.join(NAME), folder.join(format!("{NAME}.new"))] {
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(format!("remove {}", path.display()))(e)),
            _ => {}
        }
    }
    remove_empty(folder)
}

/// Removes a folder that is empty; one that is gone is removed.
pub(super) fn remove_empty(folder: &Path) -> Result<()> {
    match std::fs::remove_dir(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(format!("remove {}", folder.display()))(e)),
        _ => Ok(()),
    }
}

fn children(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn found(folder: PathBuf, form: Form) -> Option<Found> {
    Some(Found { record: read(&folder)?, form, folder })
}

/// The published volumes of a pod.
pub(super) fn of_pod(layout: &Layout, pod_uid: &str) -> Result<Vec<Found>> {
    let mut all = Vec::new();
    for form in [Form::FileSystem, Form::Device] {
        all.extend(children(&layout.of_pod(pod_uid, form)?).filter_map(|folder| found(folder, form)));
    }
    Ok(all)
}

/// The published volumes of all pods.
pub(super) fn of_pods(layout: &Layout) -> Vec<Found> {
    let uids = children(&layout.pods()).filter_map(|dir| dir.file_name().and_then(|name| name.to_str()).map(str::to_owned));
    uids.flat_map(|uid| of_pod(layout, &uid).unwrap_or_default()).collect()
}

/// The volumes that are staged, or were about to be.
pub(super) fn staged(layout: &Layout) -> Vec<Found> {
    let folders = children(&layout.staged()).flat_map(|driver| children(&driver).collect::<Vec<_>>());
    folders.filter_map(|folder| found(folder, Form::FileSystem)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_upstreams_keys_and_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let record = Record {
            driver_name: "d".into(),
            volume_handle: "h".into(),
            spec_name: "pv".into(),
            node_name: "n1".into(),
            attachment: "csi-1".into(),
            lifecycle: "Persistent".into(),
        };
        let folder = layout.published("uid", "pv", Form::Device).unwrap();
        record.write(&folder).unwrap();
        record.write(&folder).unwrap();
        let text: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join(NAME)).unwrap()).unwrap();
        let expected = serde_json::json!({"driverName": "d", "volumeHandle": "h", "specVolID": "pv", "nodeName": "n1",
            "attachmentID": "csi-1", "volumeLifecycleMode": "Persistent"});
        assert_eq!(text, expected);
        let known = Found { folder: folder.clone(), form: Form::Device, record };
        assert_eq!((of_pod(&layout, "uid").unwrap(), of_pods(&layout)), (vec![known.clone()], vec![known]));
        remove(&folder).unwrap();
        remove(&folder).unwrap();
        assert!(!folder.exists() && of_pods(&layout).is_empty());
    }

    #[test]
    fn what_is_no_record_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        for (uid, text) in [("a", "{"), ("b", "[]"), ("c", "{\"driverName\": \"d\"}"), ("d", "{\"driverName\": 1, \"volumeHandle\": 2}")] {
            let folder = layout.published(uid, "pv", Form::FileSystem).unwrap();
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(NAME), text).unwrap();
        }
        // A sparse file of a terabyte is not read to its end.
        let folder = layout.published("e", "pv", Form::FileSystem).unwrap();
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::File::create(folder.join(NAME)).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(of_pods(&layout), []);
    }
}
