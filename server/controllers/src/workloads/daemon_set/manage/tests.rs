#![allow(clippy::unwrap_used)]

use k8s_openapi::api::apps::v1::DaemonSet;
use serde_json::json;

use super::super::pod::by_node;
use super::*;

/// What a situation is made from. A pod is `node:revision:state`: `+` available, `-` not ready, `~` pending and unbound, `x` failed,
/// `s` succeeded, `!` being deleted.
struct Case {
    set: DaemonSet,
    nodes: Vec<Arc<Node>>,
    pods: ByNode,
}

impl Case {
    fn new(nodes: &str, pods: &str) -> Self {
        let set = json!({"metadata": {"name": "log"}, "spec": {"selector": {}, "template": {"spec": {"containers": []}}}});
        // A node with `!` drives the pods away, one with `?` takes no new ones.
        let node = |text: &str| {
            let (name, effect) = match text.strip_suffix(['!', '?']) {
                Some(name) => (name, Some(if text.ends_with('!') { "NoExecute" } else { "NoSchedule" })),
                None => (text, None),
            };
            let taints: Vec<_> = effect.into_iter().map(|effect| json!({"key": "k", "effect": effect})).collect();
            Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"taints": taints}})).unwrap())
        };
        let all: Vec<Arc<Pod>> = pods.split_whitespace().enumerate().map(|(nth, text)| pod(nth, text)).collect();
        Self { set: serde_json::from_value(set).unwrap(), nodes: nodes.split_whitespace().map(node).collect(), pods: by_node(&all) }
    }

    fn plan(&self, surges: bool) -> [String; 4] {
        let situation = Situation {
            nodes: &self.nodes,
            pods: &self.pods,
            place: &Place::of(&self.set),
            newest: &Newest::of(&self.set, "new"),
            surges,
            min_ready_secs: 0,
            now: "2026-01-01T01:00:00Z".parse().unwrap(),
        };
        let plan = manage(&situation);
        let names = |pods: Vec<&Arc<Pod>>| pods.iter().map(|pod| pod.name().to_owned()).collect::<Vec<_>>().join(" ");
        [
            plan.create.join(" "),
            names(plan.delete.iter().collect()),
            names(plan.failed.iter().map(|(_, pod)| pod).collect()),
            names(plan.succeeded.iter().collect()),
        ]
    }
}

fn pod(nth: usize, text: &str) -> Arc<Pod> {
    let parts: Vec<&str> = text.split(':').collect();
    let [node, revision, state] = parts[..] else { unreachable!("{text}") };
    let (phase, ready) = match state {
        "+" => ("Running", "True"),
        "x" => ("Failed", "False"),
        "s" => ("Succeeded", "False"),
        "~" => ("Pending", "False"),
        _ => ("Running", "False"),
    };
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]}}});
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": format!("p{nth}"), "uid": format!("p{nth}"), "labels": {"controller-revision-hash": revision},
                "creationTimestamp": format!("2026-01-01T00:00:{nth:02}Z"),
                "deletionTimestamp": (state == "!").then_some("2026-01-01T00:59:00Z")},
            "spec": {"containers": [], "affinity": affinity, "nodeName": if state == "~" { "" } else { node }},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap(),
    )
}

#[test]
fn every_node_that_may_has_one_pod() {
    // nodes, pods: created on, deleted, failed, succeeded
    for (nodes, pods, expected) in [
        ("a b", "", ["a b", "", "", ""]),
        ("a b", "a:new:+", ["b", "", "", ""]),
        ("a", "a:new:~", ["", "", "", ""]),
        ("a", "a:new:!", ["", "", "", ""]),
        ("a", "a:new:x", ["", "", "p0", ""]),
        ("a", "a:new:s", ["", "", "", "p0"]),
        ("a", "a:new:+ a:new:+ a:old:-", ["", "p1 p2", "", ""]),
        ("a", "a:new:~ a:new:+", ["", "p0", "", ""]),
        ("a!", "", ["", "", "", ""]),
        ("a!", "a:new:+ a:new:!", ["", "p0", "", ""]),
        ("a?", "", ["", "", "", ""]),
        ("a?", "a:new:+", ["", "", "", ""]),
        ("a", "gone:new:~ lost:new:+", ["a", "p0", "", ""]),
    ] {
        assert_eq!(Case::new(nodes, pods).plan(false), expected, "{nodes} with {pods}");
    }
}

#[test]
fn a_surge_keeps_an_old_pod_until_the_new_one_is_available() {
    for (nodes, pods, expected) in [
        ("a", "", ["a", "", "", ""]),
        ("a", "a:new:!", ["a", "", "", ""]),
        ("a?", "a:new:!", ["", "", "", ""]),
        ("a", "a:old:+ a:new:-", ["", "", "", ""]),
        ("a", "a:old:+ a:new:+", ["", "p0", "", ""]),
        ("a", "a:old:- a:new:-", ["", "p0", "", ""]),
        ("a", "a:old:+ a:old:+ a:new:- a:new:-", ["", "p3 p1", "", ""]),
        ("a", "a:old:x a:new:+", ["", "", "p0", ""]),
    ] {
        assert_eq!(Case::new(nodes, pods).plan(true), expected, "{nodes} with {pods}");
    }
}
