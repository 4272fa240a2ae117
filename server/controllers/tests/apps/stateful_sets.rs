//! StatefulSets.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::fake_api::FakeApi;
use crate::nodes::{BROKEN, FINALIZER};
use crate::{Cluster, image, is_ready, is_up, name, revision, text};

fn set(spec: &Value) -> Value {
    let mut whole = json!({
        "replicas": 3, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}}, "revisionHistoryLimit": 2,
        "podManagementPolicy": "OrderedReady",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "template": {"metadata": {"labels": {"app": "db"}, "finalizers": [FINALIZER]},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
    });
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db", "namespace": "ns"}, "spec": whole})
}

fn status(api: &FakeApi) -> Value {
    api.get("statefulsets", "ns", "db").unwrap()["status"].clone()
}

/// Whether these ordinals run this image, and the status says that the last update is complete.
fn is_complete(api: &FakeApi, ordinals: std::ops::Range<usize>, wanted: &str) -> bool {
    let pods = api.list("pods");
    let names: Vec<String> = ordinals.map(|ordinal| format!("db-{ordinal}")).collect();
    let set = api.get("statefulsets", "ns", "db").unwrap();
    let status = &set["status"];
    let count = json!(names.len());
    pods.iter().map(|pod| name(pod).to_owned()).eq(names)
        && pods.iter().all(|pod| is_up(pod) && image(pod) == wanted && revision(pod) == text(&status["currentRevision"]))
        && ["replicas", "readyReplicas", "availableReplicas", "updatedReplicas", "currentReplicas"].iter().all(|key| status[key] == count)
        && status["currentRevision"] == status["updateRevision"]
        && status["observedGeneration"] == set["metadata"]["generation"]
}

