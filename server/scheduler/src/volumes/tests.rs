//! Where pods with claims go.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use crate::fixtures::{Cluster, merge, node, object, placed, pod};

fn class(name: &str, provisioner: &str, late: bool) -> Value {
    let mode = if late { "WaitForFirstConsumer" } else { "Immediate" };
    json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode})
}

fn claim(name: &str, class: &str, more: Value) -> Value {
    let mut claim = json!({"metadata": {"name": name, "namespace": "ns", "uid": format!("uid-of-{name}")}, "spec": {
        "storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    merge(&mut claim, more);
    claim
}

fn bound(volume: &str) -> Value {
    json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}, "spec": {"volumeName": volume}, "status": {"phase": "Bound"}})
}

/// A volume that only this host has.
fn volume(name: &str, class: &str, host: &str, more: Value) -> Value {
    let term = json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]});
    let mut volume = json!({"metadata": {"name": name}, "status": {"phase": "Available"}, "spec": {
        "storageClassName": class, "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}}});
    merge(&mut volume, more);
    volume
}

fn uses(names: &[&str]) -> Value {
    let volumes: Vec<Value> = names.iter().map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}})).collect();
    json!({"spec": {"volumes": volumes}})
}

/// Nodes a and b, the classes `late` (provisioned), `manual` (late, not provisioned) and `now`, and these objects.
fn cluster(claims: Vec<Value>, volumes: Vec<Value>) -> Cluster {
    let mut cluster = Cluster::new(vec![node("a", "4", json!({})), node("b", "8", json!({}))]);
    cluster.world.classes = vec![
        object(class("late", "p", true)),
        object(class("manual", "kubernetes.io/no-provisioner", true)),
        object(class("now", "p", false)),
    ];
    cluster.world.claims = claims.into_iter().map(object).collect();
    cluster.world.volumes = volumes.into_iter().map(object).collect();
    cluster
}

fn says(cluster: &mut Cluster, names: &[&str]) -> String {
    cluster.place(&pod("p", "1", uses(names))).unwrap_err()
}

#[test]
fn what_a_claim_lacks_is_said_in_upstreams_words() {
    let cases = [
        (vec![], vec![], "persistentvolumeclaim \"c\" not found"),
        (vec![claim("c", "now", json!({}))], vec![], "pod has unbound immediate PersistentVolumeClaims"),
        (vec![claim("c", "nowhere", json!({}))], vec![], "pod has unbound immediate PersistentVolumeClaims"),
        (vec![claim("c", "late", json!({"spec": {"volumeName": "v"}}))], vec![], "pod has unbound immediate PersistentVolumeClaims"),
        (
            vec![claim("c", "late", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}))],
            vec![],
            "persistentvolumeclaim \"c\" is being deleted",
        ),
        (
            vec![claim("c", "late", json!({"spec": {"volumeName": "v"}, "status": {"phase": "Lost"}}))],
            vec![],
            "persistentvolumeclaim \"c\" bound to non-existent persistentvolume \"v\"",
        ),
        (vec![claim("c", "now", bound("v"))], vec![], "2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"),
        (
            vec![claim("c", "now", bound("v"))],
            vec![volume("v", "now", "z", json!({}))],
            "2 node(s) didn't match PersistentVolume's node affinity",
        ),
        (
            vec![claim("c", "manual", json!({}))],
            vec![volume("v", "other", "a", json!({}))],
            "2 node(s) didn't find available persistent volumes to bind",
        ),
        (
            vec![claim("c", "late", json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "z"}}}))],
            vec![],
            "2 node(s) didn't find available persistent volumes to bind",
        ),
    ];
    for (claims, volumes, reason) in cases {
        let said = says(&mut cluster(claims, volumes), &["c"]);
        let expected = format!("0/2 nodes are available: {reason}.");
        assert!(said.starts_with(&expected), "{said}\nand not\n{expected}");
        assert!(said.contains("Preemption is not helpful for scheduling"), "{said}");
    }
}

#[test]
fn pods_go_where_their_volumes_are_or_can_be() {
    // Without claims, b is the emptier node.
    let only_a = vec![volume("v", "manual", "a", json!({}))];
    let selected = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "a"}}});
    let reserved = json!({"spec": {"claimRef": {"namespace": "ns", "name": "c"}}});
    let cases = [
        (vec![claim("c", "late", json!({}))], vec![], "b"),
        (vec![claim("c", "late", selected)], vec![], "a"),
        (vec![claim("c", "manual", json!({}))], only_a, "a"),
        (vec![claim("c", "now", bound("v"))], vec![volume("v", "now", "a", json!({}))], "a"),
        (vec![claim("c", "late", json!({}))], vec![volume("v", "late", "a", reserved)], "a"),
    ];
    for (claims, volumes, expected) in cases {
        let said = format!("{claims:?} {volumes:?}");
        assert_eq!(cluster(claims, volumes).place(&pod("p", "1", uses(&["c"]))), placed(expected), "{said}");
    }
}

