//! Transactions: what is refused, what is compared, what is written.
//!
//! Answers to etcd's semantics (<https://etcd.io/docs/v3.6/learning/api/#transaction>): all compares, also
//! those of nested transactions, see the state before the transaction; the operations of the chosen branch
//! run in order and see each other's writes; no path may change a key twice; one revision for all writes.

use std::collections::BTreeSet;

use bytes::Bytes;
use trireme_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use trireme_proto::etcd::request_op::Request;
use trireme_proto::etcd::response_op::Response;
use trireme_proto::etcd::{self, Compare, RequestOp, TxnRequest};
use trireme_proto::store::KeyVersion;

use super::keys::KeyRange;
use super::read;
use super::stage::Stage;
use super::write::Writer;
use crate::StoreError;
use crate::engine::{Read, Table};

/// How deep transactions may nest.
const MAX_DEPTH: usize = 16;

/// Refuses transactions that are invalid in every state. Pure; proposers call it to fail early, apply calls it again.
pub fn check_txn(txn: &TxnRequest) -> Result<(), StoreError> {
    check_ops(txn, 0)?;
    written(&txn.success)?;
    written(&txn.failure)?;
    Ok(())
}

fn invalid<T>(what: &str) -> Result<T, StoreError> {
    Err(StoreError::Invalid(what.to_owned()))
}

fn check_ops(txn: &TxnRequest, depth: usize) -> Result<(), StoreError> {
    if depth > MAX_DEPTH {
        return invalid("transactions nest too deeply");
    }
    for compare in &txn.compare {
        if compare.key.is_empty() {
            return invalid("key is not provided");
        }
        if CompareTarget::try_from(compare.target).is_err() || CompareResult::try_from(compare.result).is_err() {
            return invalid("compare is not known");
        }
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            None => return invalid("operation is not known"),
            Some(Request::RequestRange(range)) => check_range(range)?,
            Some(Request::RequestPut(put)) => check_put(put)?,
            Some(Request::RequestDeleteRange(delete)) if delete.key.is_empty() => return invalid("key is not provided"),
            Some(Request::RequestDeleteRange(_)) => {}
            Some(Request::RequestTxn(nested)) => check_ops(nested, depth + 1)?,
        }
    }
    Ok(())
}

pub(crate) fn check_range(range: &etcd::RangeRequest) -> Result<(), StoreError> {
    if range.key.is_empty() {
        return invalid("key is not provided");
    }
    if etcd::range_request::SortOrder::try_from(range.sort_order).is_err()
        || etcd::range_request::SortTarget::try_from(range.sort_target).is_err()
    {
        return invalid("invalid sort option");
    }
    Ok(())
}

fn check_put(put: &etcd::PutRequest) -> Result<(), StoreError> {
    if put.key.is_empty() {
        return invalid("key is not provided");
    }
    if put.ignore_value && !put.value.is_empty() {
        return invalid("value is provided");
    }
    if put.ignore_lease && put.lease != 0 {
        return invalid("lease is provided");
    }
    Ok(())
}

/// Keys put and ranges deleted by some path through `ops`; an error if a path might change a key twice.
/// Deleting a key twice is no conflict: the second finds nothing.
fn written(ops: &[RequestOp]) -> Result<(BTreeSet<&Bytes>, Vec<KeyRange>), StoreError> {
    let mut puts: BTreeSet<&Bytes> = BTreeSet::new();
    let mut deletes: Vec<KeyRange> = Vec::new();
    for op in ops {
        let (new_puts, new_deletes) = match &op.request {
            Some(Request::RequestPut(put)) => (BTreeSet::from([&put.key]), Vec::new()),
            Some(Request::RequestDeleteRange(delete)) => (BTreeSet::new(), vec![KeyRange::new(&delete.key, &delete.range_end)]),
            Some(Request::RequestTxn(nested)) => {
                // The branches exclude each other, so they may touch the same keys.
                let (mut puts, mut deletes) = written(&nested.success)?;
                let (more_puts, more_deletes) = written(&nested.failure)?;
                puts.extend(more_puts);
                deletes.extend(more_deletes);
                (puts, deletes)
            }
            Some(Request::RequestRange(_)) | None => continue,
        };
        let twice = new_puts.iter().any(|key| puts.contains(*key) || deletes.iter().any(|range| range.contains(key)))
            || new_deletes.iter().any(|range| overlaps(&puts, range));
        if twice {
            return Err(StoreError::DuplicateKey);
        }
        puts.extend(new_puts);
        deletes.extend(new_deletes);
    }
    Ok((puts, deletes))
}

