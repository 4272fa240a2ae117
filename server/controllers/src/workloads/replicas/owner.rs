//! The two kinds that keep a number of equal pods.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    Pod, PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Serialize;
use trireme_client::{Typed, labels};

use super::status::{Counts, Failure};

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// A kind that keeps a number of equal pods.
pub(crate) trait ReplicaOwner: Typed + Clone {
    const NAME: &'static str;
    const QUEUE: &'static str;
    type Status: Serialize + PartialEq + Send + Sync;

    fn replicas(&self) -> i32;
    fn min_ready_secs(&self) -> i32;
    fn selects(&self, pod: &Pod) -> bool;
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn old_status(&self) -> Self::Status;
    fn new_status(&self, counts: Counts, failure: Option<Failure>, now: Timestamp) -> Self::Status;
}

fn nonzero(number: i32) -> Option<i32> {
    Some(number).filter(|number| *number != 0)
}

impl ReplicaOwner for ReplicaSet {
    const NAME: &'static str = "replicaset-controller";
    const QUEUE: &'static str = "replicaset";
    type Status = ReplicaSetStatus;

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    fn min_ready_secs(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    fn selects(&self, pod: &Pod) -> bool {
        self.spec.as_ref().is_some_and(|spec| labels::matches(&spec.selector, pod.metadata.labels.as_ref()))
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn old_status(&self) -> ReplicaSetStatus {
        self.status.clone().unwrap_or_default()
    }

    fn new_status(&self, counts: Counts, failure: Option<Failure>, now: Timestamp) -> ReplicaSetStatus {
        let mut conditions = self.old_status().conditions.unwrap_or_default();
        let known = conditions.iter().any(|condition| condition.type_ == REPLICA_FAILURE);
        match failure {
            Some(failure) if !known => conditions.push(ReplicaSetCondition {
                type_: REPLICA_FAILURE.to_owned(),
                status: "True".to_owned(),
                reason: Some(failure.reason.to_owned()),
                message: Some(failure.message),
                last_transition_time: Some(Time(now)),
            }),
            None => conditions.retain(|condition| condition.type_ != REPLICA_FAILURE),
            Some(_) => {}
        }
        ReplicaSetStatus {
            replicas: counts.all,
            fully_labeled_replicas: nonzero(counts.fully_labeled),
            ready_replicas: nonzero(counts.ready),
            available_replicas: nonzero(counts.available),
            terminating_replicas: Some(counts.ending),
            observed_generation: self.metadata.generation,
            conditions: Some(conditions).filter(|conditions| !conditions.is_empty()),
        }
    }
}

impl ReplicaOwner for ReplicationController {
    const NAME: &'static str = "replication-controller";
    const QUEUE: &'static str = "replicationmanager";
    type Status = ReplicationControllerStatus;

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    fn min_ready_secs(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    fn selects(&self, pod: &Pod) -> bool {
        let selector = self.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        selector.is_some_and(|selector| !selector.is_empty() && labels::matches_map(selector, pod.metadata.labels.as_ref()))
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn old_status(&self) -> ReplicationControllerStatus {
        self.status.clone().unwrap_or_default()
    }

    fn new_status(&self, counts: Counts, failure: Option<Failure>, now: Timestamp) -> ReplicationControllerStatus {
        let mut conditions = self.old_status().conditions.unwrap_or_default();
        let known = conditions.iter().any(|condition| condition.type_ == REPLICA_FAILURE);
        match failure {
            Some(failure) if !known => conditions.push(ReplicationControllerCondition {
                type_: REPLICA_FAILURE.to_owned(),
                status: "True".to_owned(),
                reason: Some(failure.reason.to_owned()),
                message: Some(failure.message),
                last_transition_time: Some(Time(now)),
            }),
            None => conditions.retain(|condition| condition.type_ != REPLICA_FAILURE),
            Some(_) => {}
        }
        ReplicationControllerStatus {
            replicas: counts.all,
            fully_labeled_replicas: nonzero(counts.fully_labeled),
            ready_replicas: nonzero(counts.ready),
            available_replicas: nonzero(counts.available),
            observed_generation: self.metadata.generation,
            conditions: Some(conditions).filter(|conditions| !conditions.is_empty()),
        }
    }
}
