//! The state as logical records, for backups: out of a view, and into an empty engine.
//!
//! Owns what of the state outlives a cluster: live keys with their values and revisions, leases, sealed keys, and the
//! head's counters. History, members, holders and remembered proposals belong to the cluster and stay behind.

use bytes::Bytes;
use prost::Message as _;
use trireme_proto::etcd;
use trireme_proto::store::{
    BackupHeader, BackupRecord, KeyVersion, LeaseRecord, SealedEntry, SealedRecord, StateHead, backup_record::Record,
};

use super::keys::{attachment_key, lease_key, versioned_key};
use super::{new_head, put_head, read};
use crate::StoreError;
use crate::engine::{Read, Table, WriteBatch};

/// Where the state stands.
pub(crate) fn head(view: &dyn Read) -> Result<StateHead, StoreError> {
    Ok(read::head(view)?.unwrap_or_else(new_head))
}

/// The sealed keys.
pub(crate) fn sealed(view: &dyn Read) -> Result<Vec<SealedEntry>, StoreError> {
    let mut entries = Vec::new();
    let mut cursor = view.cursor(Table::Sealed, &[], None)?;
    while let Some((name, record)) = cursor.entry() {
        let name = String::from_utf8_lossy(name).into_owned();
        entries.push(SealedEntry { name, record: Some(read::decode::<SealedRecord>("sealed key", record)?) });
        cursor.advance()?;
    }
    Ok(entries)
}

/// Calls `visit` with each record, always in the same order, until it returns false. Returns whether all were visited.
pub(crate) fn each(view: &dyn Read, visit: &mut dyn FnMut(BackupRecord) -> Result<bool, StoreError>) -> Result<bool, StoreError> {
    let record = |record: Record| BackupRecord { record: Some(record) };
    for entry in sealed(view)? {
        if !visit(record(Record::Sealed(entry)))? {
            return Ok(false);
        }
    }
    let mut leases = view.cursor(Table::Lease, &[], None)?;
    while let Some((_, lease)) = leases.entry() {
        if !visit(record(Record::Lease(read::decode::<LeaseRecord>("lease", lease)?)))? {
            return Ok(false);
        }
        leases.advance()?;
    }
    let mut live = view.cursor(Table::Live, &[], None)?;
    let mut values = read::Values::new(view)?;
    while let Some((key, version)) = live.entry() {
        let key = Bytes::copy_from_slice(key);
        let version: KeyVersion = read::decode("live version", version)?;
        let value = values.of(&key, version.mod_revision)?;
        if !visit(record(Record::Key(read::key_value(key, &version, value))))? {
            return Ok(false);
        }
        live.advance()?;
    }
    Ok(true)
}

/// The writes that bring one record back.
pub(crate) fn put(batch: &mut WriteBatch, record: BackupRecord) -> Result<(), StoreError> {
    match record.record {
        Some(Record::Key(kv)) => put_key(batch, kv),
        Some(Record::Lease(lease)) => batch.put(Table::Lease, &lease_key(lease.id), lease.encode_to_vec()),
        Some(Record::Sealed(SealedEntry { name, record })) => {
            batch.put(Table::Sealed, name.as_bytes(), record.unwrap_or_default().encode_to_vec());
        }
        None => return Err(StoreError::Corrupt("a record of a kind that this release does not know".into())),
    }
    Ok(())
}

fn put_key(batch: &mut WriteBatch, kv: etcd::KeyValue) {
    let version =
        KeyVersion { create_revision: kv.create_revision, mod_revision: kv.mod_revision, version: kv.version, lease: kv.lease, until: 0 };
    batch.put(Table::Live, &kv.key, version.encode_to_vec());
    batch.put(Table::Value, &versioned_key(&kv.key, kv.mod_revision), kv.value);
    if kv.lease != 0 {
        batch.put(Table::LeaseKey, &attachment_key(kv.lease, &kv.key), Bytes::new());
    }
}

/// The head of a state of these records, before [`super::reset_state`] makes a new cluster of it.
pub(crate) fn put_head_of(batch: &mut WriteBatch, header: &BackupHeader) {
    let head = StateHead {
        revision: header.revision,
        // There is no history.
        compact_revision: header.revision,
        compacted_to: header.revision,
        last_applied: header.applied,
        feature_level: header.feature_level,
        cluster_id: header.cluster_id,
        next_member_id: header.next_member_id,
        next_lease_generation: header.next_lease_generation,
        epoch: header.epoch,
        ..new_head()
    };
    put_head(batch, &head);
}
