//! Makes allocation keys and Services agree: keys that no Service holds are freed, what Services hold without a key is taken.
//!
//! Each correction is one transaction on the condition that key and Service are still what was read, so a Service that is being
//! written loses nothing. Answers to upstream's `pkg/registry/core/service/{ipallocator,portallocator}/controller`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use trireme_api::meta;
use trireme_proto::etcd;
use trireme_raft::{Fence, StoreError};

use super::held_keys;
use crate::storage::Storage;
use crate::storage::keys;
use crate::storage::lookup::ObjectReader;

/// Upstream's interval.
const INTERVAL: Duration = Duration::from_secs(3 * 60);
const SERVICES: (&str, &str) = ("", "services");

/// What one round corrected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Keys that no Service held.
    pub freed: usize,
    /// Addresses and ports that were held without a key.
    pub taken: usize,
    /// Addresses and ports that more than one Service holds. Only a person can decide whose they are.
    pub conflicts: usize,
}

/// Repairs at once and then periodically, while this server leads.
pub async fn run(storage: Arc<Storage>, fence: Fence, stop: CancellationToken) {
    loop {
        match once(&storage, Some(fence)).await {
            Ok(repaired) if repaired == Repaired::default() => {}
            Ok(repaired) => tracing::warn!(
                freed = repaired.freed,
                taken = repaired.taken,
                conflicts = repaired.conflicts,
                "allocations of Services were repaired"
            ),
            Err(error) => tracing::debug!(%error, "allocations of Services are not checked yet"),
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// One round.
///
/// # Errors
/// The store's refusal.
pub async fn once(storage: &Storage, fence: Option<Fence>) -> Result<Repaired, StoreError> {
    if !storage.refresh_all().await {
        return Err(StoreError::Unavailable("the watch cache is behind".to_owned()));
    }
    let allocations = storage.range(keys::ALLOCATIONS)?;
    let mut repaired = Repaired::default();
    let mut holders: HashMap<String, (String, i64)> = HashMap::new();
    let mut services: HashMap<String, i64> = HashMap::new();
    for service in storage.list(SERVICES.0, SERVICES.1, None) {
        let owner = format!("{}/{}", meta::namespace(&service.object), meta::name(&service.object));
        for key in held_keys(&service.object) {
            match holders.entry(key) {
                Entry::Occupied(held) => {
                    repaired.conflicts += 1;
                    let key = held.key();
                    tracing::warn!(key, service = owner, "an address or node port is held by two Services: recreate one of them");
                }
                Entry::Vacant(free) => {
                    free.insert((owner.clone(), service.mod_revision));
                }
            }
        }
        services.insert(owner, service.mod_revision);
    }
    for allocation in allocations {
        let key = String::from_utf8_lossy(&allocation.key).into_owned();
        let owner = String::from_utf8_lossy(&allocation.value).into_owned();
        match holders.remove(&key) {
            Some((holder, _)) if holder == owner => {}
            // The key names another Service than its holder, or has none: it is deleted here and, for a holder, written again below.
            _ => {
                let owner_revision = services.get(&owner).copied().unwrap_or(0);
                let conditions =
                    vec![keys::unchanged(&key, allocation.mod_revision), keys::unchanged(&service_key(&owner), owner_revision)];
                if correct(storage, conditions, keys::delete(&key), fence).await? {
                    tracing::warn!(key, owner, "an address or node port that no Service holds is freed");
                    repaired.freed += 1;
                }
            }
        }
    }
    for (key, (owner, revision)) in holders {
        let conditions = vec![keys::unchanged(&key, 0), keys::unchanged(&service_key(&owner), revision)];
        if correct(storage, conditions, keys::put(&key, owner, 0), fence).await? {
            repaired.taken += 1;
        }
    }
    Ok(repaired)
}

fn service_key(owner: &str) -> String {
    let (namespace, name) = owner.split_once('/').unwrap_or_default();
    keys::object_key(SERVICES.0, SERVICES.1, namespace, name)
}

/// False if something has changed meanwhile: the next round looks again.
async fn correct(
    storage: &Storage,
    compare: Vec<etcd::Compare>,
    operation: etcd::RequestOp,
    fence: Option<Fence>,
) -> Result<bool, StoreError> {
    let txn = etcd::TxnRequest { compare, success: vec![operation], failure: Vec::new() };
    Ok(storage.store.txn(txn, fence).await?.succeeded)
}
