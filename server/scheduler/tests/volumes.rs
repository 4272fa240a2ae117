//! Pods with claims on the scheduler and a small API server in memory, with a double of the volume controller.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "../../controllers/tests/cluster/fake_api.rs"]
mod fake_api;

#[path = "cluster/scheduler.rs"]
mod scheduler;

use fake_api::FakeApi;
use scheduler::{lead, node, node_of, pod, start, start_with};
use serde_json::{Value, json};
use trireme_scheduler::SchedulerOptions;

const SELECTED: &str = "volume.kubernetes.io/selected-node";

fn furnish(api: &FakeApi) {
    api.create("nodes", node("n1", "2"));
    for (name, provisioner) in [("late", "p"), ("manual", "kubernetes.io/no-provisioner")] {
        let class = json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"});
        api.create("storageclasses", class);
    }
}

fn claim(api: &FakeApi, name: &str, class: &str) {
    let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": class, "resources": {"requests": {"storage": "1Gi"}}});
    api.create("persistentvolumeclaims", json!({"metadata": {"name": name, "namespace": "ns"}, "spec": spec}));
}

fn volume(api: &FakeApi, name: &str) {
    let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "manual", "capacity": {"storage": "1Gi"}});
    api.create("persistentvolumes", json!({"metadata": {"name": name}, "spec": spec, "status": {"phase": "Available"}}));
}

fn user(name: &str, claim: &str) -> Value {
    let mut pod = pod(name, "1");
    pod["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]);
    pod
}

fn selected(api: &FakeApi, claim: &str) -> Value {
    api.get("persistentvolumeclaims", "ns", claim).unwrap()["metadata"]["annotations"][SELECTED].clone()
}

/// What the volume controller does to a claim in the end.
fn bind(api: &FakeApi, claim: &str, volume: &str) {
    api.edit("persistentvolumeclaims", "ns", claim, |claim| {
        claim["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] = json!("yes");
        claim["spec"]["volumeName"] = json!(volume);
        claim["status"] = json!({"phase": "Bound"});
    });
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_bound_when_the_volume_that_is_made_for_it_is() {
    let api = FakeApi::new();
    furnish(&api);
    let (scheduler, cancel) = start(&api);
    let _work = lead(&scheduler, &api, 1, &cancel);
    api.create("pods", user("p", "c"));
    let says =
        |api: &FakeApi, text: &str| api.told.lock().iter().any(|event| event["message"].as_str().is_some_and(|said| said.contains(text)));
    api.until("it says that there is no claim", |api| says(api, "persistentvolumeclaim \"c\" not found")).await;
    claim(&api, "c", "late");
    api.until("the claim is told its node", |api| selected(api, "c") == "n1").await;
    // Its place is kept meanwhile: there is room for two.
    api.create("pods", pod("q", "1"));
    api.create("pods", pod("r", "1"));
    api.until("one other pod fits", |api| node_of(api, "q") == "n1" || node_of(api, "r") == "n1").await;
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert!(node_of(&api, "p").is_null(), "it waits for its volume");
    assert!(node_of(&api, "q").is_null() || node_of(&api, "r").is_null(), "its place is its own");

    // The provisioner fails: the pod is tried again, and the claim is told its node again.
    api.edit("persistentvolumeclaims", "ns", "c", |claim| {
        claim["metadata"]["annotations"].as_object_mut().unwrap().remove(SELECTED);
    });
    api.until("that is said", |api| says(api, "selectedNode annotation reset for PVC \"c\"")).await;
    api.delete("pods", "ns", "q", "Background");
    api.delete("pods", "ns", "r", "Background");
    api.until("the claim is told its node again", |api| selected(api, "c") == "n1").await;
    api.create("persistentvolumes", json!({"metadata": {"name": "made"}, "spec": {}}));
    bind(&api, "c", "made");
    api.until("it is bound", |api| node_of(api, "p") == "n1").await;
    cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn two_pods_that_want_the_last_volume_get_it_one_after_the_other() {
    let api = FakeApi::new();
    furnish(&api);
    let (scheduler, cancel) = start(&api);
    let _work = lead(&scheduler, &api, 1, &cancel);
    for name in ["c", "d"] {
        claim(&api, name, "manual");
        api.create("pods", user(&format!("uses-{name}"), name));
    }
    volume(&api, "v");
    let owner = |api: &FakeApi, volume: &str| api.get("persistentvolumes", "", volume).unwrap()["spec"]["claimRef"]["name"].clone();
    api.until("one claim has it", |api| !owner(api, "v").is_null()).await;
    let first = owner(&api, "v").as_str().unwrap().to_owned();
    let other = if first == "c" { "d" } else { "c" };
    bind(&api, &first, "v");
    api.until("its pod is bound", |api| node_of(api, &format!("uses-{first}")) == "n1").await;
    assert!(node_of(&api, &format!("uses-{other}")).is_null());
    volume(&api, "w");
    api.until("the new volume is the other's", |api| owner(api, "w") == other).await;
    bind(&api, other, "w");
    api.until("its pod is bound too", |api| node_of(api, &format!("uses-{other}")) == "n1").await;
    let taken = api.get("persistentvolumes", "", "w").unwrap();
    assert_eq!(taken["metadata"]["annotations"]["pv.kubernetes.io/bound-by-controller"], "yes");
    cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_successor_waits_for_the_volume_that_its_predecessor_asked_for() {
    let api = FakeApi::new();
    furnish(&api);
    let (scheduler, cancel) = start(&api);
    let old = cancel.child_token();
    let work = lead(&scheduler, &api, 1, &old);
    claim(&api, "c", "late");
    api.create("pods", user("p", "c"));
    api.until("the claim is told its node", |api| selected(api, "c") == "n1").await;
    api.set_term(2);
    bind(&api, "c", "made");
    api.create("persistentvolumes", json!({"metadata": {"name": "made"}, "spec": {}}));
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert!(node_of(&api, "p").is_null(), "a deposed scheduler binds nothing");
    old.cancel();
    work.await.unwrap();
    let _work = lead(&scheduler, &api, 2, &cancel);
    api.until("the successor binds it", |api| node_of(api, "p") == "n1").await;
    cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_waits_too_long_or_goes_gives_its_place_back() {
    let api = FakeApi::new();
    furnish(&api);
    let options = SchedulerOptions { volume_patience: std::time::Duration::from_secs(20), ..SchedulerOptions::default() };
    let (scheduler, cancel) = start_with(&api, options);
    let _work = lead(&scheduler, &api, 1, &cancel);
    claim(&api, "c", "late");
    api.create("pods", user("p", "c"));
    api.until("it says that it waited too long", |api| {
        let told = api.told.lock();
        told.iter()
            .any(|event| event["message"].as_str().is_some_and(|said| said.contains("timed out after 20 s waiting for the pod's volumes")))
    })
    .await;
    api.delete("pods", "ns", "p", "Background");
    api.create("pods", pod("whole", "2"));
    api.until("another one gets its place", |api| node_of(api, "whole") == "n1").await;
    cancel.cancel();
}
