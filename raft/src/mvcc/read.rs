//! Reading keys as they were at a revision. Pure over [`Read`]; the same code serves local reads, the reads
//! of a transaction and compares.

use bytes::Bytes;
use prost::Message as _;
use trireme_proto::etcd;
use trireme_proto::etcd::range_request::{SortOrder, SortTarget};
use trireme_proto::store::{KeyVersion, StateHead};

use super::keys::{KeyRange, parse_versioned_key, versioned_end, versioned_key};
use crate::StoreError;
use crate::engine::{Cursor, Read, Table};

/// How many steps a cursor takes before it seeks: most keys have few versions, next to each other.
const STEPS_BEFORE_SEEK: usize = 4;

pub(crate) fn decode<M: prost::Message + Default>(what: &str, bytes: &[u8]) -> Result<M, StoreError> {
    M::decode(bytes).map_err(|error| StoreError::Corrupt(format!("{what}: {error}")))
}

/// The head of the state; of an empty engine the one to start with.
pub(crate) fn head(read: &dyn Read) -> Result<Option<StateHead>, StoreError> {
    match read.get(Table::Head, &[])? {
        Some(bytes) => Ok(Some(StateHead::decode(bytes).map_err(|error| StoreError::Corrupt(format!("head: {error}")))?)),
        None => Ok(None),
    }
}

/// The current version of `key`.
pub(crate) fn live(read: &dyn Read, key: &[u8]) -> Result<Option<KeyVersion>, StoreError> {
    read.get(Table::Live, key)?.map(|bytes| decode("live version", &bytes)).transpose()
}

/// The value of `key` as of the version written at `mod_revision`.
pub(crate) fn value(read: &dyn Read, key: &[u8], mod_revision: i64) -> Result<Bytes, StoreError> {
    read.get(Table::Value, &versioned_key(key, mod_revision))?.ok_or_else(|| missing_value(key, mod_revision))
}

fn missing_value(key: &[u8], mod_revision: i64) -> StoreError {
    StoreError::Corrupt(format!("value of key {} at revision {mod_revision} is missing", String::from_utf8_lossy(key)))
}

/// The whole record of a version.
pub(crate) fn key_value(key: Bytes, version: &KeyVersion, value: Bytes) -> etcd::KeyValue {
    etcd::KeyValue {
        key,
        create_revision: version.create_revision,
        mod_revision: version.mod_revision,
        version: version.version,
        value,
        lease: version.lease,
    }
}

/// The version of `key` written exactly at `mod_revision`, with its value; none if it was compacted.
pub(crate) fn written_at(read: &dyn Read, key: &Bytes, mod_revision: i64) -> Result<Option<etcd::KeyValue>, StoreError> {
    let version = match live(read, key)? {
        Some(version) if version.mod_revision == mod_revision => version,
        _ => match read.get(Table::Past, &versioned_key(key, mod_revision))? {
            Some(bytes) => decode("past version", &bytes)?,
            None => return Ok(None),
        },
    };
    Ok(Some(key_value(key.clone(), &version, value(read, key, mod_revision)?)))
}

/// What a scan calls for each key; false ends it.
type Visit<'a> = &'a mut dyn FnMut(&[u8], KeyVersion) -> Result<bool, StoreError>;

/// Calls `visit` with each key of `range` and its version at revision `at` (`None`: the current one), in key
/// order, until it returns false.
pub(crate) fn scan(read: &dyn Read, range: &KeyRange, at: Option<i64>, visit: Visit<'_>) -> Result<(), StoreError> {
    if range.is_empty() {
        return Ok(());
    }
    if let Some(key) = range.single() {
        if let Some(version) = version_at(read, key, at)? {
            visit(key, version)?;
        }
        return Ok(());
    }
    let mut live = read.cursor(Table::Live, &range.start, range.end.as_deref())?;
    let Some(at) = at else {
        while let Some((key, version)) = live.entry() {
            if !visit(key, decode("live version", version)?)? {
                break;
            }
            live.advance()?;
        }
        return Ok(());
    };
    let (start, end) = range.versioned();
    let mut past = read.cursor(Table::Past, &start, end.as_deref())?;
    loop {
        let past_key = past.entry().map(|(key, _)| parse_versioned_key(key)).transpose()?.map(|(key, _)| key);
        let live_first = match (live.entry(), &past_key) {
            (None, None) => return Ok(()),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some((live_key, _)), Some(past_key)) => live_key <= past_key.as_slice(),
        };
        let key = match (live.entry(), past_key.clone()) {
            (Some((live_key, _)), _) if live_first => live_key.to_vec(),
            (_, Some(past_key)) => past_key,
            _ => return Ok(()),
        };
        let mut found = None;
        if live_first {
            if let Some((_, version)) = live.entry() {
                let version: KeyVersion = decode("live version", version)?;
                found = (version.mod_revision <= at).then_some(version);
            }
            live.advance()?;
        }
        if past_key.as_ref() == Some(&key) {
            if found.is_none() {
                found = past_version(past.as_mut(), &key, at)?;
            }
            leave_key(past.as_mut(), &key)?;
        }
        if let Some(version) = found
            && !visit(&key, version)?
        {
            return Ok(());
        }
    }
}

