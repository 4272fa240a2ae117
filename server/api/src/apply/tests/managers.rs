//! The managers that writes other than apply record.

use serde_json::{Value, json};

use super::{Builtin, Custom, entry, schema, writer};
use crate::apply::scale::{from_scale, to_scale};
use crate::apply::untracked::Untracked;
use crate::apply::{PathElement, differ_in_times_alone, of_user_agent, unprintable};

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "nginx", "namespace": "default", "labels": {"app": "nginx"}},
        "spec": {
            "progressDeadlineSeconds": 600, "replicas": 1, "revisionHistoryLimit": 10, "selector": {"matchLabels": {"app": "nginx"}},
            "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}, "type": "RollingUpdate"},
            "template": {"metadata": {"labels": {"app": "nginx"}}, "spec": {
                "containers": [{"name": "nginx", "image": "nginx", "imagePullPolicy": "Always", "resources": {},
                    "ports": [{"containerPort": 80, "protocol": "TCP"}]}],
                "volumes": [{"name": "v", "emptyDir": {}}], "securityContext": {}, "dnsPolicy": "ClusterFirst"}},
        },
        "status": {},
    })
}

#[test]
fn a_new_object_is_recorded_as_upstream_does() {
    let versions = Builtin("Deployment");
    let mut object = deployment();
    writer(&versions, "apps/v1", "2026-01-01T00:00:00Z").update(None, &mut object, "kubectl-create");
    assert_eq!(
        object["metadata"]["managedFields"],
        json!([{
            "manager": "kubectl-create", "operation": "Update", "apiVersion": "apps/v1", "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": {
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {
                    "f:progressDeadlineSeconds": {}, "f:replicas": {}, "f:revisionHistoryLimit": {}, "f:selector": {},
                    "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}, "f:type": {}},
                    "f:template": {
                        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                        "f:spec": {
                            "f:containers": {"k:{\"name\":\"nginx\"}": {
                                ".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {}, "f:resources": {},
                                "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}},
                            }},
                            "f:dnsPolicy": {}, "f:securityContext": {},
                            "f:volumes": {".": {}, "k:{\"name\":\"v\"}": {".": {}, "f:emptyDir": {}, "f:name": {}}},
                        },
                    },
                },
            },
        }])
    );
}

#[test]
fn a_change_moves_fields_to_its_author() {
    let versions = Builtin("Deployment");
    let mut first = deployment();
    writer(&versions, "apps/v1", "1").update(None, &mut first, "one");
    let mut second = first.clone();
    second["spec"]["replicas"] = json!(3);
    second["metadata"]["labels"]["more"] = json!("x");
    second["spec"].as_object_mut().unwrap().remove("revisionHistoryLimit");
    writer(&versions, "apps/v1", "2").update(Some(&first), &mut second, "two");
    let two = entry(&second, "two").unwrap();
    assert_eq!(two["fieldsV1"], json!({"f:metadata": {"f:labels": {"f:more": {}}}, "f:spec": {"f:replicas": {}}}));
    let one = entry(&second, "one").unwrap();
    assert_eq!((&one["time"], &two["time"]), (&json!("1"), &json!("2")));
    assert!(one["fieldsV1"]["f:spec"].get("f:replicas").is_none() && one["fieldsV1"]["f:spec"].get("f:revisionHistoryLimit").is_none());
    // An update that changes only `status`, which a write of the object itself leaves unchanged, records nothing.
    let mut same = second.clone();
    same["status"] = json!({"replicas": 5});
    same["metadata"].as_object_mut().unwrap().remove("managedFields");
    writer(&versions, "apps/v1", "3").update(Some(&second), &mut same, "three");
    assert_eq!(same["metadata"]["managedFields"], second["metadata"]["managedFields"]);
}

