//! Scheduling decisions and the queue, through their boundaries.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use trireme_client::Object;

use crate::fixtures::{Cluster, node, object, placed, pod, refused};
use crate::framework::Wake;
use crate::queue::Queue;

/// The message if no pod can be preempted, as all have the same priority.
fn hopeless(what: &str, nodes: usize) -> Result<String, String> {
    refused(&format!(
        "0/{nodes} nodes are available: {what}. preemption: 0/{nodes} nodes are available: {nodes} No preemption victims found for incoming pod."
    ))
}

/// The message if preemption would not help.
fn not_helpful(what: &str, nodes: usize) -> Result<String, String> {
    refused(&format!(
        "0/{nodes} nodes are available: {what}. preemption: 0/{nodes} nodes are available: {nodes} Preemption is not helpful for scheduling."
    ))
}

#[test]
fn the_emptier_node_is_chosen_and_a_full_cluster_says_why() {
    let mut world = Cluster::new(vec![node("a", "2", json!({})), node("b", "4", json!({}))]);
    assert_eq!(world.place(&pod("p1", "1", json!({}))), placed("b"));
    assert_eq!(world.place(&pod("p2", "2", json!({}))), placed("b"));
    assert_eq!(world.place(&pod("p3", "2", json!({}))), placed("a"));
    assert_eq!(world.place(&pod("p4", "2", json!({}))), hopeless("2 Insufficient cpu", 2));
    let greedy = pod("p5", "2", json!({"spec": {"overhead": {"memory": "64Gi", "example.com/gpu": "1"}}}));
    assert_eq!(world.place(&greedy), not_helpful("2 Insufficient cpu, 2 Insufficient example.com/gpu, 2 Insufficient memory", 2));
    world.cache.forget("p3");
    assert_eq!(world.place(&pod("p4", "2", json!({}))), placed("a"), "a forgotten pod gives its place back");
    assert_eq!(Cluster::new(vec![]).place(&pod("p", "1", json!({}))), refused("no nodes available to schedule pods"));
}

#[test]
fn each_filter_speaks_upstreams_words() {
    let cases: Vec<(Value, Value, &str)> = vec![
        (json!({"spec": {"unschedulable": true}}), json!({}), "node(s) were unschedulable"),
        (json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}}), json!({}), "node(s) had untolerated taint(s)"),
        (json!({}), json!({"spec": {"nodeSelector": {"disk": "ssd"}}}), "node(s) didn't match Pod's node affinity/selector"),
        (json!({"status": {"allocatable": {"pods": "0"}}}), json!({}), "Too many pods"),
        (
            json!({}),
            json!({"spec": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "db"}}}]}}}}),
            "node(s) didn't match pod affinity rules",
        ),
        (
            json!({}),
            json!({"spec": {"topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}]}}),
            "node(s) didn't match pod topology spread constraints (missing required label)",
        ),
    ];
    for (of_node, of_pod, reason) in cases {
        let mut world = Cluster::new(vec![node("a", "2", of_node)]);
        let said = format!("1 {reason}");
        let expected = if reason == "Too many pods" { hopeless(&said, 1) } else { not_helpful(&said, 1) };
        assert_eq!(world.place(&pod("p", "1", of_pod)), expected);
    }
    let claim = json!({"spec": {"resourceClaims": [{"name": "gpu"}]}});
    let message = Cluster::new(vec![node("a", "2", json!({}))]).place(&pod("p", "1", claim)).unwrap_err();
    assert!(message.contains("ResourceClaims"), "{message}");
}

#[test]
fn tolerations_ports_and_affinities_open_and_close_nodes() {
    let tainted = json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}});
    let mut world = Cluster::new(vec![node("a", "4", tainted)]);
    let tolerant = json!({"spec": {"tolerations": [{"key": "k", "operator": "Equal", "value": "v"}]}});
    assert_eq!(world.place(&pod("p", "1", tolerant)), placed("a"));

    let port = json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}});
    let mut world = Cluster::new(vec![node("a", "4", json!({}))]);
    assert_eq!(world.place(&pod("p1", "1", port.clone())), placed("a"));
    assert_eq!(world.place(&pod("p2", "1", port)), hopeless("1 node(s) didn't have free ports for the requested pod ports", 1));

    let apart = json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]}}}});
    let mut world = Cluster::new(vec![node("a", "4", json!({})), node("b", "4", json!({}))]);
    let first = world.place(&pod("p1", "1", apart.clone())).unwrap();
    let second = world.place(&pod("p2", "1", apart.clone())).unwrap();
    assert_ne!(first, second);
    assert_eq!(world.place(&pod("p3", "1", apart)), hopeless("2 node(s) didn't match pod anti-affinity rules", 2));
    assert_eq!(world.place(&pod("p4", "1", json!({}))), hopeless("2 node(s) didn't satisfy existing pods anti-affinity rules", 2));
}