/// The version of one key at `at`, without a scan.
fn version_at(read: &dyn Read, key: &[u8], at: Option<i64>) -> Result<Option<KeyVersion>, StoreError> {
    let version = live(read, key)?;
    match (at, version) {
        (None, version) => Ok(version),
        (Some(at), Some(version)) if version.mod_revision <= at => Ok(Some(version)),
        (Some(at), _) => {
            let mut past = read.cursor(Table::Past, &versioned_key(key, at), Some(&versioned_end(key)))?;
            past_version(past.as_mut(), key, at)
        }
    }
}

/// The past version of `key` that was valid at `at`. `past` stands at or before it.
fn past_version(past: &mut dyn Cursor, key: &[u8], at: i64) -> Result<Option<KeyVersion>, StoreError> {
    step_to(past, &versioned_key(key, at))?;
    let Some((found, version)) = past.entry() else { return Ok(None) };
    if parse_versioned_key(found)?.0 != key {
        return Ok(None);
    }
    let version: KeyVersion = decode("past version", version)?;
    Ok((version.until > at).then_some(version))
}

fn leave_key(past: &mut dyn Cursor, key: &[u8]) -> Result<(), StoreError> {
    step_to(past, &versioned_end(key))
}

/// To the first entry at or after `target`, by steps while that is cheap.
fn step_to(cursor: &mut dyn Cursor, target: &[u8]) -> Result<(), StoreError> {
    for _ in 0..STEPS_BEFORE_SEEK {
        match cursor.entry() {
            Some((key, _)) if key < target => cursor.advance()?,
            _ => return Ok(()),
        }
    }
    match cursor.entry() {
        Some((key, _)) if key < target => cursor.seek(target),
        _ => Ok(()),
    }
}

/// The revision a request reads at: `None` for the current one.
fn read_revision(head: &StateHead, requested: i64) -> Result<Option<i64>, StoreError> {
    if requested <= 0 || requested == head.revision {
        return Ok(None);
    }
    if requested > head.revision {
        return Err(StoreError::FutureRevision { requested, current: head.revision });
    }
    if requested < head.compact_revision {
        return Err(StoreError::Compacted { compact_revision: head.compact_revision });
    }
    Ok(Some(requested))
}

/// Whether a request is for the current record of one key, and for nothing else about it.
pub(crate) fn asks_for_one_record(request: &etcd::RangeRequest) -> bool {
    let bounds = [request.min_mod_revision, request.max_mod_revision, request.min_create_revision, request.max_create_revision];
    request.range_end.is_empty()
        && request.revision <= 0
        && !request.keys_only
        && !request.count_only
        && bounds.iter().all(|bound| *bound <= 0)
}

/// Answers a transaction's range request. `head` is the head that `read` shows, before the transaction's own writes.
pub(crate) fn range_in_txn(read: &dyn Read, head: &StateHead, request: &etcd::RangeRequest) -> Result<etcd::RangeResponse, StoreError> {
    read_revision(head, request.revision)?;
    // The transaction's own writes are newer than the head.
    let at = (request.revision > 0).then_some(request.revision);
    range_at(read, &[KeyRange::new(&request.key, &request.range_end)], at, request)
}

/// Answers a range request as if the keys of `hidden` did not exist.
pub(crate) fn range_outside(
    read: &dyn Read,
    head: &StateHead,
    request: &etcd::RangeRequest,
    hidden: &[(Bytes, Bytes)],
) -> Result<etcd::RangeResponse, StoreError> {
    let at = read_revision(head, request.revision)?;
    range_at(read, &KeyRange::new(&request.key, &request.range_end).outside(hidden), at, request)
}

