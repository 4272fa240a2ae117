//! Volumes of CSI drivers on their way to nodes, on a small API server in memory, under leaders that are deposed between any two writes.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "cluster/fake_api.rs"]
mod fake_api;
#[path = "cluster/leaders.rs"]
mod leaders;

use std::sync::Arc;
use std::time::Duration;

use fake_api::FakeApi;
use leaders::lead;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trireme_client::Client;
use trireme_client::storage::csi::VolumeId;
use trireme_controllers::{ControllerOptions, Controllers};

const DRIVER: &str = "d.example.com";

struct Cluster {
    api: FakeApi,
    cancel: CancellationToken,
}

impl Cluster {
    fn start() -> Self {
        Self::on(FakeApi::new(), None)
    }

    fn on(api: FakeApi, writes: Option<usize>) -> Self {
        let cancel = CancellationToken::new();
        let transport = api.clone();
        // No kubelet renews the nodes' Leases in these tests.
        let options = ControllerOptions { node_monitor_grace: Duration::from_secs(100_000_000), ..ControllerOptions::default() };
        let client_for = move |name: &str| Client::new(Arc::new(transport.clone())).with_user_agent(name);
        let controllers = Controllers::start(client_for, options, &cancel);
        if let Some(writes) = writes {
            api.depose_after(writes);
        }
        tokio::spawn(lead(controllers, api.clone(), cancel.clone()));
        Self { api, cancel }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn id(volume: &str) -> VolumeId {
    VolumeId { driver: DRIVER.into(), handle: format!("handle-of-{volume}") }
}

fn node(api: &FakeApi, name: &str) {
    api.create(
        "nodes",
        json!({"metadata": {"name": name, "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
            "spec": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
    );
}

/// A volume and a claim of this name that are bound to each other.
fn bound(api: &FakeApi, name: &str, mode: &str) {
    let claim = api.create(
        "persistentvolumeclaims",
        json!({"metadata": {"name": name, "namespace": "ns", "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
            "spec": {"accessModes": [mode], "storageClassName": "", "volumeName": name, "resources": {"requests": {"storage": "1Gi"}}},
            "status": {"phase": "Bound"}}),
    );
    api.create(
        "persistentvolumes",
        json!({"metadata": {"name": name}, "spec": {"accessModes": [mode], "capacity": {"storage": "1Gi"}, "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain", "csi": {"driver": DRIVER, "volumeHandle": id(name).handle},
            "claimRef": {"namespace": "ns", "name": name, "uid": claim["metadata"]["uid"]}}, "status": {"phase": "Bound"}}),
    );
}

fn pod(api: &FakeApi, name: &str, node: &str, claim: &str) {
    api.create(
        "pods",
        json!({"metadata": {"name": name, "namespace": "ns"}, "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]}}),
    );
}

fn attachment(api: &FakeApi, volume: &str, node: &str) -> Option<Value> {
    api.get("volumeattachments", "", &id(volume).attachment(node))
}

/// What the driver's attacher says.
fn attach(api: &FakeApi, volume: &str, node: &str) {
    api.edit("volumeattachments", "", &id(volume).attachment(node), |attachment| attachment["status"] = json!({"attached": true}));
}

/// What the node's kubelet says.
fn use_volumes(api: &FakeApi, node: &str, volumes: &[&str]) {
    let names: Vec<String> = volumes.iter().map(|volume| id(volume).unique_name()).collect();
    api.edit("nodes", "", node, |node| node["status"]["volumesInUse"] = json!(names));
}

fn is_reported(api: &FakeApi, volume: &str, node: &str) -> bool {
    let node = api.get("nodes", "", node).unwrap();
    node["status"]["volumesAttached"].as_array().into_iter().flatten().any(|one| one["name"] == json!(id(volume).unique_name()))
}

fn told(api: &FakeApi, about: &str, part: &str) -> bool {
    let told = api.told.lock();
    told.iter().any(|event| {
        let text = format!("{}: {}", event["reason"].as_str().unwrap_or_default(), event["message"].as_str().unwrap_or_default());
        event["involvedObject"]["name"] == json!(about) && text.contains(part)
    })
}

#[tokio::test(start_paused = true)]
async fn a_volume_follows_its_pods_and_is_not_detached_while_a_kubelet_uses_it() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    node(api, "n1");
    bound(api, "pv", "ReadWriteOnce");
    pod(api, "p", "n1", "pv");
    api.until("it is to be attached", |api| attachment(api, "pv", "n1").is_some()).await;
    let made = attachment(api, "pv", "n1").unwrap();
    assert_eq!(made["spec"], json!({"attacher": DRIVER, "nodeName": "n1", "source": {"persistentVolumeName": "pv"}}));
    assert!(!is_reported(api, "pv", "n1"), "it is not attached yet");
    api.edit("volumeattachments", "", &id("pv").attachment("n1"), |one| {
        one["status"] = json!({"attached": false, "attachError": {"message": "no slot", "time": "2026-01-01T00:00:00Z"}});
    });
    api.until("the failure is told", |api| told(api, "p", "FailedAttachVolume: AttachVolume.Attach failed for volume \"pv\" : no slot"))
        .await;
    attach(api, "pv", "n1");
    api.until("the node is told", |api| is_reported(api, "pv", "n1")).await;
    api.until("the pod is told", |api| told(api, "p", "SuccessfulAttachVolume: AttachVolume.Attach succeeded for volume \"pv\"")).await;
    use_volumes(api, "n1", &["pv"]);
    api.delete("pods", "ns", "p", "Background");
    // Ten minutes later a healthy kubelet still has not said that it is through.
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(attachment(api, "pv", "n1").is_some() && is_reported(api, "pv", "n1"));
    use_volumes(api, "n1", &[]);
    api.until("it is detached", |api| attachment(api, "pv", "n1").is_none()).await;
    assert!(!is_reported(api, "pv", "n1"));
    let (node_told, deleted) = (last_of(api, "nodes", "MODIFIED"), last_of(api, "volumeattachments", "DELETED"));
    assert!(node_told < deleted, "the node is told first");
}

fn last_of(api: &FakeApi, plural: &str, kind: &str) -> i64 {
    api.history(plural).iter().filter(|(_, known, _)| *known == kind).map(|(revision, ..)| *revision).max().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_volume_for_one_node_moves_when_the_first_has_let_go() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    for name in ["n1", "n2"] {
        node(api, name);
    }
    bound(api, "one", "ReadWriteOnce");
    bound(api, "many", "ReadWriteMany");
    pod(api, "a", "n1", "one");
    pod(api, "b", "n1", "many");
    api.until("both are to be attached", |api| attachment(api, "one", "n1").is_some() && attachment(api, "many", "n1").is_some()).await;
    attach(api, "one", "n1");
    use_volumes(api, "n1", &["one"]);
    pod(api, "c", "n2", "one");
    pod(api, "d", "n2", "many");
    api.until("the shared one goes to both", |api| attachment(api, "many", "n2").is_some()).await;
    let text = "FailedAttachVolume: Multi-Attach error for volume \"one\" Volume is already used by pod(s) a";
    api.until("the second pod is told", |api| told(api, "c", text)).await;
    assert!(attachment(api, "one", "n2").is_none());
    api.delete("pods", "ns", "a", "Background");
    use_volumes(api, "n1", &[]);
    api.until("it moves", |api| attachment(api, "one", "n2").is_some() && attachment(api, "one", "n1").is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_of_a_node_that_is_lost_is_detached_by_force() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    for name in ["sick", "out"] {
        node(api, name);
        bound(api, name, "ReadWriteOnce");
        pod(api, name, name, name);
        api.until("it is to be attached", |api| attachment(api, name, name).is_some()).await;
        attach(api, name, name);
        use_volumes(api, name, &[name]);
        api.edit("nodes", "", name, |node| node["status"]["conditions"][0]["status"] = json!("Unknown"));
        api.delete("pods", "ns", name, "Background");
    }
    api.edit("nodes", "", "out", |node| {
        node["spec"]["taints"] = json!([{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]);
    });
    api.until("the node that is out of service loses it", |api| attachment(api, "out", "out").is_none()).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(attachment(api, "sick", "sick").is_some(), "the sick node has six minutes");
    api.until("the sick node loses it", |api| attachment(api, "sick", "sick").is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn what_others_manage_is_left_alone() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    node(api, "n1");
    api.create("nodes", json!({"metadata": {"name": "own"}, "spec": {}, "status": {}}));
    api.create("csidrivers", json!({"metadata": {"name": "shared.example.com"}, "spec": {"attachRequired": false}}));
    bound(api, "first", "ReadWriteOnce");
    bound(api, "shared", "ReadWriteOnce");
    bound(api, "last", "ReadWriteOnce");
    api.edit("persistentvolumes", "", "shared", |volume| volume["spec"]["csi"]["driver"] = json!("shared.example.com"));
    api.create("volumeattachments", json!({"metadata": {"name": "by-hand"}, "spec": {"attacher": DRIVER, "nodeName": "n1", "source": {"persistentVolumeName": "first"}}}));
    pod(api, "attaches-itself", "own", "first");
    pod(api, "not-attached", "n1", "shared");
    pod(api, "plain", "n1", "last");
    api.until("the last is to be attached", |api| attachment(api, "last", "n1").is_some()).await;
    let names: Vec<Value> = api.list("volumeattachments").iter().map(|one| one["metadata"]["name"].clone()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names.contains(&json!("by-hand")));
}

#[tokio::test(start_paused = true)]
async fn whoever_leads_a_used_volume_stays_and_an_unused_one_goes() {
    for seed in 0..8 {
        let cluster = Cluster::on(FakeApi::slow(seed), Some(1 + usize::try_from(seed % 4).unwrap()));
        let api = &cluster.api;
        node(api, "n1");
        for name in ["a", "b"] {
            bound(api, name, "ReadWriteOnce");
            pod(api, name, "n1", name);
        }
        api.until("both are to be attached", |api| ["a", "b"].iter().all(|name| attachment(api, name, "n1").is_some())).await;
        for name in ["a", "b"] {
            attach(api, name, "n1");
        }
        use_volumes(api, "n1", &["a", "b"]);
        api.until("the node is told", |api| ["a", "b"].iter().all(|name| is_reported(api, name, "n1"))).await;
        api.delete("pods", "ns", "a", "Background");
        use_volumes(api, "n1", &["b"]);
        api.until("the unused one goes", |api| attachment(api, "a", "n1").is_none()).await;
        let deleted: Vec<Value> =
            api.history("volumeattachments").into_iter().filter(|(_, kind, _)| *kind == "DELETED").map(|(.., one)| one).collect();
        assert_eq!(deleted.len(), 1, "seed {seed}");
        assert!(is_reported(api, "b", "n1"), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_asks_for_more_is_told_who_is_awaited() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    bound(api, "pv", "ReadWriteOnce");
    api.edit("persistentvolumeclaims", "ns", "pv", |claim| claim["status"]["capacity"] = json!({"storage": "1Gi"}));
    api.edit("persistentvolumeclaims", "ns", "pv", |claim| claim["spec"]["resources"]["requests"]["storage"] = json!("2Gi"));
    let text = "ExternalExpanding: waiting for an external controller to expand this PVC";
    api.until("it is told", |api| told(api, "pv", text)).await;
}
