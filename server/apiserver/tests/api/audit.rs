//! The audit log: what is in it when the answer is there.

use std::path::Path;
use std::sync::Arc;

use crate::support::{Cluster, Events, read};
use http::Method;
use serde_json::{Value, json};
use trireme_apiserver::audit::log::LogOptions;
use trireme_apiserver::audit::{Audit, AuditOptions};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

fn open(home: &Path, log: &Path, rules: Value, strict: bool) -> Arc<Audit> {
    let policy = home.join("policy.yaml");
    let body = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules});
    std::fs::write(&policy, body.to_string()).unwrap();
    let log = LogOptions { path: log.to_owned(), max_age_days: 0, max_backups: 0, max_size_mib: 100 };
    Arc::new(Audit::open(AuditOptions { policy, log: Some(log), strict, webhook: None }).unwrap())
}

/// The events of a request so far.
fn events(log: &Path, id: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap();
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|event| event["auditID"] == id).collect()
}

async fn ask(cluster: &Cluster, id: &str, method: Method, target: &str, body: Value) -> (u16, Value) {
    let headers = [("content-type", "application/json"), ("audit-id", id), ("user-agent", "test/1"), ("x-forwarded-for", "192.0.2.1, x")];
    read(cluster.send(method, target, body, &headers).await).await
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_recorded_as_the_policy_says() {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("audit.log");
    let rules = json!([
        {"level": "RequestResponse", "users": ["admin"], "resources": [{"resources": ["configmaps"]}], "omitManagedFields": true},
        {"level": "Metadata", "users": ["admin"], "resources": [{"resources": ["secrets"]}], "omitStages": ["RequestReceived"]},
        {"level": "Request", "users": ["admin"], "nonResourceURLs": ["/version*"]},
    ]);
    let audit = open(home.path(), &log, rules, false);
    let cluster = Cluster::start_on("127.0.0.1:0", |options, _| options.audit = Some(audit)).await;

    let (code, made) = ask(&cluster, "create", Method::POST, CONFIG_MAPS, config_map("one")).await;
    assert_eq!(code, 201, "{made}");
    let [received, complete] = &events(&log, "create")[..] else { panic!("{:?}", events(&log, "create")) };
    assert_eq!(
        (&received["stage"], received.get("responseStatus"), received.get("requestObject")),
        (&json!("RequestReceived"), None, None)
    );
    assert_eq!(
        (&complete["stage"], &complete["level"], &complete["verb"]),
        (&json!("ResponseComplete"), &json!("RequestResponse"), &json!("create"))
    );
    let target = json!({"resource": "configmaps", "namespace": "default", "name": "one", "apiVersion": "v1"});
    assert_eq!((&complete["objectRef"], &complete["requestURI"]), (&target, &json!(CONFIG_MAPS)));
    assert_eq!((&complete["requestObject"], &complete["responseStatus"]), (&config_map("one"), &json!({"metadata": {}, "code": 201})));
    assert_eq!(complete["responseObject"]["metadata"]["uid"], made["metadata"]["uid"]);
    assert!(made["metadata"]["managedFields"].is_array() && complete["responseObject"]["metadata"]["managedFields"].is_null());
    assert_eq!((&complete["user"]["username"], &complete["userAgent"]), (&json!("admin"), &json!("test/1")));
    assert_eq!(
        (&complete["sourceIPs"], &complete["annotations"]["authorization.k8s.io/decision"]),
        (&json!(["192.0.2.1"]), &json!("allow"))
    );
    assert_eq!((complete["kind"].as_str(), complete["apiVersion"].as_str()), (Some("Event"), Some("audit.k8s.io/v1")));

    let (code, list) = ask(&cluster, "list", Method::GET, CONFIG_MAPS, Value::Null).await;
    let listed = &events(&log, "list")[1];
    assert_eq!((code, &listed["responseObject"]["items"].as_array().map(Vec::len)), (200, &list["items"].as_array().map(Vec::len)));

    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "confidential"}});
    assert_eq!(ask(&cluster, "secret", Method::POST, SECRETS, secret).await.0, 201);
    let [secret] = &events(&log, "secret")[..] else { panic!() };
    assert_eq!((&secret["objectRef"]["name"], secret.get("requestObject"), secret.get("responseObject")), (&json!("s"), None, None));
    assert_eq!(ask(&cluster, "missing", Method::GET, &format!("{SECRETS}/x"), Value::Null).await.0, 404);
    let missing = &events(&log, "missing")[0]["responseStatus"];
    assert_eq!((&missing["code"], &missing["reason"], &missing["details"]["name"]), (&json!(404), &json!("NotFound"), &json!("x")));
    assert!(!std::fs::read_to_string(&log).unwrap().contains("confidential"));

    ask(&cluster, "version", Method::GET, "/version", Value::Null).await;
    assert_eq!((events(&log, "version").len(), events(&log, "version")[1].get("objectRef")), (2, None));
    ask(&cluster, "other", Method::GET, "/api/v1/namespaces", Value::Null).await;
    assert!(events(&log, "other").is_empty(), "no rule is about it");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_recorded_when_it_begins_and_when_it_ends() {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("audit.log");
    let audit = open(home.path(), &log, json!([{"level": "RequestResponse", "resources": [{"resources": ["configmaps"]}]}]), false);
    let cluster = Cluster::start_on("127.0.0.1:0", |options, _| options.audit = Some(audit)).await;
    let response = cluster.send(Method::GET, &format!("{CONFIG_MAPS}?watch=1"), Value::Null, &[("audit-id", "watch")]).await;
    assert_eq!(cluster.admin(Method::POST, CONFIG_MAPS, config_map("one")).await.0, 201);
    let mut changes = Events::new(response);
    assert_eq!(changes.named().await.1, "one");
    let stages = || events(&log, "watch").iter().map(|event| event["stage"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(stages(), ["RequestReceived", "ResponseStarted"]);
    drop(changes);
    let ended = async {
        while stages().len() < 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, ended).await.unwrap();
    let last = &events(&log, "watch")[2];
    assert_eq!((&last["stage"], &last["verb"], last.get("responseObject")), (&json!("ResponseComplete"), &json!("watch"), None));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_admission_says_is_recorded() {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("audit.log");
    let rules = json!([{"level": "Metadata", "users": ["admin"], "resources": [{"resources": ["configmaps", "pods"]}]}]);
    let audit = open(home.path(), &log, rules, false);
    let cluster = Cluster::start_on("127.0.0.1:0", |options, _| options.audit = Some(audit)).await;
    let group = "/apis/admissionregistration.k8s.io/v1";
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]},
        "validations": [{"expression": "!('a' in object.data)", "message": "no a"}],
        "auditAnnotations": [{"key": "name", "valueExpression": "'named ' + object.metadata.name"}]}});
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "b"},
        "spec": {"policyName": "p", "validationActions": ["Audit"]}});
    for (plural, body) in [("validatingadmissionpolicies", policy), ("validatingadmissionpolicybindings", binding)] {
        let (code, made) = cluster.admin(Method::POST, &format!("{group}/{plural}"), body).await;
        assert_eq!(code, 201, "{made}");
        cluster.seen(&made).await;
    }
    assert_eq!(ask(&cluster, "policy", Method::POST, CONFIG_MAPS, config_map("one")).await.0, 201, "the action is to record");
    let annotations = &events(&log, "policy")[1]["annotations"];
    assert_eq!(annotations["p/name"], "named one");
    let failure: Value =
        serde_json::from_str(annotations["validation.policy.admission.k8s.io/validation_failure"].as_str().unwrap()).unwrap();
    let expected = json!([{"message": "no a", "policy": "p", "binding": "b", "expressionIndex": 0, "validationActions": ["Audit"]}]);
    assert_eq!(failure, expected);

    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/audit": "baseline"}}});
    let (code, namespace) = cluster.admin(Method::PATCH, "/api/v1/namespaces/default", labels).await;
    assert_eq!(code, 200);
    cluster.seen(&namespace).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"hostNetwork": true, "containers": [{"name": "c", "image": "i"}]}});
    let (code, made) = ask(&cluster, "pod", Method::POST, "/api/v1/namespaces/default/pods", pod).await;
    assert_eq!(code, 201, "{made}");
    let annotations = &events(&log, "pod")[1]["annotations"];
    assert_eq!(annotations["pod-security.kubernetes.io/enforce-policy"], "privileged:latest");
    let violations = annotations["pod-security.kubernetes.io/audit-violations"].as_str().unwrap();
    assert!(violations.starts_with("would violate PodSecurity \"baseline:latest\": host namespaces"), "{violations}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_be_recorded_is_refused_where_that_is_wanted() {
    if !Path::new("/dev/full").exists() {
        return;
    }
    for (strict, code) in [(true, 500), (false, 201)] {
        let home = tempfile::tempdir().unwrap();
        let rules = json!([{"level": "Metadata", "users": ["admin"], "resources": [{"resources": ["configmaps"]}]}]);
        let audit = open(home.path(), Path::new("/dev/full"), rules, strict);
        let cluster = Cluster::start_on("127.0.0.1:0", |options, _| options.audit = Some(audit)).await;
        let (answered, body) = ask(&cluster, "x", Method::POST, CONFIG_MAPS, config_map("one")).await;
        assert_eq!(answered, code, "{body}");
        assert!(!strict || body["message"].as_str().unwrap().contains("audit event"), "{body}");
        cluster.stop().await;
    }
}