#[test]
fn pods_spread_over_zones_within_the_skew() {
    let zone = |zone: &str| json!({"metadata": {"labels": {"zone": zone}}});
    let nodes = vec![node("a1", "8", zone("a")), node("a2", "8", zone("a")), node("b1", "8", zone("b"))];
    let mut world = Cluster::new(nodes);
    let spread = json!({"spec": {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]}});
    let mut in_b = 0;
    for nth in 0..6 {
        let chosen = world.place(&pod(&format!("p{nth}"), "100m", spread.clone())).unwrap();
        in_b += usize::from(chosen == "b1");
    }
    assert_eq!(in_b, 3, "half of them, although zone a has two nodes");
}

#[test]
fn host_ports_clash_by_number_protocol_and_address() {
    let port = |name: &str, port: Value| {
        let mut of = port;
        of["containerPort"] = json!(80);
        pod(name, "0", json!({"spec": {"containers": [{"name": "c", "ports": [of]}]}}))
    };
    // The port in use, the requested port, whether both fit on one node.
    let cases = [
        (json!({"hostPort": 80}), json!({"hostPort": 81}), true),
        (json!({"hostPort": 80}), json!({"hostPort": 80}), false),
        (json!({"hostPort": 80, "protocol": "TCP"}), json!({"hostPort": 80, "protocol": "UDP"}), true),
        (json!({"hostPort": 80, "hostIP": "127.0.0.1"}), json!({"hostPort": 80, "hostIP": "127.0.0.2"}), true),
        (json!({"hostPort": 80, "hostIP": "127.0.0.1"}), json!({"hostPort": 80, "hostIP": "0.0.0.0"}), false),
        (json!({"hostPort": 80, "hostIP": "0.0.0.0"}), json!({"hostPort": 80, "hostIP": "127.0.0.1"}), false),
        (json!({"hostPort": 80}), json!({"hostPort": 80, "hostIP": "127.0.0.1"}), false),
    ];
    for (taken, wanted, both) in cases {
        let mut world = Cluster::new(vec![node("a", "4", json!({}))]);
        assert_eq!(world.place(&port("p1", taken.clone())), placed("a"));
        assert_eq!(world.place(&port("p2", wanted.clone())).is_ok(), both, "{taken} and {wanted}");
    }
}

#[test]
fn pods_that_name_their_nodes_are_told_of_the_others() {
    let named = |names: Value| {
        json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": names}]}]}}}}})
    };
    let mut world = Cluster::new(vec![node("a", "1", json!({})), node("b", "1", json!({})), node("c", "1", json!({}))]);
    assert_eq!(world.place(&pod("p1", "1", named(json!(["b"])))), placed("b"));
    assert_eq!(
        world.place(&pod("p2", "1", named(json!(["b"])))),
        refused(
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]. \
             preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, \
             2 Preemption is not helpful for scheduling."
        )
    );
    assert_eq!(world.place(&pod("p3", "1", named(json!(["gone"])))), not_helpful("3 node(s) didn't satisfy plugin(s) [NodeAffinity]", 3));
    assert_eq!(world.place(&pod("p4", "1", named(json!([])))), not_helpful("pod affinity terms conflict", 3));
}

#[test]
fn affinity_looks_into_other_namespaces_by_name_and_by_label() {
    let near = |scope: Value| {
        let mut term = scope;
        term["topologyKey"] = json!("kubernetes.io/hostname");
        term["labelSelector"] = json!({"matchLabels": {"app": "db"}});
        json!({"spec": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}})
    };
    let mut world = Cluster::new(vec![node("a", "4", json!({})), node("b", "4", json!({}))]);
    world.world.namespaces = vec![object(json!({"metadata": {"name": "data", "labels": {"team": "store"}}}))];
    world.run(&pod("db", "1", json!({"metadata": {"namespace": "data", "labels": {"app": "db"}}})), "b");
    let cases = [
        (json!({}), None),
        (json!({"namespaces": ["data"]}), Some("b")),
        (json!({"namespaceSelector": {"matchLabels": {"team": "store"}}}), Some("b")),
        (json!({"namespaceSelector": {"matchLabels": {"team": "other"}}}), None),
        (json!({"namespaceSelector": {}}), Some("b")),
        (json!({"namespaces": ["other"], "namespaceSelector": {"matchLabels": {"team": "store"}}}), Some("b")),
        (json!({"namespaces": ["data"], "matchLabelKeys": ["app"]}), None),
        (json!({"namespaces": ["data"], "mismatchLabelKeys": ["app"]}), Some("b")),
    ];
    for (scope, expected) in cases {
        assert_eq!(world.place(&pod("p", "0", near(scope.clone()))).ok().as_deref(), expected, "{scope}");
        world.cache.remove("p");
    }
}

#[test]
fn one_pod_has_to_match_all_affinity_terms() {
    let term = |key: &str, value: &str| json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {key: value}}});
    let both = json!({"spec": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        [term("app", "db"), term("tier", "gold")]}}}});
    let mut world = Cluster::new(vec![node("a", "4", json!({})), node("b", "4", json!({}))]);
    world.run(&pod("db", "1", json!({"metadata": {"labels": {"app": "db"}}})), "a");
    world.run(&pod("gold", "1", json!({"metadata": {"labels": {"tier": "gold"}}})), "a");
    assert!(world.place(&pod("p", "0", both.clone())).is_err());
    world.run(&pod("golden-db", "1", json!({"metadata": {"labels": {"app": "db", "tier": "gold"}}})), "b");
    assert_eq!(world.place(&pod("p", "0", both)), placed("b"));
}

