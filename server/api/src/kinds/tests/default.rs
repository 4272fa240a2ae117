//! Defaults of the built-in kinds.

use serde_json::{Value, json};

use super::definition;
use crate::meta;

fn defaulted(mut object: Value) -> Value {
    let gvk = meta::gvk(&object).unwrap();
    definition(&gvk).default(&mut object);
    let once = object.clone();
    definition(&gvk).default(&mut object);
    assert_eq!(once, object, "defaulting twice must change nothing");
    object
}

fn check(object: Value, expected: &[(&str, Value)]) {
    let got = defaulted(object);
    for (pointer, value) in expected {
        assert_eq!(got.pointer(pointer).unwrap_or(&Value::Null), value, "{pointer} in {got}");
    }
}

#[test]
fn a_pod_gets_all_of_them_and_a_template_fewer() {
    let container = json!({"name": "c", "image": "a:1", "resources": {"limits": {"cpu": "1"}}, "ports": [{"containerPort": 80}],
        "livenessProbe": {"httpGet": {"port": 80}}});
    let spec = json!({"containers": [container], "hostNetwork": true, "volumes": [{"name": "v"}, {"name": "p", "projected":
        {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]});
    check(
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}),
        &[
            ("/spec/restartPolicy", json!("Always")),
            ("/spec/enableServiceLinks", json!(true)),
            ("/spec/containers/0/resources/requests/cpu", json!("1")),
            ("/spec/containers/0/ports/0", json!({"containerPort": 80, "hostPort": 80, "protocol": "TCP"})),
            ("/spec/containers/0/imagePullPolicy", json!("IfNotPresent")),
            (
                "/spec/containers/0/livenessProbe",
                json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
                       "successThreshold": 1, "failureThreshold": 3}),
            ),
            ("/spec/volumes/0", json!({"name": "v", "emptyDir": {}})),
            ("/spec/volumes/1/projected/sources/0/serviceAccountToken/expirationSeconds", json!(3600)),
            ("/status", json!({})),
        ],
    );
    check(
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"template": {"spec": spec}}}),
        &[
            ("/spec/template/spec/dnsPolicy", json!("ClusterFirst")),
            ("/spec/template/spec/enableServiceLinks", Value::Null),
            ("/spec/template/spec/containers/0/resources/requests", Value::Null),
            ("/spec/template/spec/containers/0/ports/0/hostPort", Value::Null),
            ("/spec/strategy", json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})),
            ("/spec/replicas", json!(1)),
        ],
    );
}

#[test]
fn given_values_stay_even_when_zero() {
    check(
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 0, "strategy": {"rollingUpdate": {"maxSurge": 0}},
            "template": {"spec": {"terminationGracePeriodSeconds": 0}}}}),
        &[
            ("/spec/replicas", json!(0)),
            ("/spec/strategy/rollingUpdate", json!({"maxSurge": 0, "maxUnavailable": "25%"})),
            ("/spec/template/spec/terminationGracePeriodSeconds", json!(0)),
        ],
    );
    check(
        json!({"apiVersion": "batch/v1", "kind": "Job", "spec": {"parallelism": 2, "template": {}}}),
        &[("/spec/completions", Value::Null), ("/spec/backoffLimit", json!(6))],
    );
}

#[test]
fn services_by_type() {
    let service = |spec: Value| json!({"apiVersion": "v1", "kind": "Service", "spec": spec});
    check(
        service(json!({"ports": [{"port": 80}]})),
        &[
            ("/spec/type", json!("ClusterIP")),
            ("/spec/ports/0/targetPort", json!(80)),
            ("/spec/externalTrafficPolicy", Value::Null),
            ("/spec/internalTrafficPolicy", json!("Cluster")),
            ("/status", json!({"loadBalancer": {}})),
        ],
    );
    check(
        service(json!({"type": "LoadBalancer", "sessionAffinity": "ClientIP"})),
        &[
            ("/spec/allocateLoadBalancerNodePorts", json!(true)),
            ("/spec/externalTrafficPolicy", json!("Cluster")),
            ("/spec/sessionAffinityConfig/clientIP/timeoutSeconds", json!(10800)),
        ],
    );
    check(service(json!({"type": "ExternalName"})), &[("/spec/internalTrafficPolicy", Value::Null)]);
}

#[test]
fn a_secret_keeps_no_plain_text() {
    let got = defaulted(json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"a": "b"}, "data": {"a": "eA==", "c": "eQ=="}}));
    assert_eq!(got["data"], json!({"a": "Yg==", "c": "eQ=="}));
    assert_eq!(got.get("stringData"), None);
    assert_eq!(got["type"], "Opaque");
}
