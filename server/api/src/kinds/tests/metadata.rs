//! What each subresource keeps of `metadata`, as upstream's strategies do.

use serde_json::{Value, json};

use super::now;
use crate::kinds::find;

fn written(group: &str, plural: &str, subresource: &str) -> Value {
    let old = json!({"metadata": {"name": "a", "labels": {"old": "1"}, "annotations": {"old": "1"}, "finalizers": ["a.io/old"],
        "generation": 3}, "spec": {"containers": [{"name": "c"}]}, "status": {}});
    let mut new = old.clone();
    for key in ["labels", "annotations"] {
        new["metadata"][key] = json!({"new": "1"});
    }
    new["metadata"]["finalizers"] = json!(["a.io/new"]);
    find(group, plural).unwrap().prepare_for_subresource(subresource, &mut new, &old, now());
    new["metadata"].take()
}

#[test]
fn most_status_updates_may_write_metadata_and_some_may_not() {
    let free = [
        ("", "pods"),
        ("", "nodes"),
        ("", "services"),
        ("", "namespaces"),
        ("apps", "replicasets"),
        ("apps", "statefulsets"),
        ("batch", "jobs"),
        ("policy", "poddisruptionbudgets"),
        ("certificates.k8s.io", "certificatesigningrequests"),
        ("apiextensions.k8s.io", "customresourcedefinitions"),
    ];
    for (group, plural) in free {
        let metadata = written(group, plural, "status");
        assert_eq!((&metadata["labels"], &metadata["annotations"]), (&json!({"new": "1"}), &json!({"new": "1"})), "{plural}");
        assert_eq!(metadata["generation"], 3);
    }
    let deployment = written("apps", "deployments", "status");
    assert_eq!((&deployment["labels"], &deployment["annotations"]), (&json!({"old": "1"}), &json!({"new": "1"})));
    let kept = [
        ("networking.k8s.io", "servicecidrs"),
        ("storage.k8s.io", "volumeattachments"),
        ("resource.k8s.io", "resourceclaims"),
        ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
        ("flowcontrol.apiserver.k8s.io", "flowschemas"),
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"),
    ];
    for (group, plural) in kept {
        let metadata = written(group, plural, "status");
        for (key, value) in [("labels", json!({"old": "1"})), ("annotations", json!({"old": "1"})), ("finalizers", json!(["a.io/old"]))] {
            assert_eq!(metadata[key], value, "{plural} {key}");
        }
    }
}

#[test]
fn parts_of_a_pod_keep_its_metadata_and_a_namespaces_finalize_does_not() {
    for part in ["ephemeralcontainers", "resize"] {
        assert_eq!(written("", "pods", part)["annotations"], json!({"old": "1"}), "{part}");
    }
    assert_eq!(written("", "namespaces", "finalize")["annotations"], json!({"new": "1"}));
}

#[test]
fn a_resize_takes_resources_and_a_debug_container_nothing_else() {
    let pods = find("", "pods").unwrap();
    let old = json!({"metadata": {"name": "p", "generation": 1}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "a"}]}});
    let mut new = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "m", "containers": [
        {"name": "c", "image": "b", "resources": {"limits": {"cpu": "1"}}}], "ephemeralContainers": [{"name": "d"}]}});
    let mut resized = new.clone();
    pods.prepare_for_subresource("resize", &mut resized, &old, now());
    assert_eq!(
        resized["spec"],
        json!({"nodeName": "n", "containers": [{"name": "c", "image": "a", "resources": {"limits": {"cpu": "1"}}}]})
    );
    assert_eq!(resized["metadata"]["generation"], 2);
    pods.prepare_for_subresource("ephemeralcontainers", &mut new, &old, now());
    assert_eq!(new["spec"], json!({"nodeName": "n", "containers": [{"name": "c", "image": "a"}], "ephemeralContainers": [{"name": "d"}]}));
}
