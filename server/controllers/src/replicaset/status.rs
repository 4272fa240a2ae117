//! A ReplicaSet's status from its pods. No I/O.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use trireme_client::{Object, Patch};

use crate::{Error, pods};

const REPLICA_FAILURE: &str = "ReplicaFailure";

pub(super) fn status(set: &ReplicaSet, owned: &[Arc<Pod>], failure: Option<(&'static str, String)>, now: Timestamp) -> ReplicaSetStatus {
    let spec = set.spec.as_ref();
    let min_ready = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let template_labels = spec
        .and_then(|spec| spec.template.as_ref())
        .and_then(|template| template.metadata.as_ref())
        .and_then(|meta| meta.labels.clone())
        .unwrap_or_default();
    let active: Vec<&Arc<Pod>> = owned.iter().filter(|pod| pods::is_active(pod)).collect();
    let count = |test: &dyn Fn(&Pod) -> bool| i32::try_from(active.iter().filter(|pod| test(pod)).count()).unwrap_or(i32::MAX);
    let old = set.status.clone().unwrap_or_default();
    let mut conditions = old.conditions.unwrap_or_default();
    let known = conditions.iter().any(|condition| condition.type_ == REPLICA_FAILURE);
    match failure {
        Some((reason, message)) if !known => conditions.push(ReplicaSetCondition {
            type_: REPLICA_FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(Time(now)),
        }),
        None => conditions.retain(|condition| condition.type_ != REPLICA_FAILURE),
        Some(_) => {}
    }
    let nonzero = |number: i32| Some(number).filter(|number| *number != 0);
    let terminating = owned.iter().filter(|pod| pods::is_terminating(pod) && !pods::is_terminal(pod)).count();
    ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: nonzero(count(&|pod| trireme_client::labels::matches_map(&template_labels, pod.metadata.labels.as_ref()))),
        ready_replicas: nonzero(count(&pods::is_ready)),
        available_replicas: nonzero(count(&|pod| pods::available_in_secs(pod, min_ready, now) == Some(0))),
        terminating_replicas: Some(i32::try_from(terminating).unwrap_or(i32::MAX)),
        observed_generation: set.metadata.generation,
        conditions: Some(conditions).filter(|conditions| !conditions.is_empty()),
    }
}

/// A merge patch of the whole status: absent counts become null, so that they are removed.
pub(super) fn patch(set: &ReplicaSet, old: &ReplicaSetStatus, new: &ReplicaSetStatus) -> Result<Patch, Error> {
    Ok(status_patch(set, &encode(old)?, &encode(new)?))
}

fn encode<S: serde::Serialize>(status: &S) -> Result<Value, Error> {
    serde_json::to_value(status).map_err(|error| Error::Invalid(error.to_string()))
}

/// The merge patch that turns one status into another of the same object.
pub(crate) fn status_patch<T: Object>(object: &T, old: &Value, new: &Value) -> Patch {
    let mut status = new.clone();
    if let (Some(old), Some(fields)) = (old.as_object(), status.as_object_mut()) {
        for key in old.keys() {
            fields.entry(key.clone()).or_insert(Value::Null);
        }
    }
    Patch::Merge(json!({
        "metadata": {"uid": object.uid(), "resourceVersion": object.meta().resource_version},
        "status": status,
    }))
}
