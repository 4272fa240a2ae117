//! `kubelet_internal_checkpoint`: which container has which devices, in upstream's form and place, because others read it there.
//!
//! Upstream's kubelet takes a file only with a checksum of its own kind, which this one does not have: on a node that changes its kubelet,
//! pods with devices have to be drained first.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    path::Path,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use prost::Message;
use serde::{Deserialize, Serialize};
use trireme_proto::deviceplugin::ContainerAllocateResponse;

use super::ledger::{Grant, Ledger};
use crate::{
    error::{Error, Result},
    files,
};

/// The file's name in the folder of the sockets.
pub(super) const NAME: &str = "kubelet_internal_checkpoint";
/// A larger file is neither written nor read.
const MAX_BYTES: usize = 64 << 20;
/// Stands for the NUMA nodes of a device that has none.
const NO_NODE: i64 = -1;

/// What is known of devices.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Checkpoint {
    pub(super) ledger: Ledger,
    /// The resources, each with its healthy devices.
    pub(super) registered: BTreeMap<String, Vec<String>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    data: Data,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    // Go writes an empty list as null.
    pod_device_entries: Option<Vec<Entry>>,
    registered_devices: Option<BTreeMap<String, Option<Vec<String>>>>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(rename = "PodUID")]
    pod_uid: String,
    #[serde(rename = "ContainerName")]
    container: String,
    #[serde(rename = "ResourceName")]
    resource: String,
    /// By NUMA node.
    #[serde(rename = "DeviceIDs")]
    devices: BTreeMap<i64, Vec<String>>,
    /// The plugin's answer: protobuf, in base64.
    #[serde(rename = "AllocResp")]
    answer: String,
}

impl Entry {
    fn of(pod_uid: &str, container: &str, resource: &str, grant: &Grant) -> Option<Entry> {
        let answer = grant.answer.as_ref()?;
        let mut devices: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for (id, nodes) in &grant.devices {
            let no_node = nodes.is_empty().then_some(NO_NODE);
            for node in nodes.iter().copied().chain(no_node) {
                devices.entry(node).or_default().push(id.clone());
            }
        }
        let answer = BASE64_STANDARD.encode(answer.encode_to_vec());
        Some(Entry { pod_uid: pod_uid.into(), container: container.into(), resource: resource.into(), devices, answer })
    }

    fn grant(&self) -> Option<Grant> {
        let answer = BASE64_STANDARD.decode(&self.answer).ok().and_then(|bytes| ContainerAllocateResponse::decode(bytes.as_slice()).ok());
        let mut devices: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
        for (node, ids) in &self.devices {
            for id in ids {
                devices.entry(id.clone()).or_default().extend((*node != NO_NODE).then_some(*node));
            }
        }
        Some(Grant { devices, answer: Some(answer?) })
    }
}

