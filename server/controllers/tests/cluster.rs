//! The controllers together, on a small API server in memory with a node that runs every pod it is given.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "cluster/fake_api.rs"]
mod fake_api;

use std::sync::Arc;
use std::time::Duration;

use fake_api::FakeApi;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trireme_client::{Client, Fence};
use trireme_controllers::{ControllerOptions, Controllers};

struct Cluster {
    api: FakeApi,
    controllers: Arc<Controllers>,
    cancel: CancellationToken,
}

impl Cluster {
    fn start() -> Self {
        let api = FakeApi::new();
        let cancel = CancellationToken::new();
        let transport = api.clone();
        let options = ControllerOptions {
            root_ca_pem: "CA".to_owned(),
            cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
            ..ControllerOptions::default()
        };
        let client_for = move |name: &str| Client::new(Arc::new(transport.clone())).with_user_agent(name);
        let controllers = Controllers::start(client_for, options, &cancel);
        api.create(
            "namespaces",
            json!({"metadata": {"name": "ns"}, "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"}}),
        );
        tokio::spawn(run_pods(api.clone()));
        Self { api, controllers, cancel }
    }

    fn lead(&self, term: u64) -> (CancellationToken, tokio::task::JoinHandle<()>) {
        let stop = self.cancel.child_token();
        let (controllers, cancel) = (Arc::clone(&self.controllers), stop.clone());
        let revision = self.api.revision();
        let work = tokio::spawn(async move { controllers.lead(Fence { term, node_id: 1 }, revision, cancel).await });
        (stop, work)
    }

    fn images(&self) -> Vec<String> {
        let pods = self.api.list("pods");
        pods.iter().map(|pod| pod["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()).collect()
    }
}

/// Scheduler and kubelet in one: every new pod gets the node, an address and becomes ready.
async fn run_pods(api: FakeApi) {
    let mut changes = api.changes();
    let mut addresses = 0;
    loop {
        for pod in api.list("pods") {
            if pod["spec"]["nodeName"].is_null() && pod["metadata"]["deletionTimestamp"].is_null() {
                addresses += 1;
                let name = pod["metadata"]["name"].as_str().unwrap();
                api.edit("pods", "ns", name, |pod| {
                    pod["spec"]["nodeName"] = json!("n1");
                    pod["status"] = json!({"phase": "Running", "podIP": format!("10.42.0.{addresses}"),
                        "conditions": [{"type": "Ready", "status": "True"}]});
                });
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn deployment(image: &str, replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "ns"},
        "spec": {
            "replicas": replicas, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 80}]}]}},
        },
    })
}

fn ready_addresses(api: &FakeApi) -> usize {
    let slices = api.list("endpointslices");
    let endpoints = slices.iter().flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
    endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == json!(true)).count()
}

fn is_rolled_out(api: &FakeApi, replicas: i32) -> bool {
    let Some(deployment) = api.get("deployments", "ns", "web") else { return false };
    let status = &deployment["status"];
    let progressed = status["conditions"]
        .as_array()
        .is_some_and(|conditions| conditions.iter().any(|one| one["type"] == "Progressing" && one["reason"] == "NewReplicaSetAvailable"));
    progressed
        && status["availableReplicas"] == json!(replicas)
        && status["updatedReplicas"] == json!(replicas)
        && status["replicas"] == json!(replicas)
        && status["observedGeneration"] == deployment["metadata"]["generation"]
}