/// Answers from `ranges`, which are in order and apart from each other.
fn range_at(
    read: &dyn Read,
    ranges: &[KeyRange],
    at: Option<i64>,
    request: &etcd::RangeRequest,
) -> Result<etcd::RangeResponse, StoreError> {
    let sort = sorting(request);
    let filtered =
        request.min_mod_revision > 0 || request.max_mod_revision > 0 || request.min_create_revision > 0 || request.max_create_revision > 0;
    let limit = usize::try_from(request.limit).ok().filter(|&limit| limit > 0).unwrap_or(usize::MAX);
    // Sorting by something else than the key needs them all.
    let take = if request.count_only {
        0
    } else if sort.is_some() {
        usize::MAX
    } else {
        limit
    };
    let mut count = 0i64;
    let mut matching = 0usize;
    let mut versions: Vec<(Bytes, KeyVersion)> = Vec::new();
    for range in ranges {
        scan(read, range, at, &mut |key, version| {
            count += 1;
            if !filtered || passes(request, &version) {
                matching += 1;
                if versions.len() < take {
                    versions.push((Bytes::copy_from_slice(key), version));
                }
            }
            Ok(true)
        })?;
    }
    let mut response = etcd::RangeResponse { header: None, kvs: Vec::new(), more: false, count };
    if request.count_only {
        return Ok(response);
    }
    response.more = matching > limit;
    let by_value = matches!(sort, Some((SortTarget::Value, _)));
    if let Some((target, order)) = sort
        && !by_value
    {
        sort_versions(&mut versions, target, order);
        versions.truncate(limit);
    }
    response.kvs = if request.keys_only && !by_value {
        versions.into_iter().map(|(key, version)| key_value(key, &version, Bytes::new())).collect()
    } else {
        with_values(read, versions)?
    };
    if let Some((SortTarget::Value, order)) = sort {
        response.kvs.sort_by(|a, b| a.value.cmp(&b.value));
        if order == SortOrder::Descend {
            response.kvs.reverse();
        }
        response.kvs.truncate(limit);
        if request.keys_only {
            for kv in &mut response.kvs {
                kv.value = Bytes::new();
            }
        }
    }
    Ok(response)
}

/// Reads values of keys in ascending order with one cursor.
pub(crate) struct Values<'a> {
    cursor: Box<dyn Cursor + 'a>,
}

impl<'a> Values<'a> {
    pub(crate) fn new(read: &'a dyn Read) -> Result<Values<'a>, StoreError> {
        Ok(Values { cursor: read.cursor(Table::Value, &[], None)? })
    }

    /// The value of `key` as of `mod_revision`; `key` must be after the one asked for before.
    pub(crate) fn of(&mut self, key: &[u8], mod_revision: i64) -> Result<Bytes, StoreError> {
        let target = versioned_key(key, mod_revision);
        step_to(self.cursor.as_mut(), &target)?;
        match self.cursor.entry() {
            Some((found, value)) if found == target => Ok(Bytes::copy_from_slice(value)),
            _ => Err(missing_value(key, mod_revision)),
        }
    }
}

/// Loads the values of `versions`, which are sorted by key or nearly so, with one cursor.
fn with_values(read: &dyn Read, versions: Vec<(Bytes, KeyVersion)>) -> Result<Vec<etcd::KeyValue>, StoreError> {
    if versions.len() <= 2 || !versions.is_sorted_by(|(a, _), (b, _)| a < b) {
        return versions
            .into_iter()
            .map(|(key, version)| {
                let value = value(read, &key, version.mod_revision)?;
                Ok(key_value(key, &version, value))
            })
            .collect();
    }
    let mut kvs = Vec::with_capacity(versions.len());
    let (first_key, first_version) = &versions[0];
    let mut cursor = read.cursor(Table::Value, &versioned_key(first_key, first_version.mod_revision), None)?;
    for (key, version) in versions {
        let target = versioned_key(&key, version.mod_revision);
        step_to(cursor.as_mut(), &target)?;
        let value = match cursor.entry() {
            Some((found, value)) if found == target => Bytes::copy_from_slice(value),
            _ => return Err(missing_value(&key, version.mod_revision)),
        };
        kvs.push(key_value(key, &version, value));
    }
    Ok(kvs)
}

fn passes(request: &etcd::RangeRequest, version: &KeyVersion) -> bool {
    let within = |value: i64, min: i64, max: i64| (min <= 0 || value >= min) && (max <= 0 || value <= max);
    within(version.mod_revision, request.min_mod_revision, request.max_mod_revision)
        && within(version.create_revision, request.min_create_revision, request.max_create_revision)
}

/// How to sort; none where key order is asked for already.
fn sorting(request: &etcd::RangeRequest) -> Option<(SortTarget, SortOrder)> {
    let target = SortTarget::try_from(request.sort_target).unwrap_or(SortTarget::Key);
    let order = SortOrder::try_from(request.sort_order).unwrap_or(SortOrder::None);
    match (target, order) {
        (SortTarget::Key, SortOrder::None | SortOrder::Ascend) => None,
        // As etcd does: another target than the key implies an order.
        (target, SortOrder::None) => Some((target, SortOrder::Ascend)),
        (target, order) => Some((target, order)),
    }
}

fn sort_versions(versions: &mut [(Bytes, KeyVersion)], target: SortTarget, order: SortOrder) {
    match target {
        SortTarget::Key | SortTarget::Value => {}
        SortTarget::Version => versions.sort_by_key(|(_, version)| version.version),
        SortTarget::Create => versions.sort_by_key(|(_, version)| version.create_revision),
        SortTarget::Mod => versions.sort_by_key(|(_, version)| version.mod_revision),
    }
    if order == SortOrder::Descend {
        versions.reverse();
    }
}