#[test]
fn managers_that_a_client_sends() {
    let versions = Builtin("ConfigMap");
    let mut live = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}});
    writer(&versions, "v1", "1").update(None, &mut live, "one");
    let after = |sent: Value, subresource: &'static str| {
        let mut new = live.clone();
        new["metadata"]["managedFields"] = sent;
        new["data"]["b"] = json!("1");
        let mut writer = writer(&versions, "v1", "2");
        writer.subresource = subresource;
        writer.update(Some(&live), &mut new, "two");
        new["metadata"].get("managedFields").cloned()
    };
    let names =
        |list: Option<Value>| list.map(|list| list.as_array().unwrap().iter().map(|entry| entry["manager"].clone()).collect::<Vec<_>>());
    let own = json!([{"manager": "mine", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:a": {}}}}]);
    assert_eq!(names(after(own.clone(), "")), Some(vec![json!("mine"), json!("two")]), "they are taken");
    assert_eq!(names(after(own, "status")), Some(vec![json!("one"), json!("two")]), "but not through a subresource");
    for reset in [json!([]), json!([{}])] {
        assert_eq!(after(reset, ""), None, "a reset ends tracking");
    }
    for unreadable in
        [json!([{"manager": "m"}]), json!(null), json!([{"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "x"}])]
    {
        assert_eq!(names(after(unreadable, "")), Some(vec![json!("one"), json!("two")]), "those that are stored stay");
    }
    let mut untracked = live.clone();
    untracked["metadata"].as_object_mut().unwrap().remove("managedFields");
    let mut changed = untracked.clone();
    changed["data"]["a"] = json!("2");
    writer(&versions, "v1", "2").update(Some(&untracked), &mut changed, "two");
    assert!(changed["metadata"].get("managedFields").is_none(), "an object without managers stays without");
}

#[test]
fn old_managers_are_united() {
    let versions = Builtin("ConfigMap");
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {}});
    for n in 0..30 {
        let before = object.clone();
        object["data"][format!("k{n}")] = json!("x");
        let live = (n > 0).then_some(&before);
        writer(&versions, "v1", &format!("{n:03}")).update(live, &mut object, &format!("m{n:03}"));
    }
    let managers: Vec<&str> =
        object["metadata"]["managedFields"].as_array().unwrap().iter().map(|e| e["manager"].as_str().unwrap()).collect();
    assert_eq!(managers.len(), 10, "{managers:?}");
    assert!(managers.contains(&"ancient-changes") && managers.contains(&"m029") && managers.contains(&"m021"), "{managers:?}");
    let ancient = entry(&object, "ancient-changes").unwrap();
    assert_eq!((ancient["fieldsV1"]["f:data"].as_object().unwrap().len(), &ancient["time"]), (22, &json!("020")));
}

#[test]
fn a_custom_resource_is_recorded_by_its_schema() {
    let versions = Custom(schema());
    let mut object = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "n", "finalizers": ["a/b"]},
        "spec": {"items": [{"name": "a"}], "whole": {"a": 1}, "free": {"x": {"y": [1]}}, "raw": [1]}});
    writer(&versions, "example.com/v1", "1").update(None, &mut object, "m");
    assert_eq!(
        entry(&object, "m").unwrap()["fieldsV1"],
        json!({
            "f:metadata": {"f:finalizers": {".": {}, "v:\"a/b\"": {}}},
            "f:spec": {
                ".": {}, "f:items": {".": {}, "k:{\"name\":\"a\",\"port\":80}": {".": {}, "f:name": {}}},
                "f:whole": {}, "f:free": {".": {}, "f:x": {".": {}, "f:y": {}}}, "f:raw": {},
            },
        })
    );
}

#[test]
fn fields_that_became_one_value_are_managed_as_one() {
    let versions = Custom(schema());
    let mut object = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "n", "managedFields": [
        {"manager": "m", "operation": "Apply", "apiVersion": "example.com/v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:whole": {".": {}, "f:a": {}}}}}]}, "spec": {"whole": {"a": 1}}});
    let before = object.clone();
    object["spec"]["a"] = json!(1);
    writer(&versions, "example.com/v1", "1").update(Some(&before), &mut object, "two");
    assert_eq!(entry(&object, "m").unwrap()["fieldsV1"], json!({"f:spec": {"f:whole": {}}}));
}

#[test]
fn replicas_are_managed_through_scale() {
    let path = |version: &str| (version == "apps/v1").then(|| vec![PathElement::field("spec"), PathElement::field("replicas")]);
    let list = json!([
        {"manager": "a", "operation": "Apply", "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}, "f:paused": {}}}},
        {"manager": "u", "operation": "Update", "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
    ]);
    let scale = to_scale(&list, &path).unwrap().unwrap();
    assert_eq!(scale.as_array().unwrap().len(), 2);
    assert_eq!((&scale[1]["apiVersion"], &scale[1]["fieldsV1"]), (&json!("autoscaling/v1"), &json!({"f:spec": {"f:replicas": {}}})));
    let same = from_scale(&list, &scale, "apps/v1", &path).unwrap();
    assert_eq!(same, Some(list.clone()), "nobody changed it");
    let taken = json!([{"manager": "s", "operation": "Update", "apiVersion": "autoscaling/v1", "subresource": "scale", "time": "t",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]);
    let object = json!({"metadata": {"managedFields": from_scale(&list, &taken, "apps/v1", &path).unwrap()}});
    assert_eq!(entry(&object, "a").unwrap()["fieldsV1"], json!({"f:spec": {"f:paused": {}}}));
    assert!(entry(&object, "u").is_none());
    let own = entry(&object, "s").unwrap();
    assert_eq!((&own["apiVersion"], &own["subresource"], &own["time"]), (&json!("apps/v1"), &json!("scale"), &json!("t")));
}

#[test]
fn only_what_a_path_writes_is_recorded() {
    let set = |paths: &[&[&str]]| crate::apply::Set::of_names(paths);
    let written = set(&[&["spec", "a"], &["status", "b"], &["metadata", "labels", "c"], &["metadata", "annotations"]]);
    let left = Untracked::Only(&["spec", "metadata.labels"]).filter(written.clone());
    assert_eq!(left, set(&[&["status", "b"], &["metadata", "annotations"]]));
    assert_eq!(Untracked::AllBut(&["metadata.*.c"]).filter(written), set(&[&["metadata", "labels", "c"], &["metadata", "annotations"]]));
}

#[test]
fn times_alone_are_told_from_other_changes() {
    let list = |time: &str, fields: Value| json!([{"manager": "m", "time": time, "fieldsV1": fields}, {"manager": "n"}]);
    assert!(differ_in_times_alone(&list("1", json!({})), &list("2", json!({}))));
    assert!(!differ_in_times_alone(&list("1", json!({})), &list("1", json!({}))));
    assert!(!differ_in_times_alone(&list("1", json!({})), &list("2", json!({"f:a": {}}))));
    assert!(differ_in_times_alone(&json!([{"manager": "m"}]), &json!([{"manager": "m", "time": "1"}])));
}

#[test]
fn a_user_agent_names_a_manager() {
    assert_eq!(of_user_agent("kubectl/v1.36.0 (linux/amd64)"), "kubectl");
    assert_eq!(of_user_agent("a\u{7}b\u{200b}c ü/1"), "abc ü");
    assert_eq!(of_user_agent(&"ü".repeat(100)).len(), 128);
    assert_eq!(of_user_agent(""), "");
    assert_eq!(unprintable("ab\u{7}"), Some((2, '\u{7}')));
    assert_eq!(unprintable("Äb c-✓"), None);
}