fn set_image(api: &FakeApi, image: &str) {
    api.edit("statefulsets", "ns", "db", |set| set["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image));
}

fn edit_spec(api: &FakeApi, field: &str, value: Value) {
    api.edit("statefulsets", "ns", "db", |set| set["spec"][field] = value);
}

fn ordinal(pod: &Value) -> usize {
    name(pod).rsplit_once('-').unwrap().1.parse().unwrap()
}

/// Goes through everything that happened to pods that nothing but the controller ended. A pod was made only when all below it were
/// up; none was deleted while another was not up, and a pod beyond the wanted number only if it was the highest.
fn judge_order(api: &FakeApi, context: &str) {
    let mut pods: BTreeMap<usize, Value> = BTreeMap::new();
    for (_, kind, pod) in api.history("pods") {
        let at = ordinal(&pod);
        let deleted = !pod["metadata"]["deletionTimestamp"].is_null();
        let was_deleted = pods.get(&at).is_some_and(|known| !known["metadata"]["deletionTimestamp"].is_null());
        let down: Vec<usize> = pods.iter().filter(|(other, known)| **other != at && !is_up(known)).map(|(other, _)| *other).collect();
        if kind == "ADDED" {
            let below: Vec<usize> = pods.iter().filter(|(other, known)| **other < at && is_up(known)).map(|(other, _)| *other).collect();
            assert_eq!(below, (0..at).collect::<Vec<_>>(), "{context}: {at} was made too early");
        }
        if deleted && !was_deleted {
            assert_eq!(down, Vec::<usize>::new(), "{context}: {at} was deleted too early");
        }
        if kind == "DELETED" {
            pods.remove(&at);
        } else {
            pods.insert(at, pod);
        }
    }
}

/// Scales up, updates, scales down, updates again and goes back, with changes of leader.
async fn live(cluster: &Cluster, policy: &str) {
    let api = &cluster.api;
    api.create("statefulsets", set(&json!({"podManagementPolicy": policy})));
    api.until("three run", |api| is_complete(api, 0..3, "i:1")).await;
    edit_spec(api, "replicas", json!(5));
    set_image(api, "i:2");
    api.until("five run, updated", |api| is_complete(api, 0..5, "i:2")).await;
    edit_spec(api, "replicas", json!(2));
    api.until("two are left", |api| is_complete(api, 0..2, "i:2")).await;
    set_image(api, "i:3");
    api.until("the update begins", |api| api.list("pods").iter().any(|pod| image(pod) == "i:3")).await;
    set_image(api, "i:1");
    api.until("the first image is back", |api| is_complete(api, 0..2, "i:1")).await;
}

#[tokio::test(start_paused = true)]
async fn order_is_kept_whoever_leads() {
    for (seed, writes) in [(0, None), (1, Some(1)), (2, Some(2)), (3, Some(3)), (4, Some(7)), (5, None)] {
        let cluster = Cluster::start(seed, writes);
        live(&cluster, "OrderedReady").await;
        judge_order(&cluster.api, &format!("seed {seed}, {writes:?}"));
        let revisions = cluster.api.list("controllerrevisions");
        let numbers: Vec<i64> = revisions.iter().map(|revision| revision["revision"].as_i64().unwrap()).collect();
        assert_eq!((revisions.len(), numbers.iter().max()), (3, Some(&4)), "the first one has the highest number now");
    }
}

#[tokio::test(start_paused = true)]
async fn a_parallel_set_comes_to_the_same_end() {
    for (seed, writes) in [(10, None), (11, Some(1)), (12, Some(2)), (13, Some(5))] {
        let cluster = Cluster::start(seed, writes);
        live(&cluster, "Parallel").await;
    }
}

#[tokio::test(start_paused = true)]
async fn pods_that_fail_or_are_killed_come_back() {
    for seed in 20..26 {
        let cluster = Cluster::start(seed, Some(5));
        let api = &cluster.api;
        let policy = if seed % 2 == 0 { "OrderedReady" } else { "Parallel" };
        api.create("statefulsets", set(&json!({"podManagementPolicy": policy})));
        api.until("three run", |api| is_complete(api, 0..3, "i:1")).await;
        cluster.nodes.set_trouble(true);
        set_image(api, "i:2");
        api.until("the update begins", |api| api.list("pods").iter().any(|pod| image(pod) == "i:2")).await;
        edit_spec(api, "replicas", json!(4));
        api.until("there is a fourth", |api| api.get("pods", "ns", "db-3").is_some()).await;
        cluster.nodes.set_trouble(false);
        api.until("all run, updated", |api| is_complete(api, 0..4, "i:2")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_is_a_canary_and_a_rollback_restarts_nothing() {
    let cluster = Cluster::start(30, None);
    let api = &cluster.api;
    let strategy = |partition: i32| json!({"type": "RollingUpdate", "rollingUpdate": {"partition": partition}});
    api.create("statefulsets", set(&json!({"updateStrategy": strategy(2)})));
    api.until("three run", |api| is_complete(api, 0..3, "i:1")).await;
    let first = text(&status(api)["currentRevision"]).to_owned();
    let uids = |api: &FakeApi| api.list("pods").iter().map(|pod| text(&pod["metadata"]["uid"]).to_owned()).collect::<Vec<_>>();
    let before = uids(api);
    set_image(api, "i:2");
    let images = |api: &FakeApi| api.list("pods").iter().filter(|pod| is_up(pod)).map(|pod| image(pod).to_owned()).collect::<Vec<_>>();
    api.until("the canary runs", |api| images(api) == ["i:1", "i:1", "i:2"] && status(api)["updatedReplicas"] == 1).await;
    let now = status(api);
    assert_eq!((text(&now["currentRevision"]), &now["currentReplicas"]), (first.as_str(), &json!(2)), "{now}");
    assert_ne!(now["updateRevision"], now["currentRevision"]);

    // A deleted pod is recreated in its revision: below the partition, the current one.
    api.delete("pods", "ns", "db-0", "Background");
    api.delete("pods", "ns", "db-2", "Background");
    api.until("both are back", |api| images(api) == ["i:1", "i:1", "i:2"] && uids(api)[0] != before[0]).await;
    let kept = uids(api);

    set_image(api, "i:1");
    api.until("the canary goes back", |api| is_complete(api, 0..3, "i:1")).await;
    assert_eq!(uids(api)[..2], kept[..2], "pods that are right already are not restarted");
    assert_eq!(text(&status(api)["currentRevision"]), first);
    edit_spec(api, "updateStrategy", strategy(0));
    set_image(api, "i:2");
    api.until("all are updated", |api| is_complete(api, 0..3, "i:2")).await;
    assert_eq!(api.list("controllerrevisions").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_broken_pod_stops_an_update_and_a_scale_up() {
    let cluster = Cluster::start(40, None);
    let api = &cluster.api;
    api.create("statefulsets", set(&json!({})));
    api.until("three run", |api| is_complete(api, 0..3, "i:1")).await;
    set_image(api, BROKEN);
    api.until("the highest is broken", |api| api.get("pods", "ns", "db-2").is_some_and(|pod| image(&pod) == BROKEN && !is_ready(&pod)))
        .await;
    edit_spec(api, "replicas", json!(5));
    api.until("the controller has seen that", |api| {
        let set = api.get("statefulsets", "ns", "db").unwrap();
        set["status"]["observedGeneration"] == set["metadata"]["generation"] && set["status"]["readyReplicas"] == 2
    })
    .await;
    assert_eq!(api.list("pods").len(), 3, "nothing is made above it");
    // Going back does not help a pod that never becomes ready: someone has to delete it, as upstream documents.
    set_image(api, "i:1");
    api.delete("pods", "ns", "db-2", "Background");
    api.until("five run", |api| is_complete(api, 0..5, "i:1")).await;
    judge_creations(api);
}

/// No pod was made while one below it was not up.
fn judge_creations(api: &FakeApi) {
    let mut pods: BTreeMap<usize, Value> = BTreeMap::new();
    for (_, kind, pod) in api.history("pods") {
        let at = ordinal(&pod);
        assert!(kind != "ADDED" || (0..at).all(|below| pods.get(&below).is_some_and(is_up)), "{at} was made too early");
        if kind == "DELETED" {
            pods.remove(&at)
        } else {
            pods.insert(at, pod)
        };
    }
}

#[tokio::test(start_paused = true)]
async fn claims_are_made_once_and_go_as_the_policy_says() {
    for (seed, writes) in [(50, None), (51, Some(1)), (52, Some(3))] {
        let cluster = Cluster::start(seed, writes);
        let api = &cluster.api;
        let storage = json!({
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}],
            "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete", "whenDeleted": "Delete"},
        });
        api.create("statefulsets", set(&storage));
        api.until("three run", |api| is_complete(api, 0..3, "i:1")).await;
        let owners = |api: &FakeApi| {
            let claims = api.list("persistentvolumeclaims");
            let owner = |claim: &Value| text(&claim["metadata"]["ownerReferences"][0]["kind"]).to_owned();
            claims.iter().map(|claim| (name(claim).to_owned(), owner(claim))).collect::<Vec<_>>()
        };
        let with_set = |ordinal: i32| (format!("data-db-{ordinal}"), "StatefulSet".to_owned());
        api.until("the set owns them", |api| owners(api) == [with_set(0), with_set(1), with_set(2)]).await;
        let volume = api.get("pods", "ns", "db-1").unwrap()["spec"]["volumes"][0].clone();
        assert_eq!(volume, json!({"name": "data", "persistentVolumeClaim": {"claimName": "data-db-1"}}));
        let uid = |api: &FakeApi, ordinal: i32| {
            api.get("persistentvolumeclaims", "ns", &format!("data-db-{ordinal}")).map(|claim| text(&claim["metadata"]["uid"]).to_owned())
        };
        let first = uid(api, 0);
        api.delete("pods", "ns", "db-0", "Background");
        api.until("it is back", |api| is_complete(api, 0..3, "i:1")).await;
        assert_eq!(uid(api, 0), first, "a pod comes back to its claim");

        edit_spec(api, "replicas", json!(1));
        api.until("one is left", |api| is_complete(api, 0..1, "i:1")).await;
        api.until("and its claim", |api| owners(api) == [with_set(0)]).await;
        edit_spec(api, "replicas", json!(2));
        api.until("two run", |api| is_complete(api, 0..2, "i:1")).await;
        api.delete("statefulsets", "ns", "db", "Foreground");
        api.until("nothing is left", |api| {
            ["statefulsets", "pods", "persistentvolumeclaims", "controllerrevisions"].iter().all(|plural| api.list(plural).is_empty())
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_orphaned_set_is_taken_over_without_a_restart() {
    let cluster = Cluster::start(60, None);
    let api = &cluster.api;
    api.create("statefulsets", set(&json!({})));
    api.until("three run", |api| is_complete(api, 0..3, "i:1")).await;
    let uids = |api: &FakeApi| api.list("pods").iter().map(|pod| pod["metadata"]["uid"].clone()).collect::<Vec<_>>();
    let before = uids(api);
    api.delete("statefulsets", "ns", "db", "Orphan");
    api.until("the set is gone", |api| api.get("statefulsets", "ns", "db").is_none()).await;
    let is_free = |object: &Value| object["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty);
    assert!(api.list("pods").iter().chain(&api.list("controllerrevisions")).all(is_free));
    api.create("statefulsets", set(&json!({})));
    api.until("it is complete at once", |api| is_complete(api, 0..3, "i:1")).await;
    assert_eq!(uids(api), before);
    assert_eq!(api.list("controllerrevisions").len(), 1, "the revision is adopted too");
}

#[tokio::test(start_paused = true)]
async fn on_delete_waits_for_the_user_and_ordinals_may_start_anywhere() {
    let cluster = Cluster::start(70, None);
    let api = &cluster.api;
    api.create("statefulsets", set(&json!({"updateStrategy": {"type": "OnDelete"}, "ordinals": {"start": 4}, "replicas": 2})));
    let images = |api: &FakeApi| {
        api.list("pods").iter().filter(|pod| is_up(pod)).map(|pod| format!("{}={}", name(pod), image(pod))).collect::<Vec<_>>()
    };
    api.until("two run", |api| images(api) == ["db-4=i:1", "db-5=i:1"]).await;
    assert_eq!(api.get("pods", "ns", "db-4").unwrap()["metadata"]["labels"]["apps.kubernetes.io/pod-index"], "4");
    set_image(api, "i:2");
    api.until("the new revision is known", |api| {
        let now = status(api);
        now["updateRevision"] != now["currentRevision"] && now["currentReplicas"] == 2
    })
    .await;
    assert_eq!(images(api), ["db-4=i:1", "db-5=i:1"]);
    api.delete("pods", "ns", "db-4", "Background");
    api.until("what was deleted is updated", |api| images(api) == ["db-4=i:2", "db-5=i:1"]).await;
    edit_spec(api, "ordinals", json!({"start": 5}));
    api.until("the range moves", |api| images(api) == ["db-5=i:1", "db-6=i:2"]).await;
    let messages = [
        "SuccessfulCreate: Create Pod db-4 in StatefulSet db successful",
        "SuccessfulDelete: Delete Pod db-4 in StatefulSet db successful",
    ];
    // Events are written after the pods; the clock is paused, and moves while this waits.
    while !messages.iter().all(|message| cluster.told("db").iter().any(|known| known == message)) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
