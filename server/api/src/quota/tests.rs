//! Amounts, scopes and charges, against upstream's rules and messages.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn shown(amounts: &Amounts) -> String {
    amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
}

fn used(subject: &Subject, object: &Value) -> String {
    shown(&subject.usage(object, now()))
}

fn pod(spec: Value, status: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": spec, "status": status})
}

fn container(name: &str, requests: Value, limits: Value) -> Value {
    json!({"name": name, "resources": {"requests": requests, "limits": limits}})
}

#[test]
fn names_belong_to_resources() {
    for (name, subject) in [
        ("count/pods", Subject::of("", "pods")),
        ("count/deployments.apps", Subject::of("apps", "deployments")),
        ("count/widgets.a.example.com", Subject::of("a.example.com", "widgets")),
        ("count/configmaps", Subject::of("", "configmaps")),
        ("configmaps", Subject::of("", "configmaps")),
        ("services.nodeports", Some(Subject::Services)),
        ("requests.storage", Some(Subject::Claims)),
        ("gold.storageclass.storage.k8s.io/requests.storage", Some(Subject::Claims)),
        ("requests.example.com/gpu", Some(Subject::Pods)),
        ("requests.hugepages-2Mi", Some(Subject::Pods)),
        ("limits.cpu", Some(Subject::Pods)),
        ("count/events", None),
        ("example.com/gpu", None),
        ("limits.example.com/gpu", None),
    ] {
        assert_eq!(Subject::of_name(name), subject, "{name}");
        assert!(subject.is_none_or(|subject| subject.has(name)), "{name}");
    }
    assert_eq!(used(&Subject::of("", "secrets").unwrap(), &json!({})), "count/secrets=1,secrets=1");
    assert_eq!(used(&Subject::of("apps", "replicasets").unwrap(), &json!({})), "count/replicasets.apps=1");
}

#[test]
fn pods_use_what_their_containers_ask_for() {
    let plain = pod(
        json!({"containers": [
                container("a", json!({"cpu": "500m", "memory": "1Gi", "example.com/gpu": "2"}), json!({"cpu": "1"})),
                container("b", json!({"cpu": "100m", "hugepages-2Mi": "4Mi"}), json!({})),
            ],
            "initContainers": [container("i", json!({"cpu": "2"}), json!({}))], "overhead": {"cpu": "10m"}}),
        json!({}),
    );
    assert_eq!(
        used(&Subject::Pods, &plain),
        "count/pods=1,cpu=2010m,hugepages-2Mi=4Mi,limits.cpu=1010m,memory=1Gi,pods=1,requests.cpu=2010m,\
         requests.example.com/gpu=2,requests.hugepages-2Mi=4Mi,requests.memory=1Gi"
    );
    let mut sidecar = container("s", json!({"cpu": "1"}), json!({}));
    sidecar["restartPolicy"] = json!("Always");
    let spec = json!({"initContainers": [sidecar, container("i", json!({"cpu": "3"}), json!({}))], "containers": [container("a", json!({"cpu": "1"}), json!({}))]});
    assert_eq!(used(&Subject::Pods, &pod(spec, json!({}))), "count/pods=1,cpu=4,pods=1,requests.cpu=4");
    let level =
        json!({"resources": {"requests": {"cpu": "7"}}, "containers": [container("a", json!({"cpu": "1", "memory": "1"}), json!({}))]});
    assert_eq!(used(&Subject::Pods, &pod(level, json!({}))), "count/pods=1,cpu=7,memory=1,pods=1,requests.cpu=7,requests.memory=1");
    let resized =
        json!({"containerStatuses": [{"name": "a", "resources": {"requests": {"cpu": "3"}}, "allocatedResources": {"cpu": "2"}}]});
    let spec = json!({"containers": [container("a", json!({"cpu": "1"}), json!({}))]});
    assert_eq!(used(&Subject::Pods, &pod(spec.clone(), resized)), "count/pods=1,cpu=3,pods=1,requests.cpu=3");

    assert_eq!(used(&Subject::Pods, &pod(spec.clone(), json!({"phase": "Succeeded"}))), "count/pods=1");
    let mut late = pod(spec, json!({"phase": "Running"}));
    late["metadata"] = json!({"deletionTimestamp": "2025-12-31T23:59:00Z", "deletionGracePeriodSeconds": 30});
    assert_eq!(used(&Subject::Pods, &late), "count/pods=1", "a pod on a lost node does not keep others from starting");
    late["metadata"]["deletionGracePeriodSeconds"] = json!(61);
    assert!(used(&Subject::Pods, &late).contains("pods=1,requests.cpu"));
    assert_eq!(Subject::Pods.expires(&late).unwrap().to_string(), "2026-01-01T00:00:01Z");
}

