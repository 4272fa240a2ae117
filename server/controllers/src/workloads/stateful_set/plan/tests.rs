#![allow(clippy::unwrap_used)]

use k8s_openapi::api::apps::v1::StatefulSet;
use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T01:00:00Z";

fn set(spec: Value) -> StatefulSet {
    let mut whole = json!({"replicas": 3, "selector": {"matchLabels": {"app": "db"}}, "template": {},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    serde_json::from_value(json!({"metadata": {"name": "db", "namespace": "ns", "uid": "set"}, "spec": whole})).unwrap()
}

/// `0+`: the pod with this ordinal is available. `-` not ready, `~` pending, `x` failed, `!` being deleted; a letter is its revision.
fn pod(text: &str) -> Arc<Pod> {
    let (head, revision) = text.split_at(text.find(|letter: char| letter.is_alphabetic() && letter != 'x').unwrap_or(text.len()));
    let (ordinal, state) = head.split_at(head.len() - 1);
    let (phase, ready) = match state {
        "+" | "!" => ("Running", "True"),
        "-" => ("Running", "False"),
        "~" => ("Pending", "False"),
        _ => ("Failed", "False"),
    };
    let name = format!("db-{ordinal}");
    let deleted = (state == "!").then_some("2026-01-01T00:59:00Z");
    let revision = if revision.is_empty() { "new" } else { revision };
    let pod = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "deletionTimestamp": deleted,
            "labels": {"statefulset.kubernetes.io/pod-name": name, "controller-revision-hash": revision}},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:59:50Z"}]},
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn shown(action: &Action) -> String {
    match action {
        Action::Create { ordinal, updated: true } => format!("create {ordinal}"),
        Action::Create { ordinal, updated: false } => format!("create {ordinal} as before"),
        Action::Provide(pod) => format!("provide {}", pod.name()),
        Action::Repair(pod) => format!("repair {}", pod.name()),
        Action::Own(pod) => format!("own {}", pod.name()),
        Action::Delete(pod) => format!("delete {}", pod.name()),
    }
}

fn with_claims(spec: Value, pods: &str, claims: &[PersistentVolumeClaim]) -> Vec<String> {
    let set = set(spec);
    let pods: Vec<Arc<Pod>> = pods.split_whitespace().map(pod).collect();
    let claim = |name: &str| claims.iter().find(|claim| claim.name() == name).map(|claim| Arc::new(claim.clone()));
    let plan = plan(&Situation { view: View::of(&set).unwrap(), pods: &pods, update: "new", claim: &claim, now: NOW.parse().unwrap() });
    plan.stages.iter().flatten().flatten().map(shown).collect()
}

fn steps(spec: Value, pods: &str) -> Vec<String> {
    with_claims(spec, pods, &[])
}

#[test]
fn an_ordered_set_takes_one_step_at_a_time() {
    let none: [&str; 0] = [];
    for (pods, expected) in [
        ("", &["create 0"][..]),
        ("0~", &none),
        ("0-", &none),
        ("0+", &["create 1"]),
        ("0+ 1!", &none),
        ("0+ 2+", &["create 1"]),
        ("0+ 1x 2+", &["delete db-1"]),
        ("0x", &["delete db-0"]),
        ("0+ 1+ 2+", &none),
        ("0+ 1+ 2+ 3+ 4+", &["delete db-4"]),
        ("0+ 1+ 2+ 3+ 4!", &none),
        ("0+ 1+ 2- 3+ 4+", &none),
        ("0+ 1+ 2+ 3- 4+", &["delete db-4"]),
        ("0+ 1+ 2+ 3+ 4-", &["delete db-4"]),
        ("0+ 1+ 2+ 3- 4-", &none),
        ("0+ 1+ 2+ 10+ 9+", &["delete db-10"]),
    ] {
        assert_eq!(steps(json!({}), pods), expected, "{pods}");
    }
}

#[test]
fn a_parallel_set_takes_all_steps_at_once() {
    let parallel = |replicas: i32| json!({"podManagementPolicy": "Parallel", "replicas": replicas});
    assert_eq!(steps(parallel(3), "1-"), ["create 0", "create 2"]);
    assert_eq!(steps(parallel(1), "0- 1+ 2! 3-"), ["delete db-3", "delete db-1"]);
    assert_eq!(steps(parallel(2), "0x"), ["delete db-0", "create 1"]);
    assert_eq!(steps(parallel(1), "0xold"), ["delete db-0"], "not deleted twice");
    assert_eq!(steps(parallel(2_000_000), "").len(), BURST);
}

#[test]
fn outdated_pods_go_from_the_top_one_at_a_time() {
    let none: [&str; 0] = [];
    for (pods, expected) in [
        ("0+old 1+old 2+old", &["delete db-2"][..]),
        ("0+old 1+old 2!old", &none),
        ("0+old 1+old", &["create 2"]),
        ("0+old 1+old 2-", &none),
        ("0+old 1+old 2+", &["delete db-1"]),
        ("0+old 1+ 2+", &["delete db-0"]),
        ("0+old 1-old 2+", &none),
        ("0+old 1+old 2+ 3+old", &["delete db-3"]),
    ] {
        assert_eq!(steps(json!({}), pods), expected, "{pods}");
    }
    let by_hand = || json!({"updateStrategy": {"type": "OnDelete"}});
    assert_eq!(steps(by_hand(), "0+old 1+old 2+old"), none);
    assert_eq!(steps(by_hand(), "0+old 1+old"), ["create 2"]);
}

#[test]
fn a_partition_keeps_the_pods_below_it() {
    let partition = |at: i32| json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": at}}});
    assert_eq!(steps(partition(2), "0+old 1+old 2+old"), ["delete db-2"]);
    assert!(steps(partition(2), "0+old 1+old 2+").is_empty());
    assert_eq!(steps(partition(2), "0+old 2+"), ["create 1 as before"]);
    assert_eq!(steps(partition(1), "0+old 2+"), ["create 1"]);
    let mut moved = partition(1);
    moved["ordinals"] = json!({"start": 5});
    assert_eq!(steps(moved.clone(), ""), ["create 5 as before"]);
    assert_eq!(steps(moved.clone(), "5+old 6+old 7+"), ["delete db-6"]);
    assert_eq!(steps(moved, "5+old 6+ 7+ 0+ 1+"), ["delete db-1"], "what is below the range goes too");
}

#[test]
fn no_more_than_max_unavailable_are_down() {
    let most = |value: Value, policy: &str| {
        let rolling = json!({"partition": 0, "maxUnavailable": value});
        json!({"replicas": 5, "podManagementPolicy": policy, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}})
    };
    let old = "0+old 1+old 2+old 3+old 4+old";
    assert_eq!(steps(most(json!(2), "OrderedReady"), old), ["delete db-4", "delete db-3"]);
    assert_eq!(steps(most(json!("50%"), "Parallel"), old), ["delete db-4", "delete db-3"]);
    assert_eq!(steps(most(json!("1%"), "Parallel"), old), ["delete db-4"], "at least one");
    assert_eq!(steps(most(json!(2), "Parallel"), "0+old 1+old 2+old 3+old 4!old"), ["delete db-3"]);
    assert_eq!(steps(most(json!(2), "Parallel"), "0+old 1+old 2+old 3-"), ["create 4"]);
    assert_eq!(steps(most(json!(2), "Parallel"), "0+old 1+old 2+old 3+ 4-"), ["delete db-2"]);
}

#[test]
fn a_pod_is_available_only_after_min_ready_seconds() {
    assert!(steps(json!({"minReadySeconds": 30}), "0+").is_empty(), "ready for ten seconds");
    assert_eq!(steps(json!({"minReadySeconds": 10}), "0+"), ["create 1"]);
}

fn storage(when_scaled: &str) -> Value {
    json!({"replicas": 1, "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
        "persistentVolumeClaimRetentionPolicy": {"whenScaled": when_scaled, "whenDeleted": "Retain"}})
}

fn claim(ordinal: i32, pod_uid: Option<&str>) -> PersistentVolumeClaim {
    let owners: Vec<Value> = pod_uid
        .into_iter()
        .map(|uid| json!({"apiVersion": "v1", "kind": "Pod", "name": format!("db-{ordinal}"), "uid": uid, "controller": true}))
        .collect();
    let meta = json!({"name": format!("data-db-{ordinal}"), "ownerReferences": owners});
    serde_json::from_value(json!({"metadata": meta})).unwrap()
}

#[test]
fn a_pod_waits_until_the_claim_of_its_predecessor_is_gone() {
    assert_eq!(with_claims(storage("Delete"), "", &[claim(0, Some("old"))]), Vec::<String>::new());
    assert_eq!(with_claims(storage("Retain"), "", &[claim(0, Some("old"))]), ["create 0"]);
    assert_eq!(with_claims(storage("Delete"), "", &[claim(0, None)]), ["create 0"]);
}

#[test]
fn claims_go_with_pods_that_are_scaled_away() {
    let mut plain = storage("Delete");
    plain["volumeClaimTemplates"] = json!([]);
    let pods = "0~ 1+";
    assert_eq!(with_claims(storage("Delete"), pods, &[claim(0, None)]), ["provide db-0"]);
    assert_eq!(with_claims(plain, pods, &[]), Vec::<String>::new(), "nothing to provide");
    let running = with_claims(storage("Delete"), "0+ 1+", &[claim(0, Some("uid-db-0")), claim(1, None)]);
    assert_eq!(running, ["repair db-0", "own db-0", "own db-1", "delete db-1"]);
}
