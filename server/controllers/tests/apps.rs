//! StatefulSets and DaemonSets on a small API server in memory, with nodes whose pods start and end in their own time, and leaders
//! that are deposed between any two writes. What happened is judged afterwards, change by change.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "apps/daemon_sets.rs"]
mod daemon_sets;
#[path = "cluster/fake_api.rs"]
mod fake_api;
#[path = "cluster/leaders.rs"]
mod leaders;
#[path = "apps/nodes.rs"]
mod nodes;
#[path = "apps/stateful_sets.rs"]
mod stateful_sets;

use std::sync::Arc;
use std::time::Duration;

use fake_api::FakeApi;
use leaders::lead;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trireme_client::Client;
use trireme_controllers::{ControllerOptions, Controllers};

use nodes::Nodes;

/// Controllers under one leadership after the other, and nodes.
struct Cluster {
    api: FakeApi,
    nodes: Nodes,
    cancel: CancellationToken,
}

impl Cluster {
    /// Answers and events come late, as the seed says; each leader makes `writes` writes, if there is a number.
    fn start(seed: u64, writes: Option<usize>) -> Self {
        let api = FakeApi::slow(seed);
        let cancel = CancellationToken::new();
        let transport = api.clone();
        let options = ControllerOptions {
            root_ca_pem: "CA".to_owned(),
            cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
            // No kubelet renews the nodes' Leases in these tests.
            node_monitor_grace: Duration::from_secs(100_000_000),
            ..ControllerOptions::default()
        };
        let client_for = move |name: &str| Client::new(Arc::new(transport.clone())).with_user_agent(name);
        let controllers = Controllers::start(client_for, options, &cancel);
        api.create("namespaces", json!({"metadata": {"name": "ns"}, "status": {"phase": "Active"}}));
        if let Some(writes) = writes {
            api.depose_after(writes);
        }
        tokio::spawn(lead(controllers, api.clone(), cancel.clone()));
        let nodes = Nodes::start(api.clone(), seed, &cancel);
        Self { api, nodes, cancel }
    }

    /// The events that were recorded for an object, as `reason: message`.
    fn told(&self, name: &str) -> Vec<String> {
        let told = self.api.told.lock();
        let of = told.iter().filter(|event| event["involvedObject"]["name"] == name);
        of.map(|event| format!("{}: {}", text(&event["reason"]), text(&event["message"]))).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn name(object: &Value) -> &str {
    text(&object["metadata"]["name"])
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
}

/// Ready and not being deleted.
fn is_up(pod: &Value) -> bool {
    is_ready(pod) && pod["metadata"]["deletionTimestamp"].is_null()
}

fn image(pod: &Value) -> &str {
    text(&pod["spec"]["containers"][0]["image"])
}

fn revision(pod: &Value) -> &str {
    text(&pod["metadata"]["labels"]["controller-revision-hash"])
}
