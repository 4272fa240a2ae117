//! Tables of the built-in kinds, as `kubectl get` shows them.

use serde_json::{Value, json};

use super::now;
use crate::kinds::find;
use crate::resource::{Column, RowCondition};
use crate::time::Timestamp;

fn columns(group: &str, plural: &str) -> Vec<Column> {
    find(group, plural).map(|definition| definition.columns.clone()).unwrap_or_default()
}

fn row(group: &str, plural: &str, object: &Value, now: Timestamp) -> Vec<Value> {
    find(group, plural).unwrap().cells(object, now)
}

fn row_conditions(group: &str, plural: &str, object: &Value) -> Vec<RowCondition> {
    find(group, plural).unwrap().row_conditions(object)
}

fn cells(group: &str, plural: &str, object: Value) -> Vec<Value> {
    let mut object = object;
    object["metadata"]["creationTimestamp"] = json!("2024-01-01T00:59:55Z");
    row(group, plural, &object, now())
}

#[test]
fn every_resource_fills_its_columns() {
    for resource in crate::resources::builtin().iter().filter(|resource| resource.has_verb("list")) {
        let (group, plural) = (resource.group.as_ref(), resource.plural.as_ref());
        let cells = row(group, plural, &json!({"metadata": {"name": "x"}}), now());
        assert_eq!(cells.len(), columns(group, plural).len(), "{plural}.{group}");
        let name = columns(group, plural).iter().position(|column| column.format == "name").unwrap();
        assert_eq!(cells[name], "x", "{plural}.{group}");
    }
}

#[test]
fn a_pods_status_in_one_word() {
    let pod = |status: Value| {
        json!({"metadata": {"name": "p"}, "status": status, "spec": {
        "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}})
    };
    let running = json!({"name": "a", "ready": true, "state": {"running": {}}, "restartCount": 0});
    let cases = [
        (json!({"phase": "Pending"}), ["0/2", "Pending", "0"]),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"waiting": {"reason": "ErrImagePull"}}}]}),
            ["0/2", "Init:ErrImagePull", "0"],
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 2, "state": {"running": {}}}]}),
            ["0/2", "Init:0/1", "2"],
        ),
        (
            json!({"phase": "Running", "containerStatuses": [running, {"name": "b", "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "restartCount": 3, "lastState": {"terminated": {"finishedAt": "2024-01-01T00:59:00Z"}}}]}),
            ["1/2", "CrashLoopBackOff", "3 (60s ago)"],
        ),
        (
            json!({"phase": "Running", "containerStatuses": [{"name": "b", "state": {"terminated": {"reason": "Completed"}}}, running]}),
            ["1/2", "NotReady", "0"],
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 3}}}]}),
            ["0/2", "ExitCode:3", "0"],
        ),
    ];
    for (status, [ready, reason, restarts]) in cases {
        let cells = cells("", "pods", pod(status));
        assert_eq!(cells[1..4], [json!(ready), json!(reason), json!(restarts)]);
        assert_eq!(cells[4], "5s");
    }
    let mut dying = pod(json!({"phase": "Running"}));
    dying["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:59:58Z");
    assert_eq!(cells("", "pods", dying)[2], "Terminating");
    assert_eq!(row_conditions("", "pods", &pod(json!({"phase": "Succeeded"}))).len(), 1);
}

#[test]
fn rows_as_kubectl_shows_them() {
    let cases: Vec<(&str, &str, Value, Vec<Value>)> = vec![
        (
            "",
            "services",
            json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "selector": {"a": "b"},
                "ports": [{"port": 80, "nodePort": 30001, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
            vec![
                json!("x"),
                json!("NodePort"),
                json!("10.0.0.1"),
                json!("<none>"),
                json!("80:30001/TCP,53/UDP"),
                json!("5s"),
                json!("a=b"),
            ],
        ),
        (
            "apps",
            "deployments",
            json!({"spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}},
                "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}, "status": {"readyReplicas": 1}}),
            vec![json!("x"), json!("1/3"), json!(0), json!(0), json!("5s"), json!("c"), json!("i"), json!("a=b")],
        ),
        (
            "",
            "nodes",
            json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "db"}},
                "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}], "nodeInfo": {"kubeletVersion": "v1.36.0"}}}),
            vec![
                json!("x"),
                json!("Ready,SchedulingDisabled"),
                json!("control-plane,db"),
                json!("5s"),
                json!("v1.36.0"),
                json!("192.0.2.1"),
                json!("<none>"),
                json!("<unknown>"),
                json!("<unknown>"),
                json!("<unknown>"),
            ],
        ),
        (
            "batch",
            "jobs",
            json!({"spec": {"parallelism": 2}, "status": {"succeeded": 1, "startTime": "2024-01-01T00:59:50Z"}}),
            vec![json!("x"), json!("Running"), json!("1/1 of 2"), json!("10s"), json!("5s"), json!(""), json!(""), json!("<none>")],
        ),
        (
            "discovery.k8s.io",
            "endpointslices",
            json!({"addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["1.1.1.1"]},
                {"addresses": ["2.2.2.2"]}, {"addresses": ["3.3.3.3"]}, {"addresses": ["4.4.4.4"]}]}),
            vec![json!("x"), json!("IPv4"), json!("80"), json!("1.1.1.1,2.2.2.2,3.3.3.3 + 1 more..."), json!("5s")],
        ),
    ];
    for (group, plural, object, expected) in cases {
        let mut object = object;
        object["metadata"]["name"] = json!("x");
        assert_eq!(cells(group, plural, object), expected, "{plural}");
    }
}
