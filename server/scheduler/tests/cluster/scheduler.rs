//! A scheduler on the API server in memory.
#![allow(dead_code)]

use std::sync::Arc;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trireme_client::{Client, Fence, Informer, InformerOptions};
use trireme_scheduler::{Scheduler, SchedulerInformers, SchedulerOptions};

use crate::fake_api::FakeApi;

pub fn node(name: &str, cpu: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {}, "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}}})
}

pub fn pod(name: &str, cpu: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "ns"}, "status": {"phase": "Pending"}, "spec": {
        "schedulerName": "default-scheduler", "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
}

pub fn node_of(api: &FakeApi, name: &str) -> Value {
    api.get("pods", "ns", name).map(|pod| pod["spec"]["nodeName"].clone()).unwrap_or_default()
}

/// A condition of a pod.
pub fn condition(pod: &Value, kind: &str) -> Value {
    let all = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default()
}

pub fn start(api: &FakeApi) -> (Arc<Scheduler>, CancellationToken) {
    start_with(api, SchedulerOptions::default())
}

pub fn start_with(api: &FakeApi, options: SchedulerOptions) -> (Arc<Scheduler>, CancellationToken) {
    let cancel = CancellationToken::new();
    let client = Client::new(Arc::new(api.clone()));
    let all = InformerOptions::default;
    let informers = SchedulerInformers {
        pods: Informer::start(client.clone(), all(), cancel.clone()),
        nodes: Informer::start(client.clone(), all(), cancel.clone()),
        namespaces: Informer::start(client.clone(), all(), cancel.clone()),
        budgets: Informer::start(client.clone(), all(), cancel.clone()),
        services: Informer::start(client.clone(), all(), cancel.clone()),
        replication_controllers: Informer::start(client.clone(), all(), cancel.clone()),
        replica_sets: Informer::start(client.clone(), all(), cancel.clone()),
        stateful_sets: Informer::start(client.clone(), all(), cancel.clone()),
        claims: Informer::start(client.clone(), all(), cancel.clone()),
        volumes: Informer::start(client.clone(), all(), cancel.clone()),
        classes: Informer::start(client.clone(), all(), cancel.clone()),
    };
    (Scheduler::new(client, informers, options), cancel)
}

pub fn lead(scheduler: &Arc<Scheduler>, api: &FakeApi, term: u64, cancel: &CancellationToken) -> tokio::task::JoinHandle<()> {
    let (scheduler, revision, cancel) = (Arc::clone(scheduler), api.revision(), cancel.clone());
    tokio::spawn(async move { scheduler.lead(Fence { term, node_id: 1 }, revision, cancel).await })
}