#[tokio::test(start_paused = true)]
async fn a_deployment_lives_rolls_loses_its_leader_and_is_collected() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    let (stop, work) = cluster.lead(1);
    api.until("the namespace is furnished", |api| {
        api.get("serviceaccounts", "ns", "default").is_some()
            && api.get("configmaps", "ns", "kube-root-ca.crt").is_some_and(|map| map["data"]["ca.crt"] == "CA")
    })
    .await;

    api.create(
        "services",
        json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": {
        "clusterIP": "10.43.0.5", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}}),
    );
    api.create("deployments", deployment("i:1", 3));
    api.until("three pods run", |api| is_rolled_out(api, 3)).await;
    api.until("three endpoints", |api| ready_addresses(api) == 3).await;
    assert_eq!(cluster.images(), ["i:1"; 3]);

    // The leader is deposed in the middle of a rollout; its successor ends it.
    api.edit("deployments", "ns", "web", |web| web["spec"]["template"]["spec"]["containers"][0]["image"] = json!("i:2"));
    api.until("the rollout begins", |api| api.list("replicasets").len() == 2).await;
    api.set_term(2);
    stop.cancel();
    work.await.unwrap();
    let (_stop, _work) = cluster.lead(2);
    api.until("all pods are new", |api| is_rolled_out(api, 3)).await;
    assert_eq!(cluster.images(), ["i:2"; 3]);
    let revision = &api.get("deployments", "ns", "web").unwrap()["metadata"]["annotations"];
    assert_eq!(revision["deployment.kubernetes.io/revision"], json!("2"));

    // A pod is killed; one takes its place.
    let victim = api.list("pods")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    api.delete("pods", "ns", &victim, "Background");
    api.until("it is replaced", |api| api.list("pods").len() == 3 && ready_addresses(api) == 3).await;
    api.until("and the status knows", |api| is_rolled_out(api, 3)).await;

    // Deleting the Deployment takes everything below it; the Service's slices go with the Service.
    api.delete("deployments", "ns", "web", "Foreground");
    api.until("the Deployment is gone", |api| api.get("deployments", "ns", "web").is_none()).await;
    assert!(api.list("replicasets").is_empty() && api.list("pods").is_empty(), "foreground: they go first");
    api.delete("services", "ns", "web", "Background");
    api.until("the endpoints are gone", |api| api.list("endpointslices").is_empty() && api.list("endpoints").is_empty()).await;

    api.create("deployments", deployment("i:3", 2));
    api.until("two pods run", |api| is_rolled_out(api, 2)).await;
    api.delete("namespaces", "", "ns", "Background");
    api.until("the namespace is gone", |api| api.list("namespaces").is_empty()).await;
    for plural in ["deployments", "replicasets", "pods", "serviceaccounts", "configmaps"] {
        assert!(api.list(plural).is_empty(), "{plural} are left");
    }
    cluster.cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn orphans_are_released_and_adopted_again() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    let (_stop, _work) = cluster.lead(1);
    api.create("deployments", deployment("i:1", 2));
    api.until("two pods run", |api| is_rolled_out(api, 2)).await;
    let set = api.list("replicasets")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    api.delete("replicasets", "ns", &set, "Orphan");
    let uid_of_owner = |pod: &Value| pod["metadata"]["ownerReferences"][0]["uid"].clone();
    api.until("a new ReplicaSet owns the pods of the old one", |api| {
        let sets = api.list("replicasets");
        sets.len() == 1
            && sets[0]["metadata"]["deletionTimestamp"].is_null()
            && api.list("pods").len() == 2
            && api.list("pods").iter().all(|pod| uid_of_owner(pod) == sets[0]["metadata"]["uid"])
    })
    .await;
    cluster.cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_tainted_and_its_pods_move() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    let (_stop, _work) = cluster.lead(1);
    for name in ["n1", "n2"] {
        api.create(
            "nodes",
            json!({"metadata": {"name": name}, "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
        );
        api.create(
            "leases",
            json!({"metadata": {"name": name, "namespace": "kube-node-lease"},
            "spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}}),
        );
    }
    api.until("both have a pod network", |api| {
        let mut cidrs: Vec<Value> = api.list("nodes").iter().map(|node| node["spec"]["podCIDR"].clone()).collect();
        cidrs.sort_by_key(ToString::to_string);
        cidrs == [json!("10.42.0.0/24"), json!("10.42.1.0/24")]
    })
    .await;
    api.create("deployments", deployment("i:1", 2));
    api.until("two pods run", |api| is_rolled_out(api, 2)).await;
    let before: Vec<Value> = api.list("pods").iter().map(|pod| pod["metadata"]["uid"].clone()).collect();

    // n2 goes on renewing, n1 does not.
    let beating = api.clone();
    let heart = tokio::spawn(async move {
        for beat in 0.. {
            tokio::time::sleep(Duration::from_secs(10)).await;
            let time = format!("2026-01-01T{:02}:{:02}:{:02}.000000Z", beat / 360, beat / 6 % 60, beat % 6 * 10);
            beating.edit("leases", "kube-node-lease", "n2", |lease| lease["spec"]["renewTime"] = json!(time));
        }
    });
    let started = tokio::time::Instant::now();
    api.until("n1 is unreachable", |api| {
        let taints = api.get("nodes", "", "n1").unwrap()["spec"]["taints"].to_string();
        taints.contains("unreachable") && taints.contains("NoExecute")
    })
    .await;
    assert!((35..60).contains(&started.elapsed().as_secs()), "after {:?}", started.elapsed());
    api.until("its pods are replaced", |api| {
        let pods = api.list("pods");
        pods.len() == 2 && pods.iter().all(|pod| !before.contains(&pod["metadata"]["uid"]))
    })
    .await;
    assert!(api.get("nodes", "", "n2").unwrap()["spec"]["taints"].as_array().is_none_or(Vec::is_empty));
    heart.abort();
    cluster.cancel.cancel();
}
