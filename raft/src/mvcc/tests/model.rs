//! The naive model: every revision as a whole map, nothing shared, nothing clever, written from etcd's
//! documentation and not from the code it judges.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use trireme_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use trireme_proto::etcd::event::EventType;
use trireme_proto::etcd::request_op::Request;
use trireme_proto::etcd::response_op::Response;
use trireme_proto::etcd::{self, KeyValue, TxnRequest};

pub(super) type Keys = BTreeMap<Bytes, KeyValue>;

/// Why the model refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    Duplicate,
    KeyNotFound,
    LeaseNotFound,
    LeaseExists,
    Future,
    Compacted,
}

#[derive(Clone)]
pub(super) struct Model {
    /// All keys at each revision; revision 1 is the empty start.
    pub(super) revisions: BTreeMap<i64, Keys>,
    pub(super) events: Vec<(i64, etcd::Event)>,
    pub(super) leases: BTreeSet<i64>,
    pub(super) floor: i64,
    holders: BTreeMap<String, i64>,
}

struct Attempt {
    keys: Keys,
    revision: i64,
    events: Vec<etcd::Event>,
}

fn covers(key: &[u8], range_end: &[u8], candidate: &[u8]) -> bool {
    match range_end {
        [] => candidate == key,
        [0] => candidate >= key,
        end => candidate >= key && candidate < end,
    }
}

impl Model {
    pub(super) fn new() -> Model {
        Model {
            revisions: BTreeMap::from([(1, Keys::new())]),
            events: Vec::new(),
            leases: BTreeSet::new(),
            floor: 0,
            holders: BTreeMap::new(),
        }
    }

    pub(super) fn revision(&self) -> i64 {
        *self.revisions.last_key_value().unwrap().0
    }

    fn keys(&self) -> &Keys {
        self.revisions.last_key_value().unwrap().1
    }

    fn attempt(&self) -> Attempt {
        Attempt { keys: self.keys().clone(), revision: self.revision() + 1, events: Vec::new() }
    }

    fn commit(&mut self, attempt: Attempt) {
        if !attempt.events.is_empty() {
            self.revisions.insert(attempt.revision, attempt.keys);
            self.events.extend(attempt.events.into_iter().map(|event| (attempt.revision, event)));
        }
    }

    pub(super) fn txn(&mut self, txn: &TxnRequest) -> Result<etcd::TxnResponse, Refusal> {
        for path in paths(&txn.success).into_iter().chain(paths(&txn.failure)) {
            check_path(&path)?;
        }
        let mut attempt = self.attempt();
        let mut response = self.run(txn, &mut attempt)?;
        self.commit(attempt);
        header(&mut response, self.revision());
        Ok(response)
    }

    fn run(&self, txn: &TxnRequest, attempt: &mut Attempt) -> Result<etcd::TxnResponse, Refusal> {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let mut responses = Vec::new();
        for op in if succeeded { &txn.success } else { &txn.failure } {
            let response = match op.request.as_ref().unwrap() {
                Request::RequestRange(range) => {
                    let keys = match range.revision {
                        0 => &attempt.keys,
                        revision => self.at(revision)?,
                    };
                    Response::ResponseRange(answer(keys, range))
                }
                Request::RequestPut(put) => Response::ResponsePut(self.put(put, attempt)?),
                Request::RequestDeleteRange(delete) => Response::ResponseDeleteRange(remove(delete, attempt)),
                Request::RequestTxn(nested) => Response::ResponseTxn(self.run(nested, attempt)?),
            };
            responses.push(etcd::ResponseOp { response: Some(response) });
        }
        Ok(etcd::TxnResponse { header: None, succeeded, responses })
    }

    fn at(&self, revision: i64) -> Result<&Keys, Refusal> {
        if revision > self.revision() {
            Err(Refusal::Future)
        } else if revision < self.floor {
            Err(Refusal::Compacted)
        } else {
            Ok(&self.revisions[&revision])
        }
    }

    pub(super) fn range(&self, request: &etcd::RangeRequest) -> Result<etcd::RangeResponse, Refusal> {
        let revision = if request.revision == 0 { self.revision() } else { request.revision };
        Ok(answer(self.at(revision)?, request))
    }

