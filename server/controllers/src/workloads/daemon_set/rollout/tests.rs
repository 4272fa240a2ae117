#![allow(clippy::unwrap_used)]

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::super::eligible::Place;
use super::super::pod::{Newest, by_node};
use super::*;

fn set(strategy: &Value) -> DaemonSet {
    serde_json::from_value(json!({"metadata": {"name": "log"}, "spec": {
        "selector": {}, "template": {"spec": {"containers": []}}, "updateStrategy": strategy}}))
    .unwrap()
}

fn rolling(unavailable: &Value, surge: &Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}})
}

/// Nodes with their pods: `old+`, `new-` and so on; `.` is a node without one, a leading `!` one that should have none.
fn plan(strategy: &Value, nodes: &str) -> (String, String) {
    let set = set(strategy);
    let (mut all_nodes, mut all_pods): (Vec<Arc<Node>>, Vec<Arc<Pod>>) = (Vec::new(), Vec::new());
    for (nth, text) in nodes.split_whitespace().enumerate() {
        let name = format!("n{nth}");
        let taints: Vec<Value> = text.strip_prefix('!').into_iter().map(|_| json!({"key": "k", "effect": "NoSchedule"})).collect();
        all_nodes.push(Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"taints": taints}})).unwrap()));
        for pod in text.trim_start_matches('!').split(',').filter(|pod| *pod != ".") {
            let (revision, state) = pod.split_at(3);
            all_pods.push(Arc::new(
                serde_json::from_value(json!({
                    "metadata": {"name": format!("{revision}{nth}"), "labels": {"controller-revision-hash": revision},
                        "deletionTimestamp": (state == "!").then_some("2026-01-01T00:00:00Z")},
                    "spec": {"containers": [], "nodeName": name},
                    "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if state == "+" { "True" } else { "False" }}]},
                }))
                .unwrap(),
            ));
        }
    }
    let step = step(
        &Situation {
            nodes: &all_nodes,
            pods: &by_node(&all_pods),
            place: &Place::of(&set),
            newest: &Newest::of(&set, "new"),
            surges: surges(&set),
            min_ready_secs: 0,
            now: "2026-01-01T01:00:00Z".parse().unwrap(),
        },
        &set,
    );
    let deleted: Vec<&str> = step.delete.iter().map(|pod| pod.name()).collect();
    (step.create.join(" "), deleted.join(" "))
}

#[test]
fn the_limits_are_numbers_or_percentages_rounded_up() {
    let limits = |unavailable: Value, surge: Value| {
        let limits = limits(&set(&rolling(&unavailable, &surge)), 10);
        (limits.unavailable, limits.surge)
    };
    assert_eq!(limits(json!(3), json!(0)), (3, 0));
    assert_eq!(limits(json!("25%"), json!(0)), (3, 0));
    assert_eq!(limits(json!(0), json!("11%")), (0, 2));
    assert_eq!(limits(json!(0), json!(0)), (1, 0), "or it would never end");
    assert_eq!(limits(json!("0%"), json!(0)), (1, 0));
    assert!(surges(&set(&rolling(&json!(0), &json!("1%")))));
    assert!(!surges(&set(&json!({"type": "OnDelete"}))) && !updates_by_itself(&set(&json!({"type": "OnDelete"}))));
    assert!(updates_by_itself(&set(&rolling(&json!(1), &json!(0)))));
}

#[test]
fn no_more_than_max_unavailable_nodes_lack_an_available_pod() {
    let at_most = |most: i32| rolling(&json!(most), &json!(0));
    for (most, nodes, deleted) in [
        (1, "old+ old+ old+", "old0"),
        (2, "old+ old+ old+", "old0 old1"),
        (1, "new+ old+ old+", "old1"),
        (1, "new- old+ old+", ""),
        (1, ". old+ old+", ""),
        (1, "old! old+ old+", ""),
        (2, "old! old+ old+", "old1"),
        (1, "old- old+ old+", "old0"),
        (1, "old- old- new-", "old0 old1"),
        (2, "old- old+ old+", "old0 old1"),
        (1, "new+,old+ old+", ""),
        (1, "new+ new+", ""),
        (1, "!. old+", "old1"),
    ] {
        assert_eq!(plan(&at_most(most), nodes), (String::new(), deleted.to_owned()), "{most}: {nodes}");
    }
}

#[test]
fn a_surge_makes_new_pods_first() {
    let at_most = |most: i32| rolling(&json!(0), &json!(most));
    for (most, nodes, created, deleted) in [
        (1, "old+ old+ old+", "n0", ""),
        (2, "old+ old+ old+", "n0 n1", ""),
        (1, "old+,new- old+ old+", "", ""),
        (1, "old+,new+ old+ old+", "n1", "old0"),
        (1, "old- old+ old+", "n0 n1", ""),
        (1, "new+ new+ old+", "n2", ""),
        (1, "old!,new- old+", "n1", ""),
        (1, "!old- new+", "", "old0"),
        (1, "!old+ new+", "", "old0"),
        (1, "!old+ new-", "", ""),
        (1, "!old+ .", "", ""),
    ] {
        assert_eq!(plan(&at_most(most), nodes), (created.to_owned(), deleted.to_owned()), "{most}: {nodes}");
    }
}
