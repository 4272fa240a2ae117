//! Writing keys: the one place that changes versions, history, values and lease attachments.

use bytes::Bytes;
use prost::Message as _;
use trireme_proto::etcd::{self, event::EventType};
use trireme_proto::store::{ChangeRecord, KeyVersion};

use super::keys::{attachment_key, change_key, versioned_key};
use super::read;
use super::stage::Stage;
use crate::engine::Table;

/// The writes of one command, all of one revision, and the events they make.
#[derive(Default)]
pub(crate) struct Writer {
    pub(crate) events: Vec<etcd::Event>,
}

impl Writer {
    /// The revision of this command's writes: one after the head, which moves only when the command is done.
    fn revision(stage: &Stage<'_>) -> i64 {
        stage.head.revision + 1
    }

    /// The store's revision if the command ended here.
    pub(crate) fn revision_after(&self, stage: &Stage<'_>) -> i64 {
        if self.events.is_empty() { stage.head.revision } else { Writer::revision(stage) }
    }

    pub(crate) fn put(&mut self, stage: &mut Stage<'_>, key: Bytes, value: Bytes, lease: i64, previous: Option<etcd::KeyValue>) {
        let revision = Writer::revision(stage);
        let version = KeyVersion {
            create_revision: previous.as_ref().map_or(revision, |previous| previous.create_revision),
            mod_revision: revision,
            version: previous.as_ref().map_or(0, |previous| previous.version) + 1,
            lease,
            until: 0,
        };
        self.leave_behind(stage, &key, revision, previous.as_ref(), false);
        stage.put(Table::Live, &key, version.encode_to_vec());
        stage.put(Table::Value, &versioned_key(&key, revision), value.clone());
        let previous_lease = previous.as_ref().map_or(0, |previous| previous.lease);
        if previous_lease != lease {
            if previous_lease != 0 {
                stage.delete(Table::LeaseKey, &attachment_key(previous_lease, &key));
            }
            if lease != 0 {
                stage.put(Table::LeaseKey, &attachment_key(lease, &key), Bytes::new());
            }
        }
        let kv = read::key_value(key, &version, value);
        self.events.push(etcd::Event { r#type: EventType::Put as i32, kv: Some(kv), prev_kv: previous });
    }

    pub(crate) fn delete(&mut self, stage: &mut Stage<'_>, previous: etcd::KeyValue) {
        let revision = Writer::revision(stage);
        let key = previous.key.clone();
        self.leave_behind(stage, &key, revision, Some(&previous), true);
        stage.delete(Table::Live, &key);
        if previous.lease != 0 {
            stage.delete(Table::LeaseKey, &attachment_key(previous.lease, &key));
        }
        let kv = etcd::KeyValue { key, mod_revision: revision, ..Default::default() };
        self.events.push(etcd::Event { r#type: EventType::Delete as i32, kv: Some(kv), prev_kv: Some(previous) });
    }

    /// Records the change, and the replaced version as past.
    fn leave_behind(&self, stage: &mut Stage<'_>, key: &Bytes, revision: i64, previous: Option<&etcd::KeyValue>, deleted: bool) {
        if let Some(previous) = previous {
            // Invariant: no path changes a key twice in one revision (`check_txn` refuses it).
            debug_assert!(previous.mod_revision < revision);
            let past = KeyVersion {
                create_revision: previous.create_revision,
                mod_revision: previous.mod_revision,
                version: previous.version,
                lease: previous.lease,
                until: revision,
            };
            stage.put(Table::Past, &versioned_key(key, previous.mod_revision), past.encode_to_vec());
        }
        let ordinal = u32::try_from(self.events.len()).unwrap_or(u32::MAX);
        let change = ChangeRecord { key: key.clone(), deleted, previous_revision: previous.map_or(0, |previous| previous.mod_revision) };
        stage.put(Table::Change, &change_key(revision, ordinal), change.encode_to_vec());
    }
}
