//! The cluster's own records: members, feature level, cluster id, sealed keys.
//!
//! Member ids come from the log and are never reused: the counter only grows. The voters are in
//! openraft's membership; these records describe the members.

use prost::Message as _;
use trireme_proto::store::{
    ClusterInitCommand, FEATURE_LEVEL, FeatureLevelCommand, MemberAllocateCommand, MemberRecord, MemberRemoveCommand, MemberUpdateCommand,
    SealedDeleteCommand, SealedPutCommand, SealedRecord, SealedResult,
};

use super::stage::Stage;
use super::{EntryId, read};
use crate::StoreError;
use crate::engine::{Read, Table};

/// The most members a cluster may have had records for at one time.
const MAX_MEMBERS: usize = 64;

fn invalid(what: &str) -> StoreError {
    StoreError::Invalid(what.to_owned())
}

pub(crate) fn all(read: &dyn Read) -> Result<Vec<MemberRecord>, StoreError> {
    let mut members = Vec::new();
    let mut cursor = read.cursor(Table::Member, &[], None)?;
    while let Some((_, record)) = cursor.entry() {
        members.push(read::decode("member", record)?);
        cursor.advance()?;
    }
    Ok(members)
}

/// Whether a member had this id and has it no more. Ids come from a counter that only grows, so what lies below it and is not
/// recorded is gone for good; a replica that lags may not know of an id yet, but never takes a member for a removed one.
pub(crate) fn had(read: &dyn Read, next_member_id: u64, id: u64) -> Result<bool, StoreError> {
    Ok(id != 0 && id < next_member_id && read.get(Table::Member, &id.to_be_bytes())?.is_none())
}

fn store(stage: &mut Stage<'_>, member: &MemberRecord) {
    stage.put(Table::Member, &member.id.to_be_bytes(), member.encode_to_vec());
}

/// Refuses a record whose key or name belongs to another member.
fn check_unique(members: &[MemberRecord], record: &MemberRecord) -> Result<(), StoreError> {
    for member in members.iter().filter(|member| member.id != record.id) {
        if member.spki == record.spki {
            return Err(StoreError::Conflict(format!("member {} has this key already", member.id)));
        }
        if member.name == record.name {
            return Err(StoreError::Conflict(format!("member {} is named {:?} already", member.id, member.name)));
        }
    }
    Ok(())
}

/// Refuses a member that could not apply what the cluster may write.
fn check_level(stage: &Stage<'_>, record: &MemberRecord) -> Result<(), StoreError> {
    if record.feature_level < stage.head.feature_level {
        return Err(StoreError::Invalid(format!(
            "the cluster is at feature level {}, member {:?} only knows {}",
            stage.head.feature_level, record.name, record.feature_level
        )));
    }
    Ok(())
}

/// Allocates a member's id. A repeated request with the same key and name gets the same id.
pub(crate) fn allocate(stage: &mut Stage<'_>, command: &MemberAllocateCommand) -> Result<MemberRecord, StoreError> {
    let mut record = command.record.clone().ok_or_else(|| invalid("member record is not provided"))?;
    if record.id != 0 {
        return Err(invalid("a member's id is allocated, not chosen"));
    }
    if record.spki.is_empty() || record.name.is_empty() {
        return Err(invalid("a member needs a key and a name"));
    }
    let members = all(stage)?;
    if let Some(member) = members.iter().find(|member| member.spki == record.spki && member.name == record.name) {
        return Ok(member.clone());
    }
    check_unique(&members, &record)?;
    check_level(stage, &record)?;
    if members.len() >= MAX_MEMBERS {
        return Err(StoreError::Invalid(format!("there are {MAX_MEMBERS} members already")));
    }
    record.id = stage.head.next_member_id.max(1);
    stage.head.next_member_id = record.id + 1;
    record.revision = stage.head.revision;
    store(stage, &record);
    Ok(record)
}

pub(crate) fn update(stage: &mut Stage<'_>, command: &MemberUpdateCommand) -> Result<MemberRecord, StoreError> {
    let mut record = command.record.clone().ok_or_else(|| invalid("member record is not provided"))?;
    let members = all(stage)?;
    if !members.iter().any(|member| member.id == record.id) {
        return Err(StoreError::Invalid(format!("member {} not found", record.id)));
    }
    check_unique(&members, &record)?;
    check_level(stage, &record)?;
    record.revision = stage.head.revision;
    store(stage, &record);
    Ok(record)
}

pub(crate) fn remove(stage: &mut Stage<'_>, command: &MemberRemoveCommand) -> Result<(), StoreError> {
    let key = command.id.to_be_bytes();
    if stage.get(Table::Member, &key)?.is_none() {
        return Err(StoreError::Invalid(format!("member {} not found", command.id)));
    }
    stage.delete(Table::Member, &key);
    Ok(())
}

/// Lets commands of `level` into the log, once every member knows them.
pub(crate) fn raise_feature_level(stage: &mut Stage<'_>, command: &FeatureLevelCommand, id: EntryId) -> Result<(), StoreError> {
    if command.level < stage.head.feature_level {
        return Err(StoreError::Invalid(format!("the cluster is at feature level {} already", stage.head.feature_level)));
    }
    if let Some(behind) = all(stage)?.iter().find(|member| member.feature_level < command.level) {
        return Err(StoreError::Invalid(format!("member {} only knows feature level {}", behind.id, behind.feature_level)));
    }
    if command.level > FEATURE_LEVEL {
        return Err(StoreError::Corrupt(format!(
            "entry {}: feature level {} is newer than this release ({FEATURE_LEVEL})",
            id.index, command.level
        )));
    }
    stage.head.feature_level = command.level;
    Ok(())
}

pub(crate) fn sealed(read: &dyn Read, name: &str) -> Result<Option<SealedRecord>, StoreError> {
    read.get(Table::Sealed, name.as_bytes())?.map(|bytes| read::decode("sealed key", &bytes)).transpose()
}

fn expect_version(read: &dyn Read, name: &str, if_version: u64) -> Result<(), StoreError> {
    let version = sealed(read, name)?.map_or(0, |record| record.version);
    if version == if_version {
        Ok(())
    } else {
        Err(StoreError::Conflict(format!("sealed key {name:?} is at version {version}, not {if_version}")))
    }
}

pub(crate) fn sealed_put(stage: &mut Stage<'_>, command: &SealedPutCommand) -> Result<SealedResult, StoreError> {
    if command.name.is_empty() || command.key.is_none() {
        return Err(invalid("a sealed key needs a name and a content"));
    }
    expect_version(stage, &command.name, command.if_version)?;
    let version = command.if_version + 1;
    let record = SealedRecord { version, key: command.key.clone() };
    stage.put(Table::Sealed, command.name.as_bytes(), record.encode_to_vec());
    Ok(SealedResult { version })
}

pub(crate) fn sealed_delete(stage: &mut Stage<'_>, command: &SealedDeleteCommand) -> Result<(), StoreError> {
    expect_version(stage, &command.name, command.if_version)?;
    stage.delete(Table::Sealed, command.name.as_bytes());
    Ok(())
}

/// Names the cluster, once.
pub(crate) fn cluster_init(stage: &mut Stage<'_>, command: &ClusterInitCommand) -> Result<(), StoreError> {
    if command.cluster_id == 0 {
        return Err(invalid("cluster id is not provided"));
    }
    if stage.head.cluster_id != 0 && stage.head.cluster_id != command.cluster_id {
        return Err(StoreError::Conflict(format!("this is cluster {:016x}", stage.head.cluster_id)));
    }
    stage.head.cluster_id = command.cluster_id;
    Ok(())
}
