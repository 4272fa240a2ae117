//! What writes may touch, by kind and path.

use std::sync::Arc;

use serde_json::{Value, json};

use super::now;
use crate::meta;
use crate::resource::{Definition, Dependents};

fn for_resource(group: &str, plural: &str) -> Arc<Definition> {
    crate::kinds::find(group, plural).unwrap()
}

fn qos_class(pod: &Value) -> Value {
    let mut pod = pod.clone();
    for_resource("", "pods").prepare_for_create(&mut pod, now());
    pod["status"]["qosClass"].take()
}

#[test]
fn a_new_pod_is_pending_and_brings_no_status() {
    let mut pod = json!({"metadata": {"uid": "u"}, "spec": {"containers": [{"name": "c"}]}, "status": {"phase": "Running"}});
    for_resource("", "pods").prepare_for_create(&mut pod, now());
    assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    assert_eq!(meta::generation(&pod), 1);
}

#[test]
fn status_and_spec_are_written_through_different_paths() {
    let strategy = for_resource("apps", "deployments");
    let old = json!({"metadata": {"generation": 3}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
    let both = json!({"metadata": {"generation": 9}, "spec": {"replicas": 2}, "status": {"replicas": 2}});
    let mut main = both.clone();
    strategy.prepare_for_update(&mut main, &old);
    assert_eq!(main, json!({"metadata": {"generation": 4}, "spec": {"replicas": 2}, "status": {"replicas": 1}}));
    let mut status = both;
    strategy.prepare_for_subresource("status", &mut status, &old, now());
    assert_eq!(status, json!({"metadata": {"generation": 3}, "spec": {"replicas": 1}, "status": {"replicas": 2}}));
    let mut annotated = old.clone();
    annotated["metadata"]["annotations"] = json!({"a": "b"});
    strategy.prepare_for_update(&mut annotated, &old);
    assert_eq!(meta::generation(&annotated), 4, "annotations of a Deployment count");
}

#[test]
fn a_pods_grace_is_nothing_where_nothing_runs() {
    let strategy = for_resource("", "pods");
    let pod =
        |node: &str, phase: &str| json!({"spec": {"nodeName": node, "terminationGracePeriodSeconds": 30}, "status": {"phase": phase}});
    assert_eq!(strategy.kind.grace_period_secs(&pod("n", "Running"), None), Some(30));
    assert_eq!(strategy.kind.grace_period_secs(&pod("n", "Running"), Some(5)), Some(5));
    assert_eq!(strategy.kind.grace_period_secs(&pod("n", "Running"), Some(-1)), Some(1));
    assert_eq!(strategy.kind.grace_period_secs(&pod("", "Pending"), Some(5)), Some(0));
    assert_eq!(strategy.kind.grace_period_secs(&pod("n", "Failed"), None), Some(0));
    assert_eq!(for_resource("", "configmaps").kind.grace_period_secs(&json!({}), Some(5)), None);
}

#[test]
fn quality_of_service_by_requests_and_limits() {
    let pod = |resources: Value| json!({"spec": {"containers": [{"resources": resources}]}});
    let both = json!({"cpu": "1", "memory": "1Gi"});
    for (resources, class) in [
        (json!({}), "BestEffort"),
        (json!({"requests": {"cpu": "0"}}), "BestEffort"),
        (json!({"requests": {"cpu": "1"}}), "Burstable"),
        (json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}), "Burstable"),
        (json!({"limits": both, "requests": both}), "Guaranteed"),
        (json!({"limits": both, "requests": {"cpu": "1000m", "memory": "1024Mi"}}), "Guaranteed"),
        (json!({"limits": both, "requests": {"cpu": "1", "memory": "1Mi"}}), "Burstable"),
    ] {
        assert_eq!(qos_class(&pod(resources.clone())), class, "{resources}");
    }
}

#[test]
fn a_job_selects_its_own_pods_and_orphans_them_by_default() {
    let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {}}});
    let strategy = for_resource("batch", "jobs");
    strategy.prepare_for_create(&mut job, now());
    assert_eq!(job["spec"]["selector"]["matchLabels"], json!({"batch.kubernetes.io/controller-uid": "u"}));
    assert_eq!(job["spec"]["template"]["metadata"]["labels"]["batch.kubernetes.io/job-name"], "j");
    assert_eq!(strategy.kind.dependents(), Dependents::Orphan);
}

#[test]
fn a_service_keeps_what_was_allocated_for_it() {
    let old = json!({"metadata": {}, "spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
        "ipFamilies": ["IPv4"], "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}});
    let mut new =
        json!({"metadata": {}, "spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "TCP"}]}});
    for_resource("", "services").prepare_for_update(&mut new, &old);
    assert_eq!(new["spec"]["clusterIPs"], json!(["10.0.0.1"]));
    assert_eq!(new["spec"]["ports"][0]["nodePort"], 30001);
    assert_eq!(new["spec"]["ports"][1].get("nodePort"), None);
}