fn overlaps(puts: &BTreeSet<&Bytes>, range: &KeyRange) -> bool {
    !range.is_empty() && puts.range::<&Bytes, _>(&range.start..).next().is_some_and(|key| range.contains(key))
}

/// Which branch each transaction of a tree takes.
struct Choice {
    succeeded: bool,
    /// One for each nested transaction of the branch taken, in order.
    nested: Vec<Choice>,
}

fn choose(read: &dyn Read, txn: &TxnRequest) -> Result<Choice, StoreError> {
    let mut succeeded = true;
    for compare in &txn.compare {
        if !holds(read, compare)? {
            succeeded = false;
            break;
        }
    }
    let nested = branch(txn, succeeded)
        .iter()
        .filter_map(|op| match &op.request {
            Some(Request::RequestTxn(nested)) => Some(choose(read, nested)),
            _ => None,
        })
        .collect::<Result<_, _>>()?;
    Ok(Choice { succeeded, nested })
}

fn branch(txn: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded { &txn.success } else { &txn.failure }
}

fn holds(read: &dyn Read, compare: &Compare) -> Result<bool, StoreError> {
    let range = KeyRange::new(&compare.key, &compare.range_end);
    let mut keys = 0usize;
    let mut all = true;
    let mut values: Vec<(Vec<u8>, KeyVersion)> = Vec::new();
    let by_value = compare.target() == CompareTarget::Value;
    read::scan(read, &range, None, &mut |key, version| {
        keys += 1;
        if by_value {
            values.push((key.to_vec(), version));
        } else {
            all = compare_version(compare, &version);
        }
        Ok(all)
    })?;
    if keys == 0 {
        // A key that does not exist has no value to compare, but zero revisions, version and lease.
        return Ok(!by_value && compare_version(compare, &KeyVersion::default()));
    }
    for (key, version) in values {
        let value = read::value(read, &key, version.mod_revision)?;
        let wanted = match &compare.target_union {
            Some(TargetUnion::Value(wanted)) => wanted.as_ref(),
            _ => &[],
        };
        if !result_is(compare, value.as_ref().cmp(wanted)) {
            return Ok(false);
        }
    }
    Ok(all)
}

fn compare_version(compare: &Compare, version: &KeyVersion) -> bool {
    let (has, wanted) = match compare.target() {
        CompareTarget::Version => (
            version.version,
            match compare.target_union {
                Some(TargetUnion::Version(wanted)) => wanted,
                _ => 0,
            },
        ),
        CompareTarget::Create => (
            version.create_revision,
            match compare.target_union {
                Some(TargetUnion::CreateRevision(wanted)) => wanted,
                _ => 0,
            },
        ),
        CompareTarget::Mod => (
            version.mod_revision,
            match compare.target_union {
                Some(TargetUnion::ModRevision(wanted)) => wanted,
                _ => 0,
            },
        ),
        CompareTarget::Lease => (
            version.lease,
            match compare.target_union {
                Some(TargetUnion::Lease(wanted)) => wanted,
                _ => 0,
            },
        ),
        CompareTarget::Value => return false,
    };
    result_is(compare, has.cmp(&wanted))
}