#[test]
fn a_pod_that_is_resized_counts_with_the_most_it_may_have() {
    let status = |has: &str, promised: &str, conditions: Value| {
        json!({"status": {"conditions": conditions, "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": true,
            "restartCount": 0, "allocatedResources": {"cpu": promised}, "resources": {"requests": {"cpu": has}}}]}})
    };
    let infeasible = json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]);
    for (asks, extra, room) in [
        ("1", json!({}), 3),
        ("1", status("3", "1", json!([])), 1),
        ("1", status("1", "2", json!([])), 2),
        ("3", status("1", "1", json!([])), 1),
        ("3", status("1", "1", infeasible), 3),
    ] {
        let mut world = Cluster::new(vec![node("a", "4", json!({}))]);
        world.run(&pod("resized", asks, extra.clone()), "a");
        assert!(world.place(&pod("fits", &room.to_string(), json!({}))).is_ok(), "asks for {asks}, {extra}");
        assert!(world.place(&pod("too-much", "1", json!({}))).is_err(), "asks for {asks}, {extra}");
    }
}

#[tokio::test(start_paused = true)]
async fn unschedulable_pods_wait_for_what_may_help_them_and_back_off() {
    let secs = Duration::from_secs;
    let start = Instant::now();
    let mut queue = Queue::new(secs(1), secs(10), secs(300), start);
    let wakes = |plugin: &str, wake: Wake| plugin == "Fit" && wake == Wake::PodFreed;
    let fit: BTreeSet<&'static str> = BTreeSet::from(["Fit"]);
    queue.add(pod("low", "1", json!({})), start);
    queue.add(pod("high", "1", json!({"spec": {"priority": 100}})), start);
    let next = |queue: &mut Queue, at: Instant| queue.pop(at).map(|pod| pod.name().to_owned());
    assert_eq!(next(&mut queue, start).as_deref(), Some("high"));
    assert_eq!(next(&mut queue, start).as_deref(), Some("low"));
    assert_eq!(next(&mut queue, start), None);

    // Refused: nothing that does not help wakes it, and what helps still waits for the backoff, if others can be tried.
    queue.failed("high", fit.clone(), wakes, start);
    queue.happened(Wake::NodeChanged, wakes, start);
    assert_eq!(next(&mut queue, start + secs(30)), None);
    queue.happened(Wake::PodFreed, wakes, start);
    queue.add(pod("new", "1", json!({})), start);
    assert_eq!(next(&mut queue, start).as_deref(), Some("new"), "less important, but the other one backs off");
    queue.remove("new");
    assert_eq!(next(&mut queue, start).as_deref(), Some("high"), "there is nothing else to try");

    // An event that arrives while a pod is being tried is not lost.
    let later = start + secs(5);
    queue.happened(Wake::PodFreed, wakes, later);
    queue.failed("high", fit.clone(), wakes, later);
    queue.add(pod("new", "1", json!({"spec": {"priority": 1}})), later);
    assert_eq!(next(&mut queue, later + secs(1)).as_deref(), Some("new"));
    queue.failed("new", fit.clone(), wakes, later + secs(1));
    assert_eq!(next(&mut queue, later + secs(2)).as_deref(), Some("high"), "the second wait is twice the first");

    // An error is waited out, whatever happens.
    queue.failed("high", BTreeSet::new(), wakes, later);
    queue.happened(Wake::PodFreed, wakes, later);
    queue.remove("new");
    queue.remove("low");
    assert_eq!(next(&mut queue, later + secs(3)), None);
    assert_eq!(queue.next_due(), Some(later + secs(4)));
    assert_eq!(next(&mut queue, later + secs(4)).as_deref(), Some("high"));

    // Without any event, the pod is tried again after the flush interval.
    queue.failed("high", fit, wakes, later);
    assert_eq!(queue.next_due(), Some(later + secs(300)));
    assert_eq!(next(&mut queue, later + secs(300)).as_deref(), Some("high"));
}

#[tokio::test(start_paused = true)]
async fn of_equals_the_one_that_was_tried_longest_ago_is_next() {
    let secs = Duration::from_secs;
    let start = Instant::now();
    let mut queue = Queue::new(secs(1), secs(10), secs(300), start);
    let always = |_: &str, _: Wake| true;
    let next = |queue: &mut Queue, at: Instant| queue.pop(at).map(|pod| pod.name().to_owned()).unwrap_or_default();
    queue.add(pod("first", "1", json!({})), start);
    assert_eq!(next(&mut queue, start), "first");
    queue.add(pod("second", "1", json!({})), start + secs(1));
    queue.failed("first", BTreeSet::from(["Fit"]), always, start + secs(2));
    queue.happened(Wake::PodFreed, always, start + secs(4));
    assert_eq!([next(&mut queue, start + secs(4)), next(&mut queue, start + secs(4))], ["second", "first"]);
}