impl Checkpoint {
    /// The file's content.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let entries = self.ledger.all().filter_map(|(uid, container, resource, grant)| Entry::of(uid, container, resource, grant));
        let registered = self.registered.iter().map(|(name, ids)| (name.clone(), Some(ids.clone())));
        let data = Data { pod_device_entries: Some(entries.collect()), registered_devices: Some(registered.collect()) };
        let text = serde_json::to_vec(&File { data }).map_err(|e| Error::Config(format!("cannot encode {NAME}: {e}")))?;
        if text.len() > MAX_BYTES {
            return Err(Error::Config(format!(
                "{NAME} would have {} bytes, at most {MAX_BYTES} are written: run fewer pods with devices",
                text.len()
            )));
        }
        Ok(text)
    }

    pub(super) fn decode(text: &[u8]) -> std::result::Result<Checkpoint, String> {
        let File { data } = serde_json::from_slice(text).map_err(|e| e.to_string())?;
        let mut ledger = Ledger::default();
        for entry in data.pod_device_entries.into_iter().flatten() {
            let grant =
                entry.grant().ok_or_else(|| format!("the answer for container {} of pod {} is damaged", entry.container, entry.pod_uid))?;
            ledger.set(&entry.pod_uid, &entry.container, &entry.resource, grant);
        }
        let registered = data.registered_devices.unwrap_or_default().into_iter().map(|(name, ids)| (name, ids.unwrap_or_default()));
        Ok(Checkpoint { ledger, registered: registered.collect() })
    }

    /// Writes the content of a file, complete or not at all, for this user alone.
    pub(super) fn write(folder: &Path, content: &[u8]) -> Result<()> {
        files::replace(&folder.join(NAME), content, 0o600)
    }

    /// What an earlier agent wrote; None if there is nothing, or nothing that can be understood.
    pub(super) fn read(folder: &Path) -> Option<Checkpoint> {
        let path = folder.join(NAME);
        let mut text = Vec::new();
        let read = std::fs::File::open(&path).and_then(|file| file.take(MAX_BYTES as u64).read_to_end(&mut text));
        let decoded = match read {
            Ok(_) => Checkpoint::decode(&text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
            Err(e) => Err(e.to_string()),
        };
        let warn = |error: &String| {
            tracing::error!(%error, file = %path.display(), "cannot read which containers have which devices: restart the pods that have any");
        };
        decoded.inspect_err(warn).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn sample() -> Checkpoint {
        let mut ledger = Ledger::default();
        let answer = ContainerAllocateResponse { envs: [("A".into(), "1".into())].into(), ..Default::default() };
        let devices = [("d1".to_owned(), BTreeSet::new()), ("d2".to_owned(), BTreeSet::from([0, 1]))].into();
        ledger.set("uid", "c", "example.com/gpu", Grant { devices, answer: Some(answer) });
        Checkpoint { ledger, registered: [("example.com/gpu".to_owned(), vec!["d1".to_owned(), "d2".to_owned()])].into() }
    }

    #[test]
    fn the_file_has_upstreams_form_and_is_for_one_user() {
        let dir = tempfile::tempdir().unwrap();
        Checkpoint::write(dir.path(), &sample().encode().unwrap()).unwrap();
        let path = dir.path().join(NAME);
        let written: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let entry = serde_json::json!({"PodUID": "uid", "ContainerName": "c", "ResourceName": "example.com/gpu",
            "DeviceIDs": {"-1": ["d1"], "0": ["d2"], "1": ["d2"]}, "AllocResp": "CgYKAUESATE="});
        let expected = serde_json::json!({"Data": {"PodDeviceEntries": [entry], "RegisteredDevices": {"example.com/gpu": ["d1", "d2"]}}});
        assert_eq!(written, expected);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(Checkpoint::read(dir.path()), Some(sample()));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_device_that_is_being_asked_for_is_not_kept() {
        let mut checkpoint = sample();
        checkpoint.ledger.set("uid", "other", "example.com/gpu", Grant::default());
        assert_eq!(Checkpoint::decode(&checkpoint.encode().unwrap()), Ok(sample()));
    }

    #[test]
    fn upstreams_file_is_read_and_a_damaged_one_is_not() {
        let of_upstream = br#"{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{"example.com/gpu":null}},"Checksum":1234}"#;
        let read = Checkpoint::decode(of_upstream).unwrap();
        assert_eq!(read.registered, [("example.com/gpu".to_owned(), Vec::new())].into());
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Checkpoint::read(dir.path()), None);
        for damaged in ["", "{", "[]", r#"{"Data": {"PodDeviceEntries": [{"PodUID": 1}]}}"#] {
            std::fs::write(dir.path().join(NAME), damaged).unwrap();
            assert_eq!(Checkpoint::read(dir.path()), None, "{damaged}");
        }
        // A sparse file of a terabyte is not read to its end.
        std::fs::File::create(dir.path().join(NAME)).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(Checkpoint::read(dir.path()), None);
    }
}