#[test]
fn a_class_may_allow_some_nodes_only() {
    let mut cluster = cluster(vec![claim("c", "zoned", json!({}))], vec![]);
    let mut zoned = class("zoned", "p", true);
    zoned["allowedTopologies"] = json!([{"matchLabelExpressions": [{"key": "kubernetes.io/hostname", "values": ["a"]}]}]);
    cluster.world.classes.push(object(zoned));
    assert_eq!(cluster.place(&pod("p", "1", uses(&["c"]))), placed("a"));
}

#[test]
fn two_claims_of_a_pod_and_two_pods_on_their_way_do_not_get_the_same_volume() {
    let claims = || vec![claim("c", "manual", json!({})), claim("d", "manual", json!({}))];
    let volumes = || vec![volume("v", "manual", "a", json!({})), volume("w", "manual", "b", json!({}))];
    let said = says(&mut cluster(claims(), volumes()), &["c", "d"]);
    assert!(said.contains("2 node(s) didn't find available persistent volumes to bind"), "each node has one: {said}");
    let mut both = cluster(claims(), volumes());
    let first = both.place(&pod("p1", "1", uses(&["c"]))).unwrap();
    let second = both.place(&pod("p2", "1", uses(&["d"]))).unwrap();
    assert_ne!(first, second);
    let mut one = cluster(claims(), vec![volume("v", "manual", "a", json!({}))]);
    assert_eq!(one.place(&pod("p1", "1", uses(&["c"]))), placed("a"));
    assert!(one.place(&pod("p2", "1", uses(&["d"]))).is_err(), "it is promised");
    one.cache.promise("v", None);
    assert_eq!(one.place(&pod("p2", "1", uses(&["d"]))), placed("a"));
}

#[test]
fn a_claim_for_one_pod_has_one_pod_and_a_more_important_one_takes_it() {
    let exclusive = json!({"spec": {"accessModes": ["ReadWriteOncePod"]}});
    let mut only = claim("c", "now", bound("v"));
    merge(&mut only, exclusive);
    let anywhere = json!({"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOncePod"], "capacity": {"storage": "1Gi"}}});
    let mut cluster = cluster(vec![only], vec![anywhere]);
    assert!(cluster.place(&pod("first", "1", uses(&["c"]))).is_ok());
    let said = cluster.place(&pod("second", "1", uses(&["c"]))).unwrap_err();
    let reason = "2 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
    assert!(said.starts_with(&format!("0/2 nodes are available: {reason}.")), "{said}");
    let mut important = uses(&["c"]);
    important["spec"]["priority"] = json!(100);
    let (_, victims) = cluster.preempt(&pod("important", "1", important)).unwrap();
    assert_eq!(victims, ["first"]);
}

#[test]
fn the_zones_of_a_volume_bind_its_pods() {
    let zone = |zone: &str| json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}});
    let mut in_zones = json!({"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}});
    merge(&mut in_zones, zone("x__y"));
    for (of_a, expected) in [("x", placed("a")), ("y", placed("a"))] {
        let mut cluster = Cluster::new(vec![node("a", "4", zone(of_a)), node("b", "8", zone("z"))]);
        cluster.world.claims = vec![object(claim("c", "now", bound("v")))];
        cluster.world.volumes = vec![object(in_zones.clone())];
        assert_eq!(cluster.place(&pod("p", "1", uses(&["c"]))), expected);
    }
    let mut cluster = Cluster::new(vec![node("b", "8", zone("z"))]);
    cluster.world.claims = vec![object(claim("c", "now", bound("v")))];
    cluster.world.volumes = vec![object(in_zones)];
    assert!(says(&mut cluster, &["c"]).starts_with("0/1 nodes are available: 1 node(s) had no available volume zone."));
}

#[test]
fn an_ephemeral_volume_waits_for_the_claim_that_is_made_for_its_pod() {
    let ephemeral = json!({"spec": {"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]}});
    let mut cluster = cluster(vec![], vec![]);
    let place = |cluster: &mut Cluster| cluster.place(&pod("p", "1", ephemeral.clone()));
    let said = place(&mut cluster).unwrap_err();
    assert!(said.contains("waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-v\""), "{said}");
    cluster.world.claims = vec![object(claim("p-v", "late", json!({})))];
    let said = place(&mut cluster).unwrap_err();
    assert!(said.contains("PVC ns/p-v was not created for pod ns/p (pod is not owner)"), "{said}");
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "p", "controller": true});
    cluster.world.claims = vec![object(claim("p-v", "late", json!({"metadata": {"ownerReferences": [owner]}})))];
    assert_eq!(place(&mut cluster), placed("b"));
}