    fn put(&self, put: &etcd::PutRequest, attempt: &mut Attempt) -> Result<etcd::PutResponse, Refusal> {
        let previous = attempt.keys.get(&put.key).cloned();
        if previous.is_none() && (put.ignore_value || put.ignore_lease) {
            return Err(Refusal::KeyNotFound);
        }
        let mut kv = previous.clone().unwrap_or(KeyValue { key: put.key.clone(), create_revision: attempt.revision, ..Default::default() });
        kv.mod_revision = attempt.revision;
        kv.version += 1;
        if !put.ignore_value {
            kv.value = put.value.clone();
        }
        if !put.ignore_lease {
            kv.lease = put.lease;
        }
        if kv.lease != 0 && !self.leases.contains(&kv.lease) {
            return Err(Refusal::LeaseNotFound);
        }
        attempt.keys.insert(put.key.clone(), kv.clone());
        attempt.events.push(etcd::Event { r#type: EventType::Put as i32, kv: Some(kv), prev_kv: previous.clone() });
        Ok(etcd::PutResponse { header: None, prev_kv: previous.filter(|_| put.prev_kv) })
    }

    fn holds(&self, compare: &etcd::Compare) -> bool {
        let kvs: Vec<&KeyValue> = self.keys().values().filter(|kv| covers(&compare.key, &compare.range_end, &kv.key)).collect();
        let nothing = KeyValue::default();
        if kvs.is_empty() {
            return compare.target() != CompareTarget::Value && one_holds(compare, &nothing);
        }
        kvs.into_iter().all(|kv| one_holds(compare, kv))
    }

    pub(super) fn grant(&mut self, id: i64) -> Result<(), Refusal> {
        if self.leases.insert(id) { Ok(()) } else { Err(Refusal::LeaseExists) }
    }

    pub(super) fn revoke(&mut self, id: i64) -> Result<(), Refusal> {
        if !self.leases.remove(&id) {
            return Err(Refusal::LeaseNotFound);
        }
        let mut attempt = self.attempt();
        let attached: Vec<Bytes> = attempt.keys.values().filter(|kv| kv.lease == id).map(|kv| kv.key.clone()).collect();
        for key in attached {
            remove(&etcd::DeleteRangeRequest { key, ..Default::default() }, &mut attempt);
        }
        self.commit(attempt);
        Ok(())
    }

    pub(super) fn compact(&mut self, revision: i64) -> Result<(), Refusal> {
        if revision > self.revision() {
            return Err(Refusal::Future);
        }
        if revision <= self.floor {
            return Err(Refusal::Compacted);
        }
        self.holders.insert("policy".into(), revision);
        self.raise();
        Ok(())
    }

    pub(super) fn hold(&mut self, holder: &str, revision: i64) -> Result<(), Refusal> {
        if revision == 0 {
            self.holders.remove(holder);
        } else if revision < self.floor {
            return Err(Refusal::Compacted);
        } else if revision > self.revision() {
            return Err(Refusal::Future);
        } else {
            self.holders.insert(holder.into(), revision);
        }
        self.raise();
        Ok(())
    }

    fn raise(&mut self) {
        if self.holders.contains_key("policy") {
            self.floor = self.floor.max(*self.holders.values().min().unwrap());
        }
    }
}

fn remove(delete: &etcd::DeleteRangeRequest, attempt: &mut Attempt) -> etcd::DeleteRangeResponse {
    let doomed: Vec<KeyValue> = attempt.keys.values().filter(|kv| covers(&delete.key, &delete.range_end, &kv.key)).cloned().collect();
    for kv in &doomed {
        attempt.keys.remove(&kv.key);
        let tombstone = KeyValue { key: kv.key.clone(), mod_revision: attempt.revision, ..Default::default() };
        attempt.events.push(etcd::Event { r#type: EventType::Delete as i32, kv: Some(tombstone), prev_kv: Some(kv.clone()) });
    }
    let deleted = doomed.len() as i64;
    etcd::DeleteRangeResponse { header: None, deleted, prev_kvs: if delete.prev_kv { doomed } else { Vec::new() } }
}

fn one_holds(compare: &etcd::Compare, kv: &KeyValue) -> bool {
    let order = match compare.target_union.clone().unwrap() {
        TargetUnion::Version(wanted) => kv.version.cmp(&wanted),
        TargetUnion::CreateRevision(wanted) => kv.create_revision.cmp(&wanted),
        TargetUnion::ModRevision(wanted) => kv.mod_revision.cmp(&wanted),
        TargetUnion::Lease(wanted) => kv.lease.cmp(&wanted),
        TargetUnion::Value(wanted) => kv.value.cmp(&wanted),
    };
    match compare.result() {
        CompareResult::Equal => order.is_eq(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Less => order.is_lt(),
        CompareResult::Greater => order.is_gt(),
    }
}

fn answer(keys: &Keys, request: &etcd::RangeRequest) -> etcd::RangeResponse {
    let mut kvs: Vec<KeyValue> = keys.values().filter(|kv| covers(&request.key, &request.range_end, &kv.key)).cloned().collect();
    let count = kvs.len() as i64;
    if request.count_only {
        return etcd::RangeResponse { header: None, kvs: Vec::new(), more: false, count };
    }
    kvs.retain(|kv| {
        (request.min_mod_revision == 0 || kv.mod_revision >= request.min_mod_revision)
            && (request.max_mod_revision == 0 || kv.mod_revision <= request.max_mod_revision)
            && (request.min_create_revision == 0 || kv.create_revision >= request.min_create_revision)
            && (request.max_create_revision == 0 || kv.create_revision <= request.max_create_revision)
    });
    match request.sort_target {
        1 => kvs.sort_by_key(|kv| kv.version),
        2 => kvs.sort_by_key(|kv| kv.create_revision),
        3 => kvs.sort_by_key(|kv| kv.mod_revision),
        4 => kvs.sort_by_key(|kv| kv.value.clone()),
        _ => {}
    }
    if request.sort_order == 2 {
        kvs.reverse();
    }
    let mut more = false;
    if request.limit > 0 && kvs.len() > request.limit as usize {
        kvs.truncate(request.limit as usize);
        more = true;
    }
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
    }
    etcd::RangeResponse { header: None, kvs, more, count }
}

enum Write<'a> {
    Put(&'a Bytes),
    Delete(&'a Bytes, &'a Bytes),
}

/// The writes along every path through `ops`, whichever branches nested transactions take.
fn paths(ops: &[etcd::RequestOp]) -> Vec<Vec<Write<'_>>> {
    let mut paths: Vec<Vec<Write<'_>>> = vec![Vec::new()];
    for op in ops {
        let choices = match op.request.as_ref().unwrap() {
            Request::RequestRange(_) => continue,
            Request::RequestPut(put) => vec![vec![Write::Put(&put.key)]],
            Request::RequestDeleteRange(delete) => vec![vec![Write::Delete(&delete.key, &delete.range_end)]],
            Request::RequestTxn(nested) => {
                let mut choices = self::paths(&nested.success);
                choices.extend(self::paths(&nested.failure));
                choices
            }
        };
        paths =
            paths.iter().flat_map(|path| choices.iter().map(move |choice| path.iter().chain(choice).map(Write::again).collect())).collect();
    }
    paths
}

impl<'a> Write<'a> {
    fn again(&self) -> Write<'a> {
        match self {
            Write::Put(key) => Write::Put(key),
            Write::Delete(key, range_end) => Write::Delete(key, range_end),
        }
    }
}

fn check_path(path: &[Write<'_>]) -> Result<(), Refusal> {
    for (place, write) in path.iter().enumerate() {
        let Write::Put(key) = write else { continue };
        let again = path.iter().enumerate().any(|(other, write)| {
            other != place
                && match write {
                    Write::Put(other) => other == key,
                    Write::Delete(start, end) => covers(start, end, key),
                }
        });
        if again {
            return Err(Refusal::Duplicate);
        }
    }
    Ok(())
}

fn header(response: &mut etcd::TxnResponse, revision: i64) {
    let header_of = || Some(etcd::ResponseHeader { revision, ..Default::default() });
    response.header = header_of();
    for op in &mut response.responses {
        match op.response.as_mut().unwrap() {
            Response::ResponseRange(range) => range.header = header_of(),
            Response::ResponsePut(put) => put.header = header_of(),
            Response::ResponseDeleteRange(delete) => delete.header = header_of(),
            Response::ResponseTxn(nested) => header(nested, revision),
        }
    }
}
