//! DaemonSets.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::fake_api::FakeApi;
use crate::nodes::{BROKEN, FINALIZER};
use crate::{Cluster, image, is_up, name, revision, text};

fn set(strategy: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "log", "namespace": "ns"},
        "spec": {"selector": {"matchLabels": {"app": "log"}}, "revisionHistoryLimit": 1, "updateStrategy": strategy,
            "template": {"metadata": {"labels": {"app": "log"}, "finalizers": [FINALIZER]},
                "spec": {"containers": [{"name": "c", "image": "i:1"}]}}},
    })
}

fn rolling(unavailable: i32, surge: i32) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}})
}

fn add_node(api: &FakeApi, name: &str, color: &str) {
    api.create(
        "nodes",
        json!({"metadata": {"name": name, "labels": {"color": color}}, "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
    );
}

fn set_image(api: &FakeApi, image: &str) {
    api.edit("daemonsets", "ns", "log", |set| set["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image));
}

fn node(pod: &Value) -> &str {
    text(&pod["spec"]["nodeName"])
}

/// Whether exactly these nodes have a pod, all with this image and the newest revision, and the status says so.
fn is_complete(api: &FakeApi, nodes: &[&str], wanted: &str) -> bool {
    let pods = api.list("pods");
    let found: BTreeSet<&str> = pods.iter().map(node).collect();
    let set = api.get("daemonsets", "ns", "log").unwrap();
    let status = &set["status"];
    let revisions = api.list("controllerrevisions");
    let newest = revisions.iter().max_by_key(|revision| revision["revision"].as_i64());
    let hash = newest.map(|revision| text(&revision["metadata"]["labels"]["controller-revision-hash"])).unwrap_or_default();
    found.into_iter().eq(nodes.iter().copied())
        && pods.len() == nodes.len()
        && pods.iter().all(|pod| is_up(pod) && image(pod) == wanted && revision(pod) == hash)
        && ["desiredNumberScheduled", "currentNumberScheduled", "numberReady"].iter().all(|key| status[key] == nodes.len())
        && ["numberAvailable", "updatedNumberScheduled"].iter().all(|key| status[key].as_u64().unwrap_or(0) == nodes.len() as u64)
        && status["numberMisscheduled"] == 0
        && status["numberUnavailable"].is_null()
        && status["observedGeneration"] == set["metadata"]["generation"]
}

/// Goes through everything that happened to pods since a revision at which all nodes had one. `judge` sees for each node the pods
/// that are up, after each change.
fn judge(api: &FakeApi, since: i64, nodes: &[&str], judge: impl Fn(&BTreeMap<&str, usize>)) {
    let mut pods: BTreeMap<String, Value> = BTreeMap::new();
    for (revision, kind, pod) in api.history("pods") {
        let key = name(&pod).to_owned();
        if kind == "DELETED" {
            pods.remove(&key)
        } else {
            pods.insert(key, pod)
        };
        if revision > since {
            let up = |name: &str| pods.values().filter(|pod| node(pod) == name && is_up(pod)).count();
            judge(&nodes.iter().map(|name| (*name, up(name))).collect());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_node_has_one_pod_whoever_leads() {
    for (seed, writes) in [(0, None), (1, Some(1)), (2, Some(2)), (3, Some(5))] {
        let cluster = Cluster::start(seed, writes);
        let api = &cluster.api;
        for name in ["n1", "n2", "n3"] {
            add_node(api, name, "red");
        }
        api.create("daemonsets", set(&rolling(1, 0)));
        api.until("three run", |api| is_complete(api, &["n1", "n2", "n3"], "i:1")).await;
        add_node(api, "n4", "red");
        api.until("the new node has one", |api| is_complete(api, &["n1", "n2", "n3", "n4"], "i:1")).await;
        let since = api.revision();
        set_image(api, "i:2");
        api.until("all are updated", |api| is_complete(api, &["n1", "n2", "n3", "n4"], "i:2")).await;
        judge(api, since, &["n1", "n2", "n3", "n4"], |up| {
            let down = up.values().filter(|count| **count == 0).count();
            assert!(down <= 1 && up.values().all(|count| *count <= 1), "seed {seed}: {up:?}");
        });
        api.edit("nodes", "", "n2", |node| node["spec"]["taints"] = json!([{"key": "x", "effect": "NoExecute"}]));
        api.until("a tainted node has none", |api| is_complete(api, &["n1", "n3", "n4"], "i:2")).await;
        api.delete("daemonsets", "ns", "log", "Foreground");
        api.until("nothing is left", |api| ["daemonsets", "pods", "controllerrevisions"].iter().all(|plural| api.list(plural).is_empty()))
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_surge_leaves_no_node_without_a_pod() {
    for (seed, writes) in [(10, None), (11, Some(1)), (12, Some(3))] {
        let cluster = Cluster::start(seed, writes);
        let api = &cluster.api;
        let nodes = ["n1", "n2", "n3"];
        for name in nodes {
            add_node(api, name, "red");
        }
        api.create("daemonsets", set(&rolling(0, 1)));
        api.until("three run", |api| is_complete(api, &nodes, "i:1")).await;
        let since = api.revision();
        set_image(api, "i:2");
        api.until("all are updated", |api| is_complete(api, &nodes, "i:2")).await;
        judge(api, since, &nodes, |up| {
            assert!(up.values().all(|count| (1..=2).contains(count)), "seed {seed}: {up:?}");
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_restarts_only_what_was_updated() {
    let cluster = Cluster::start(20, None);
    let api = &cluster.api;
    let nodes = ["n1", "n2", "n3"];
    for name in nodes {
        add_node(api, name, "red");
    }
    api.create("daemonsets", set(&rolling(1, 0)));
    api.until("three run", |api| is_complete(api, &nodes, "i:1")).await;
    let before: BTreeSet<String> = api.list("pods").iter().map(|pod| name(pod).to_owned()).collect();
    set_image(api, BROKEN);
    api.until("the update is stuck", |api| api.list("pods").iter().any(|pod| image(pod) == BROKEN)).await;
    set_image(api, "i:1");
    api.until("it goes back", |api| is_complete(api, &nodes, "i:1")).await;
    let after: BTreeSet<String> = api.list("pods").iter().map(|pod| name(pod).to_owned()).collect();
    assert_eq!(before.intersection(&after).count(), 2, "two were never touched");
    let mut numbers: Vec<Value> = api.list("controllerrevisions").iter().map(|revision| revision["revision"].clone()).collect();
    numbers.sort_by_key(Value::as_i64);
    assert_eq!(numbers, [2, 3], "the first revision is the newest again");
    set_image(api, "i:2");
    api.until("all are updated", |api| is_complete(api, &nodes, "i:2")).await;
    set_image(api, "i:3");
    api.until("and again", |api| is_complete(api, &nodes, "i:3")).await;
    api.until("old revisions go", |api| api.list("controllerrevisions").len() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn labels_of_nodes_decide() {
    let cluster = Cluster::start(30, None);
    let api = &cluster.api;
    add_node(api, "n1", "red");
    add_node(api, "n2", "blue");
    let mut blue = set(&rolling(1, 0));
    blue["spec"]["template"]["spec"]["nodeSelector"] = json!({"color": "blue"});
    api.create("daemonsets", blue);
    api.until("the blue node has one", |api| is_complete(api, &["n2"], "i:1")).await;
    api.edit("nodes", "", "n1", |node| node["metadata"]["labels"]["color"] = json!("blue"));
    api.edit("nodes", "", "n2", |node| node["metadata"]["labels"]["color"] = json!("green"));
    api.until("it moves", |api| is_complete(api, &["n1"], "i:1")).await;
    api.edit("daemonsets", "ns", "log", |set| set["spec"]["template"]["spec"]["nodeSelector"]["color"] = json!("green"));
    api.until("and back", |api| is_complete(api, &["n2"], "i:1")).await;
}

#[tokio::test(start_paused = true)]
async fn failed_pods_are_replaced_more_and_more_rarely() {
    let cluster = Cluster::start(40, None);
    let api = &cluster.api;
    add_node(api, "n1", "red");
    api.create("daemonsets", set(&rolling(1, 0)));
    let mut times = Vec::new();
    for _ in 0..5 {
        api.until("it runs", |api| is_complete(api, &["n1"], "i:1")).await;
        let pod = api.list("pods").remove(0);
        let failed = tokio::time::Instant::now();
        api.edit("pods", "ns", name(&pod), |pod| pod["status"]["phase"] = json!("Failed"));
        api.until("it is deleted", |api| {
            api.get("pods", "ns", name(&pod)).is_none_or(|pod| !pod["metadata"]["deletionTimestamp"].is_null())
        })
        .await;
        times.push(failed.elapsed().as_secs());
    }
    assert!(times.is_sorted() && times[0] == 0 && *times.last().unwrap() >= 4, "{times:?}");
    let told = cluster.told("log");
    assert!(told.iter().any(|event| event.starts_with("FailedDaemonPod: Found failed daemon pod ns/log-")), "{told:?}");
    assert!(told.iter().any(|event| event.starts_with("SuccessfulCreate: Created pod: log-")), "{told:?}");
}

/// What upstream's test of ControllerRevisions does: a second revision of equal content, and the first one goes.
#[tokio::test(start_paused = true)]
async fn equal_revisions_become_one() {
    let cluster = Cluster::start(50, None);
    let api = &cluster.api;
    add_node(api, "n1", "red");
    api.create("daemonsets", set(&rolling(1, 0)));
    api.until("it runs", |api| is_complete(api, &["n1"], "i:1")).await;
    let uid = api.list("pods")[0]["metadata"]["uid"].clone();
    let mut twin = api.list("controllerrevisions").remove(0);
    twin["metadata"] = json!({"name": "log-twin", "namespace": "ns", "ownerReferences": twin["metadata"]["ownerReferences"],
        "labels": {"app": "log", "controller-revision-hash": "twin"}});
    twin["revision"] = json!(2);
    api.create("controllerrevisions", twin);
    // The creation of a revision does not enqueue the set; a change of its number does.
    api.edit("controllerrevisions", "ns", "log-twin", |twin| twin["revision"] = json!(3));
    api.until("the older one goes", |api| api.list("controllerrevisions").iter().map(name).eq(["log-twin"])).await;
    api.until("its pod has a new label", |api| is_complete(api, &["n1"], "i:1") && revision(&api.list("pods")[0]) == "twin").await;
    assert_eq!(api.list("pods")[0]["metadata"]["uid"], uid, "and was not restarted");
    set_image(api, "i:2");
    api.until("it is updated", |api| is_complete(api, &["n1"], "i:2")).await;
    let highest = api.list("controllerrevisions").iter().filter_map(|revision| revision["revision"].as_i64()).max();
    assert_eq!(highest, Some(4));
}