fn result_is(compare: &Compare, order: std::cmp::Ordering) -> bool {
    match compare.result() {
        CompareResult::Equal => order.is_eq(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
    }
}

/// Runs `txn`. On an error the caller rolls the stage back.
pub(crate) fn run(stage: &mut Stage<'_>, writer: &mut Writer, txn: &TxnRequest) -> Result<etcd::TxnResponse, StoreError> {
    check_txn(txn)?;
    let choice = choose(stage, txn)?;
    let mut response = run_branch(stage, writer, txn, &choice)?;
    let revision = writer.revision_after(stage);
    set_headers(&mut response, revision);
    Ok(response)
}

fn run_branch(stage: &mut Stage<'_>, writer: &mut Writer, txn: &TxnRequest, choice: &Choice) -> Result<etcd::TxnResponse, StoreError> {
    let mut nested = choice.nested.iter();
    let mut responses = Vec::new();
    for op in branch(txn, choice.succeeded) {
        let response = match &op.request {
            Some(Request::RequestRange(range)) => Response::ResponseRange(read::range_in_txn(stage, &stage.head, range)?),
            Some(Request::RequestPut(put)) => Response::ResponsePut(run_put(stage, writer, put)?),
            Some(Request::RequestDeleteRange(delete)) => Response::ResponseDeleteRange(run_delete(stage, writer, delete)?),
            Some(Request::RequestTxn(txn)) => {
                let choice = nested.next().ok_or_else(|| StoreError::Invalid("nested transaction without a choice".into()))?;
                Response::ResponseTxn(run_branch(stage, writer, txn, choice)?)
            }
            None => return invalid("operation is not known"),
        };
        responses.push(etcd::ResponseOp { response: Some(response) });
    }
    Ok(etcd::TxnResponse { header: None, succeeded: choice.succeeded, responses })
}

fn run_put(stage: &mut Stage<'_>, writer: &mut Writer, put: &etcd::PutRequest) -> Result<etcd::PutResponse, StoreError> {
    let previous = stage.current(&put.key)?;
    if previous.is_none() && (put.ignore_value || put.ignore_lease) {
        return Err(StoreError::KeyNotFound);
    }
    let value = match &previous {
        Some(previous) if put.ignore_value => previous.value.clone(),
        // A copy: the command's bytes may be a slice of a whole network frame, which events would keep alive.
        _ => Bytes::copy_from_slice(&put.value),
    };
    let lease = match &previous {
        Some(previous) if put.ignore_lease => previous.lease,
        _ => put.lease,
    };
    if lease != 0 && stage.get(Table::Lease, &super::keys::lease_key(lease))?.is_none() {
        return Err(StoreError::LeaseNotFound(lease));
    }
    writer.put(stage, Bytes::copy_from_slice(&put.key), value, lease, previous.clone());
    Ok(etcd::PutResponse { header: None, prev_kv: previous.filter(|_| put.prev_kv) })
}

fn run_delete(
    stage: &mut Stage<'_>,
    writer: &mut Writer,
    delete: &etcd::DeleteRangeRequest,
) -> Result<etcd::DeleteRangeResponse, StoreError> {
    let mut keys: Vec<Bytes> = Vec::new();
    read::scan(stage, &KeyRange::new(&delete.key, &delete.range_end), None, &mut |key, _| {
        keys.push(Bytes::copy_from_slice(key));
        Ok(true)
    })?;
    let mut response = etcd::DeleteRangeResponse::default();
    for key in keys {
        let Some(previous) = stage.current(&key)? else { continue };
        response.deleted += 1;
        if delete.prev_kv {
            response.prev_kvs.push(previous.clone());
        }
        writer.delete(stage, previous);
    }
    Ok(response)
}

fn set_headers(response: &mut etcd::TxnResponse, revision: i64) {
    let header = || Some(etcd::ResponseHeader { revision, ..Default::default() });
    response.header = header();
    for op in &mut response.responses {
        match &mut op.response {
            Some(Response::ResponseRange(range)) => range.header = header(),
            Some(Response::ResponsePut(put)) => put.header = header(),
            Some(Response::ResponseDeleteRange(delete)) => delete.header = header(),
            Some(Response::ResponseTxn(nested)) => set_headers(nested, revision),
            None => {}
        }
    }
}
