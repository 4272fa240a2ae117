//! A node's name belongs to the machine that took it first.
//!
//! Each node generates a secret at its first join. Its hash is stored beside the objects; later joins under
//! that name must present the secret. A name becomes free again when its Node object is gone (an administrator
//! deleted it) and the claim is not recent.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use trireme_api::{gvk::GroupResource, status::Status};
use trireme_proto::etcd;
use trireme_raft::Store;

use crate::tokens::constant_time_eq;
use trireme_apiserver::storage::keys;
use trireme_apiserver::storage::lookup::ObjectReader;
use trireme_apiserver::{Answer, store_status};

const PREFIX: &str = "/registry-join/node/";
/// A node registers within this time of its join; until then its name is its own.
const FRESH_SECS: i64 = 600;
/// Shorter secrets could be guessed from their hash.
const SECRET_LEN_MIN: usize = 16;

/// The claims on node names.
pub struct NodeSecrets {
    store: Store,
    reader: Arc<dyn ObjectReader>,
}

/// One claim as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Claim {
    /// SHA-256 of the secret, hex.
    hash: String,
    /// When it was made, seconds since the epoch.
    at: i64,
}

/// What is to be done with a claim on a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The machine that took the name: nothing to write.
    Known,
    /// The name is free: write the claim.
    Free,
    /// Another machine has the name.
    Taken,
}

fn judge(existing: Option<&Claim>, hash: &str, node_exists: bool, now: Timestamp) -> Verdict {
    match existing {
        None => Verdict::Free,
        Some(claim) if constant_time_eq(&claim.hash, hash) => Verdict::Known,
        Some(claim) if !node_exists && now.as_second() - claim.at > FRESH_SECS => Verdict::Free,
        Some(_) => Verdict::Taken,
    }
}

impl NodeSecrets {
    /// Claims in this store; whether a Node exists is asked of `reader`.
    pub fn new(store: Store, reader: Arc<dyn ObjectReader>) -> NodeSecrets {
        NodeSecrets { store, reader }
    }

    /// Takes the name for the holder of `secret`, or refuses with 403.
    pub async fn claim(&self, name: &str, secret: &str, now: Timestamp) -> Answer<()> {
        if secret.len() < SECRET_LEN_MIN {
            let text = format!("nodePassword: shorter than {SECRET_LEN_MIN} characters");
            return Err(Box::new(Status::bad_request(text)));
        }
        let nodes = GroupResource::new("", "nodes");
        let failed = |error| Box::new(store_status(&error, &nodes, "create"));
        let hash = hex::encode(Sha256::digest(secret));
        let key = format!("{PREFIX}{name}");
        // The second round decides on what another server wrote in between; there is no third claim on one name.
        for _ in 0..3 {
            self.store.barrier().await.map_err(failed)?;
            let found = self.store.range(&keys::get(&key)).map_err(failed)?.kvs.pop();
            let mod_revision = found.as_ref().map_or(0, |kv| kv.mod_revision);
            let existing: Option<Claim> = match &found {
                Some(kv) => Some(serde_json::from_slice(&kv.value).map_err(|error| Box::new(Status::internal(error)))?),
                None => None,
            };
            let node_exists = self.reader.get("", "nodes", "", name).is_some();
            match judge(existing.as_ref(), &hash, node_exists, now) {
                Verdict::Known => return Ok(()),
                Verdict::Taken => {
                    let text = "another machine has this name: choose another --node-name, or delete the Node object if that machine is gone for good";
                    return Err(Box::new(Status::forbidden(&nodes, name, text)));
                }
                Verdict::Free => {}
            }
            let claim = Claim { hash: hash.clone(), at: now.as_second() };
            let value = serde_json::to_vec(&claim).map_err(|error| Box::new(Status::internal(error)))?;
            let txn = etcd::TxnRequest {
                compare: vec![keys::unchanged(&key, mod_revision)],
                success: vec![keys::put(&key, Bytes::from(value), 0)],
                ..Default::default()
            };
            if self.store.txn(txn, None).await.map_err(failed)?.succeeded {
                return Ok(());
            }
        }
        Err(Box::new(Status::server_timeout(&nodes, "create", 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_with_its_machine() {
        let at = |secs: i64| Timestamp::from_second(1_800_000_000 + secs).unwrap();
        let claim = Claim { hash: "mine".into(), at: at(0).as_second() };
        let cases = [
            (None, "mine", false, 0, Verdict::Free),
            (Some(&claim), "mine", true, 0, Verdict::Known),
            (Some(&claim), "mine", false, 10_000, Verdict::Known),
            (Some(&claim), "theirs", true, 10_000, Verdict::Taken),
            (Some(&claim), "theirs", false, 600, Verdict::Taken),
            (Some(&claim), "theirs", false, 601, Verdict::Free),
        ];
        for (existing, hash, node_exists, secs, expected) in cases {
            assert_eq!(judge(existing, hash, node_exists, at(secs)), expected, "{hash} {node_exists} {secs}");
        }
    }
}
