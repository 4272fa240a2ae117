//! Scheduling decisions and the queue, through their boundaries.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};
use tokio::time::Instant;
use trireme_client::Object;

use crate::cache::Cache;
use crate::cycle::schedule;
use crate::framework::{Snapshot, Wake};
use crate::node_info::PodInfo;
use crate::plugins::default_plugins;
use crate::queue::Queue;

fn node(name: &str, cpu: &str, extra: Value) -> Arc<Node> {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "10"}},
    });
    merge(&mut node, extra);
    Arc::new(serde_json::from_value(node).unwrap())
}

fn pod(name: &str, cpu: &str, extra: Value) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
    });
    merge(&mut pod, extra);
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

struct World(Cache);

impl World {
    fn new(nodes: Vec<Arc<Node>>) -> Self {
        let mut cache = Cache::default();
        nodes.into_iter().for_each(|node| cache.set_node(node));
        Self(cache)
    }

    fn place(&mut self, pod: &Arc<Pod>) -> Result<String, String> {
        let info = PodInfo::new(Arc::clone(pod));
        let chosen = {
            let snapshot = Snapshot { nodes: self.0.nodes().collect(), namespaces: HashMap::new() };
            schedule(&default_plugins(), &info, &snapshot, 0).map_err(|unfit| unfit.message())?
        };
        self.0.assume(info, &chosen);
        Ok(chosen)
    }
}

fn refused(message: &str) -> Result<String, String> {
    Err(message.to_owned())
}

fn placed(node: &str) -> Result<String, String> {
    Ok(node.to_owned())
}

#[test]
fn the_emptier_node_is_chosen_and_a_full_cluster_says_why() {
    let mut world = World::new(vec![node("a", "2", json!({})), node("b", "4", json!({}))]);
    assert_eq!(world.place(&pod("p1", "1", json!({}))), placed("b"));
    assert_eq!(world.place(&pod("p2", "2", json!({}))), placed("b"));
    assert_eq!(world.place(&pod("p3", "2", json!({}))), placed("a"));
    assert_eq!(world.place(&pod("p4", "2", json!({}))), refused("0/2 nodes are available: 2 Insufficient cpu."));
    let greedy = pod("p5", "2", json!({"spec": {"overhead": {"memory": "64Gi", "example.com/gpu": "1"}}}));
    assert_eq!(
        world.place(&greedy),
        refused("0/2 nodes are available: 2 Insufficient cpu, 2 Insufficient example.com/gpu, 2 Insufficient memory.")
    );
    world.0.forget("p3");
    assert_eq!(world.place(&pod("p4", "2", json!({}))), placed("a"), "a forgotten pod gives its place back");
    assert_eq!(World::new(vec![]).place(&pod("p", "1", json!({}))), refused("no nodes available to schedule pods"));
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
        let mut world = World::new(vec![node("a", "2", of_node)]);
        let expected = refused(&format!("0/1 nodes are available: 1 {reason}."));
        assert_eq!(world.place(&pod("p", "1", of_pod)), expected);
    }
    let claim = json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}});
    let message = World::new(vec![node("a", "2", json!({}))]).place(&pod("p", "1", claim)).unwrap_err();
    assert!(message.contains("PersistentVolumeClaims"), "{message}");
}

#[test]
fn tolerations_ports_and_affinities_open_and_close_nodes() {
    let tainted = json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}});
    let mut world = World::new(vec![node("a", "4", tainted)]);
    let tolerant = json!({"spec": {"tolerations": [{"key": "k", "operator": "Equal", "value": "v"}]}});
    assert_eq!(world.place(&pod("p", "1", tolerant)), placed("a"));

    let port = json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}});
    let mut world = World::new(vec![node("a", "4", json!({}))]);
    assert_eq!(world.place(&pod("p1", "1", port.clone())), placed("a"));
    assert_eq!(
        world.place(&pod("p2", "1", port)),
        refused("0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.")
    );

    let apart = json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]}}}});
    let mut world = World::new(vec![node("a", "4", json!({})), node("b", "4", json!({}))]);
    let first = world.place(&pod("p1", "1", apart.clone())).unwrap();
    let second = world.place(&pod("p2", "1", apart.clone())).unwrap();
    assert_ne!(first, second);
    assert_eq!(world.place(&pod("p3", "1", apart)), refused("0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules."));
    assert_eq!(
        world.place(&pod("p4", "1", json!({}))),
        refused("0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules.")
    );
}

#[test]
fn pods_spread_over_zones_within_the_skew() {
    let zone = |zone: &str| json!({"metadata": {"labels": {"zone": zone}}});
    let nodes = vec![node("a1", "8", zone("a")), node("a2", "8", zone("a")), node("b1", "8", zone("b"))];
    let mut world = World::new(nodes);
    let spread = json!({"spec": {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]}});
    let mut in_b = 0;
    for nth in 0..6 {
        let chosen = world.place(&pod(&format!("p{nth}"), "100m", spread.clone())).unwrap();
        in_b += usize::from(chosen == "b1");
    }
    assert_eq!(in_b, 3, "half of them, although zone a has two nodes");
}

#[tokio::test(start_paused = true)]
async fn unschedulable_pods_wait_for_what_may_help_them_and_back_off() {
    let secs = Duration::from_secs;
    let mut queue = Queue::new(secs(1), secs(10), secs(300));
    let start = Instant::now();
    let wakes = |plugin: &str, wake: Wake| plugin == "Fit" && wake == Wake::PodFreed;
    let fit: BTreeSet<&'static str> = BTreeSet::from(["Fit"]);
    queue.add(pod("low", "1", json!({})), start);
    queue.add(pod("high", "1", json!({"spec": {"priority": 100}})), start);
    let names = |queue: &mut Queue, at: Instant| std::iter::from_fn(|| queue.pop(at)).map(|pod| pod.name().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&mut queue, start), ["high", "low"]);
    queue.remove("low");

    // Refused: nothing that does not help wakes it, and what helps still waits for the backoff.
    queue.failed("high", fit.clone(), wakes, start);
    queue.happened(Wake::NodeChanged, wakes, start);
    assert!(names(&mut queue, start + secs(30)).is_empty());
    queue.happened(Wake::PodFreed, wakes, start);
    assert!(names(&mut queue, start).is_empty());
    assert_eq!(queue.next_due(), Some(start + secs(1)));
    assert_eq!(names(&mut queue, start + secs(1)), ["high"]);

    // What helps while it is being tried is not lost.
    let later = start + secs(5);
    queue.happened(Wake::PodFreed, wakes, later);
    queue.failed("high", fit.clone(), wakes, later);
    assert_eq!(queue.next_due(), Some(later + secs(2)), "the second wait is twice the first");
    assert_eq!(names(&mut queue, later + secs(2)), ["high"]);

    // Nothing happens for long: it is tried anyway.
    queue.failed("high", fit, wakes, later);
    assert_eq!(queue.next_due(), Some(later + secs(300)));
    assert_eq!(names(&mut queue, later + secs(300)), ["high"]);
}