#[test]
fn services_and_claims() {
    let service = |spec: Value| used(&Subject::Services, &json!({"spec": spec}));
    let all =
        |ports: u8, balancers: u8| format!("count/services=1,services=1,services.loadbalancers={balancers},services.nodeports={ports}");
    let two = json!([{"port": 1}, {"port": 2, "nodePort": 30001}]);
    assert_eq!(service(json!({"type": "ClusterIP", "ports": two})), all(0, 0));
    assert_eq!(service(json!({"type": "NodePort", "ports": two})), all(2, 0));
    assert_eq!(service(json!({"type": "LoadBalancer", "ports": two})), all(2, 1));
    assert_eq!(service(json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": two})), all(1, 1));
    let claim = json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1.5"}}}, "status": {"allocatedResources": {"storage": "1Gi"}}});
    assert_eq!(
        used(&Subject::Claims, &claim),
        "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
         gold.storageclass.storage.k8s.io/requests.storage=1Gi,persistentvolumeclaims=1,requests.storage=1Gi"
    );
    assert_eq!(used(&Subject::Claims, &json!({"spec": {}})), "count/persistentvolumeclaims=1,persistentvolumeclaims=1");
}

#[test]
fn scopes_select_pods() {
    let in_scope = |spec: Value, scopes: Value| {
        let quota = json!({"spec": scopes});
        Scopes::of(&quota).hold(&Subject::Pods, &pod(spec, json!({})))
    };
    let named = |scope: &str| json!({"scopes": [scope]});
    let term = |scope: &str, operator: &str, values: Value| json!({"scopeSelector": {"matchExpressions": [{"scopeName": scope, "operator": operator, "values": values}]}});
    let ending = json!({"activeDeadlineSeconds": 5});
    assert!(in_scope(ending.clone(), named("Terminating")) && !in_scope(ending, named("NotTerminating")));
    assert!(!in_scope(json!({}), named("Terminating")) && in_scope(json!({}), named("NotTerminating")));
    let asking = json!({"containers": [container("a", json!({"cpu": "1"}), json!({}))]});
    assert!(
        in_scope(json!({}), named("BestEffort"))
            && !in_scope(asking.clone(), named("BestEffort"))
            && in_scope(asking, named("NotBestEffort"))
    );
    let high = json!({"priorityClassName": "high"});
    for (operator, values, of_high, of_none) in [
        ("Exists", json!([]), true, false),
        ("DoesNotExist", json!([]), false, true),
        ("In", json!(["high", "low"]), true, false),
        ("NotIn", json!(["low"]), true, true),
        ("NotIn", json!(["high"]), false, true),
    ] {
        let scope = term("PriorityClass", operator, values);
        assert_eq!((in_scope(high.clone(), scope.clone()), in_scope(json!({}), scope.clone())), (of_high, of_none), "{scope}");
    }
    let affinity = |term: Value| json!({"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term}]}}});
    assert!(in_scope(affinity(json!({"namespaceSelector": {}})), named("CrossNamespacePodAffinity")));
    assert!(!in_scope(affinity(json!({"topologyKey": "x"})), named("CrossNamespacePodAffinity")));
    assert!(!Scopes::of(&json!({"spec": named("Terminating")})).hold(&Subject::Services, &json!({})), "only pods and claims have scopes");
}

fn quota(hard: Value, used: Value, spec: Value) -> Value {
    json!({"metadata": {"name": "q"}, "spec": spec, "status": {"hard": hard, "used": used}})
}

fn charged(quota: &Value, object: &Value, old: Option<&Value>) -> Result<Option<String>, String> {
    let write = Write { object, old, subresource: "" };
    charge(quota, &Subject::Pods, &write, now()).map(|after| after.map(|after| shown(&after)))
}

#[test]
fn a_quota_is_charged_or_refuses_in_upstreams_words() {
    let small = pod(json!({"containers": [container("c", json!({"cpu": "600m", "memory": "1Gi"}), json!({}))]}), json!({}));
    let hard = json!({"pods": "5", "requests.cpu": "1", "services": "2"});
    let left = quota(hard.clone(), json!({"pods": "1", "requests.cpu": "400m", "services": "1"}), json!({}));
    assert_eq!(charged(&left, &small, None), Ok(Some("pods=2,requests.cpu=1,services=1".to_owned())));
    let full = quota(hard.clone(), json!({"pods": "1", "requests.cpu": "500m"}), json!({}));
    assert_eq!(
        charged(&full, &small, None),
        Err("exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=500m, limited: requests.cpu=1".to_owned())
    );
    assert_eq!(
        charged(&quota(hard, json!({"pods": "1"}), json!({})), &small, None),
        Err("status unknown for quota: q, resources: pods,requests.cpu".to_owned())
    );
    let demanding = quota(json!({"limits.cpu": "1", "memory": "1Gi"}), json!({"limits.cpu": "0", "memory": "0"}), json!({}));
    let two =
        pod(json!({"containers": [container("d", json!({}), json!({})), container("c", json!({"memory": "1"}), json!({}))]}), json!({}));
    assert_eq!(charged(&demanding, &two, None), Err("failed quota: q: must specify limits.cpu for: c,d; memory for: d".to_owned()));
    // Nothing is charged for objects outside the scope, for names that are not limited, and while the quota has no status yet.
    assert_eq!(charged(&quota(json!({"pods": "0"}), json!({"pods": "0"}), json!({"scopes": ["Terminating"]})), &small, None), Ok(None));
    assert_eq!(charged(&quota(json!({"secrets": "0"}), json!({"secrets": "0"}), json!({})), &small, None), Ok(None));
    assert_eq!(charged(&json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}}), &small, None), Ok(None));
}

#[test]
fn an_update_costs_the_difference() {
    let asking = |cpu: &str, deadline: Value| {
        pod(json!({"activeDeadlineSeconds": deadline, "containers": [container("c", json!({"cpu": cpu}), json!({}))]}), json!({}))
    };
    let plain = quota(json!({"requests.cpu": "4"}), json!({"requests.cpu": "3"}), json!({}));
    assert_eq!(charged(&plain, &asking("2", Value::Null), Some(&asking("1", Value::Null))), Ok(Some("requests.cpu=4".to_owned())));
    assert!(charged(&plain, &asking("3", Value::Null), Some(&asking("1", Value::Null))).is_err());
    assert_eq!(
        charged(&plain, &asking("1", Value::Null), Some(&asking("2", Value::Null))),
        Ok(None),
        "less is given back by the controller"
    );
    let scoped = quota(json!({"pods": "1"}), json!({"pods": "1"}), json!({"scopes": ["Terminating"]}));
    assert!(charged(&scoped, &asking("1", json!(5)), Some(&asking("1", Value::Null))).is_err(), "it comes into the scope as a whole");
    let old = asking("1", Value::Null);
    let matters = |object: Value| Write { object: &object, old: Some(&old), subresource: "" }.matters(&Subject::Pods);
    assert!(!matters(asking("1", Value::Null)) && matters(asking("1", json!(5))));
}
