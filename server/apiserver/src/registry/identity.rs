//! The parts of `metadata` that belong to the system: uid, times, namespace, generated names.

use jiff::Timestamp;
use rand::Rng;
use serde_json::Value;
use trireme_api::status::Status;
use trireme_api::{meta, names, time};

use crate::error::Answer;

/// Checks or fills the namespace of an object against the one of the URL.
pub fn settle_namespace(object: &mut Value, namespaced: bool, namespace: &str) -> Answer<()> {
    let own = meta::namespace(object).to_owned();
    if !namespaced {
        if !own.is_empty() {
            Err(Status::bad_request("the namespace of the provided object does not match the namespace sent on the request"))?;
        }
        return Ok(());
    }
    if own.is_empty() {
        meta::set_namespace(object, namespace);
    } else if own != namespace {
        Err(Status::bad_request("the namespace of the provided object does not match the namespace sent on the request"))?;
    }
    Ok(())
}

/// Gives a new object its identity.
pub fn fill_new(object: &mut Value, now: Timestamp) {
    let metadata = meta::metadata_mut(object);
    for key in ["resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        metadata.remove(key);
    }
    prune_empty(metadata);
    meta::set_uid(object, &uuid::Uuid::new_v4().to_string());
    meta::set_creation_timestamp(object, &time::format(now));
}

/// Removes maps and lists of metadata that hold nothing: upstream does not write them.
pub fn prune_empty(metadata: &mut serde_json::Map<String, Value>) {
    metadata.retain(|_, value| match value {
        Value::Null => false,
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    });
}

/// Makes a name from `generateName`, if there is no name. True if it did.
pub fn generate_name(object: &mut Value) -> bool {
    if !meta::name(object).is_empty() || meta::generate_name(object).is_empty() {
        return false;
    }
    let name = names::generate_name(meta::generate_name(object), rand::rng().random());
    meta::set_name(object, &name);
    true
}

/// Keeps the system's parts of an existing object: a client neither has to send them nor can change them by leaving them out.
pub fn keep_system_fields(object: &mut Value, existing: &Value) {
    const KEPT: [&str; 3] = ["uid", "creationTimestamp", "deletionTimestamp"];
    let metadata = meta::metadata_mut(object);
    metadata.remove("selfLink");
    for key in KEPT {
        let missing = metadata.get(key).is_none_or(|v| v.is_null() || v == "");
        match existing.pointer(&format!("/metadata/{key}")) {
            Some(kept) if missing => {
                metadata.insert(key.to_owned(), kept.clone());
            }
            None if key == "deletionTimestamp" => {
                metadata.remove(key);
            }
            _ => {}
        }
    }
    match existing.pointer("/metadata/creationTimestamp") {
        Some(created) => metadata.insert("creationTimestamp".to_owned(), created.clone()),
        None => metadata.remove("creationTimestamp"),
    };
    match existing.pointer("/metadata/deletionGracePeriodSeconds") {
        Some(grace) => {
            metadata.entry("deletionGracePeriodSeconds").or_insert_with(|| grace.clone());
        }
        None => {
            metadata.remove("deletionGracePeriodSeconds");
        }
    }
    match existing.pointer("/metadata/generation") {
        Some(generation) => metadata.insert("generation".to_owned(), generation.clone()),
        None => metadata.remove("generation"),
    };
    prune_empty(metadata);
}
