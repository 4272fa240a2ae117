//! Server-side apply, and who is recorded as manager of what, over the whole server.

use crate::crd::definitions::{boats, establish};
use crate::support::{Cluster, admin, read};
use http::{Method, Request};
use serde_json::{Value, json};
use trireme_apiserver::{Caller, UserInfo};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const BOATS: &str = "/apis/ships.example.com/v1/namespaces/default/boats";
const CONTENT_TYPE: &str = "application/apply-patch+yaml";

/// Applies a configuration as `manager`; `target` may have more parameters.
async fn apply(cluster: &Cluster, target: &str, manager: &str, body: Value) -> (u16, Value) {
    let sign = if target.contains('?') { '&' } else { '?' };
    let target = format!("{target}{sign}fieldManager={manager}");
    read(cluster.send(Method::PATCH, &target, body, &[("content-type", CONTENT_TYPE)]).await).await
}

async fn get(cluster: &Cluster, target: &str) -> Value {
    let (code, object) = cluster.admin(Method::GET, target, Value::Null).await;
    assert_eq!(code, 200, "{object}");
    object
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn deployment(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec})
}

fn full_deployment(name: &str, replicas: i64) -> Value {
    deployment(
        name,
        json!({"replicas": replicas, "selector": {"matchLabels": {"app": "nginx"}},
            "template": {"metadata": {"labels": {"app": "nginx"}}, "spec": {"containers": [{"name": "nginx", "image": "nginx:latest"}]}}}),
    )
}

/// The entries as `manager operation subresource`.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let name = |entry: &Value| format!("{} {} {}", text(entry, "manager"), text(entry, "operation"), text(entry, "subresource"));
    entries.map(|entry| name(entry).trim_end().to_owned()).collect()
}

fn fields<'v>(object: &'v Value, manager: &str, operation: &str) -> &'v Value {
    let mut entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let found = entries.find(|entry| entry["manager"] == manager && entry["operation"] == operation);
    &found.unwrap_or_else(|| panic!("no entry of {manager}: {object}"))["fieldsV1"]
}

#[tokio::test(flavor = "multi_thread")]
async fn d03_a_configuration_makes_an_object_and_changes_it() {
    let cluster = Cluster::start().await;
    let (code, made) = apply(&cluster, &format!("{MAPS}/a"), "one", config_map("a", json!({"k": "1", "l": "1"}))).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(managers(&made), ["one Apply"]);
    assert_eq!(fields(&made, "one", "Apply"), &json!({"f:data": {"f:k": {}, "f:l": {}}}));
    let entry = &made["metadata"]["managedFields"][0];
    assert_eq!((&entry["apiVersion"], &entry["fieldsType"]), (&json!("v1"), &json!("FieldsV1")));
    assert!(entry["time"].is_string());

    // Again the same: nothing is written.
    let (code, same) = apply(&cluster, &format!("{MAPS}/a"), "one", config_map("a", json!({"k": "1", "l": "1"}))).await;
    assert_eq!((code, &same), (200, &made));
    assert_eq!(get(&cluster, &format!("{MAPS}/a")).await, made);

    // A field that is left out goes; YAML will do.
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: '2'\n";
    let request = Request::builder().method(Method::PATCH).uri(format!("{MAPS}/a?fieldManager=one")).header("content-type", CONTENT_TYPE);
    let (code, changed) = read(cluster.api.call(admin(), request.body(yaml.into()).unwrap()).await).await;
    assert_eq!((code, &changed["data"]), (200, &json!({"k": "2"})), "{changed}");
    assert_ne!(changed["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);

    // A dry run shows what would be.
    let (code, shown) = apply(&cluster, &format!("{MAPS}/a?dryRun=All"), "one", config_map("a", json!({"k": "3"}))).await;
    assert_eq!((code, &shown["data"]["k"]), (200, &json!("3")));
    let (code, _) = apply(&cluster, &format!("{MAPS}/b?dryRun=All"), "one", config_map("b", json!({"k": "3"}))).await;
    assert_eq!(code, 201);
    assert_eq!(get(&cluster, &format!("{MAPS}/a")).await["data"]["k"], "2");
    assert_eq!(cluster.admin(Method::GET, &format!("{MAPS}/b"), Value::Null).await.0, 404);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_applied_is_refused_in_upstreams_words() {
    let cluster = Cluster::start().await;
    let target = format!("{MAPS}/a");
    let plain = |target: String, body: Value, content_type: &'static str| {
        let cluster = &cluster;
        async move { read(cluster.send(Method::PATCH, &target, body, &[("content-type", content_type)]).await).await }
    };
    let (code, status) = plain(target.clone(), config_map("a", json!({})), CONTENT_TYPE).await;
    let message = r#"PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch"#;
    assert_eq!((code, status["message"].as_str(), status["reason"].as_str()), (422, Some(message), Some("Invalid")));
    let merge = "application/merge-patch+json";
    let (code, status) = plain(format!("{target}?force=true"), json!({}), merge).await;
    assert!(code == 422 && status["message"].as_str().unwrap().contains("force: Forbidden: may not be specified for non-apply patch"));
    let (code, status) = plain(format!("{target}?fieldManager=a%07"), json!({}), merge).await;
    assert!(code == 422 && status["message"].as_str().unwrap().contains("invalid character U+0007 (at position 1)"), "{status}");
    let (code, _) = plain(format!("{target}?fieldManager=a"), json!({}), "application/apply-patch+cbor").await;
    assert_eq!(code, 415);

    let refused = |body: Value| {
        let (cluster, target) = (&cluster, &target);
        async move {
            let (code, status) = apply(cluster, target, "m", body).await;
            (code, status["message"].as_str().unwrap_or_default().to_owned())
        }
    };
    let mut typed = config_map("a", json!({"k": "1"}));
    assert_eq!(
        refused(config_map("b", json!({}))).await,
        (400, "the name of the object (b) does not match the name on the URL (a)".to_owned())
    );
    assert_eq!(refused(json!("text")).await.0, 400);
    assert_eq!(refused(json!({"kind": "ConfigMap"})).await, (400, "invalid object type: /, Kind=ConfigMap".to_owned()));
    assert_eq!(refused(deployment("a", json!({}))).await, (400, "invalid object type: apps/v1, Kind=Deployment".to_owned()));
    typed["data"]["k"] = json!(1);
    let (code, message) = refused(typed.clone()).await;
    assert_eq!(code, 500);
    assert_eq!(
        message,
        "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .data.k: expected string, got &value.valueUnstructured{Value:1}"
    );
    typed["data"] = json!({"k": "1"});
    typed["metadata"]["managedFields"] = json!([]);
    assert_eq!(refused(typed.clone()).await, (400, "metadata.managedFields must be nil".to_owned()));
    typed["metadata"] = json!({"name": "a", "uid": "u"});
    let (code, message) = refused(typed).await;
    assert!(code == 409 && message.contains("uid mismatch: the provided object specified uid u"), "{message}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_told_and_force_ends_them() {
    let cluster = Cluster::start().await;
    let target = format!("{DEPLOYMENTS}/d");
    let agent = [("content-type", "application/json"), ("user-agent", "kubectl/v1.36.0 (linux/amd64)")];
    let (code, made) = read(cluster.send(Method::POST, DEPLOYMENTS, full_deployment("d", 3), &agent).await).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(managers(&made), ["kubectl Update"]);
    assert!(fields(&made, "kubectl", "Update").get("f:status").is_none());

    let (code, conflict) = apply(&cluster, &target, "other", deployment("d", json!({"replicas": 5}))).await;
    assert_eq!((code, conflict["reason"].as_str()), (409, Some("Conflict")));
    assert_eq!(conflict["message"], r#"Apply failed with 1 conflict: conflict with "kubectl" using apps/v1: .spec.replicas"#);
    assert_eq!(
        conflict["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": r#"conflict with "kubectl" using apps/v1"#, "field": ".spec.replicas"}])
    );
    // The same value is no conflict: both manage it.
    let (code, shared) = apply(&cluster, &target, "other", deployment("d", json!({"replicas": 3}))).await;
    assert_eq!((code, managers(&shared)), (200, vec!["other Apply".to_owned(), "kubectl Update".to_owned()]), "{shared}");
    let (code, forced) = apply(&cluster, &format!("{target}?force=true"), "other", deployment("d", json!({"replicas": 5}))).await;
    assert_eq!((code, &forced["spec"]["replicas"]), (200, &json!(5)));
    assert!(fields(&forced, "kubectl", "Update")["f:spec"].get("f:replicas").is_none());
    assert_eq!(forced["spec"]["template"]["spec"]["containers"][0]["image"], "nginx:latest", "the rest is as it was");

    // A field that one manager no longer applies and another one owns too stays.
    let image = |image: &str| deployment("d", json!({"template": {"spec": {"containers": [{"name": "nginx", "image": image}]}}}));
    let (code, third) = apply(&cluster, &target, "third", image("nginx:latest")).await;
    assert_eq!(code, 200, "{third}");
    let (code, conflict) = apply(&cluster, &target, "third", image("nginx:1.27")).await;
    let field = &conflict["details"]["causes"][0]["field"];
    assert_eq!((code, field), (409, &json!(".spec.template.spec.containers[name=\"nginx\"].image")));
    let nothing = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}});
    let (_, left) = apply(&cluster, &target, "third", nothing).await;
    assert_eq!(left["spec"]["template"]["spec"]["containers"][0]["image"], "nginx:latest");
    assert_eq!(managers(&left), ["other Apply", "kubectl Update"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_managers_share_a_list() {
    let cluster = Cluster::start().await;
    let service = |ports: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"selector": {"a": "b"}, "ports": ports}});
    let target = format!("{SERVICES}/s");
    let (code, made) =
        apply(&cluster, &target, "one", service(json!([{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}])))
            .await;
    assert_eq!(code, 201, "{made}");
    let port = "k:{\"port\":80,\"protocol\":\"TCP\"}";
    assert_eq!(fields(&made, "one", "Apply")["f:spec"]["f:ports"][port], json!({".": {}, "f:name": {}, "f:port": {}}));
    let only = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"name": "tls", "port": 443}]}});
    let (code, both) = apply(&cluster, &target, "two", only).await;
    assert_eq!(code, 200, "{both}");
    let ports =
        |object: &Value| object["spec"]["ports"].as_array().unwrap().iter().map(|port| port["port"].as_i64().unwrap()).collect::<Vec<_>>();
    assert_eq!(ports(&both), [80, 53, 443]);
    let (_, fewer) = apply(&cluster, &target, "one", service(json!([{"name": "http", "port": 80}]))).await;
    assert_eq!(ports(&fewer), [80, 443], "each takes away its own");
    assert_eq!(fewer["spec"]["clusterIP"], made["spec"]["clusterIP"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subresources_have_managers_of_their_own() {
    let cluster = Cluster::start().await;
    let target = format!("{DEPLOYMENTS}/d");
    apply(&cluster, &target, "author", full_deployment("d", 1)).await;
    let mut status = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"x": "y"}}});
    status["status"] = json!({"conditions": [{"type": "MyStatus", "status": "True"}]});
    status["spec"] = json!({"replicas": 9});
    let (code, written) = apply(&cluster, &format!("{target}/status"), "robot", status.clone()).await;
    assert_eq!(code, 200, "{written}");
    assert_eq!(written["spec"]["replicas"], 1, "the spec is not written through status");
    assert_eq!(managers(&written), ["author Apply", "robot Apply status"]);
    let condition = json!({".": {}, "f:status": {}, "f:type": {}});
    assert_eq!(fields(&written, "robot", "Apply"), &json!({"f:status": {"f:conditions": {"k:{\"type\":\"MyStatus\"}": condition}}}));
    let (code, same) = apply(&cluster, &format!("{target}/status"), "robot", status.clone()).await;
    assert_eq!((code, &same["metadata"]["resourceVersion"]), (200, &written["metadata"]["resourceVersion"]));
    status["metadata"]["name"] = json!("none");
    let (code, _) = apply(&cluster, &format!("{DEPLOYMENTS}/none/status"), "robot", status).await;
    assert_eq!(code, 404, "a subresource makes no object");

    // An apply through scale makes its manager the manager of the replicas.
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": 4}});
    let (code, conflict) = apply(&cluster, &format!("{target}/scale"), "scaler", scale.clone()).await;
    assert_eq!(code, 409, "{conflict}");
    assert_eq!(conflict["details"]["causes"][0]["field"], ".spec.replicas");
    let (code, scaled) = apply(&cluster, &format!("{target}/scale?force=true"), "scaler", scale).await;
    assert_eq!((code, &scaled["spec"]["replicas"]), (200, &json!(4)), "{scaled}");
    let object = get(&cluster, &target).await;
    assert_eq!(fields(&object, "scaler", "Apply"), &json!({"f:spec": {"f:replicas": {}}}));
    assert!(managers(&object).contains(&"scaler Apply scale".to_owned()));
    assert!(fields(&object, "author", "Apply")["f:spec"].get("f:replicas").is_none());
    let agent = [("content-type", "application/merge-patch+json"), ("user-agent", "kubectl/v1.36.0")];
    let patched = cluster.send(Method::PATCH, &format!("{target}/scale"), json!({"spec": {"replicas": 2}}), &agent).await;
    assert_eq!(read(patched).await.0, 200);
    let object = get(&cluster, &target).await;
    assert!(managers(&object).contains(&"kubectl Update scale".to_owned()), "{object}");
    assert!(!managers(&object).iter().any(|manager| manager.starts_with("scaler")));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_is_recorded() {
    let cluster = Cluster::start().await;
    let target = format!("{MAPS}/a");
    let send = |method: Method, target: String, body: Value, agent: &'static str| {
        let content_type = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let cluster = &cluster;
        async move { read(cluster.send(method, &target, body, &[("content-type", content_type), ("user-agent", agent)]).await).await.1 }
    };
    let made = send(Method::POST, MAPS.to_owned(), config_map("a", json!({"k": "1"})), "").await;
    assert_eq!(managers(&made), ["unknown Update"]);
    assert_eq!(fields(&made, "unknown", "Update"), &json!({"f:data": {".": {}, "f:k": {}}}));
    let patched = send(Method::PATCH, target.clone(), json!({"data": {"l": "1"}}), "curl/8").await;
    assert_eq!(fields(&patched, "curl", "Update"), &json!({"f:data": {"f:l": {}}}));
    let named = send(Method::PATCH, format!("{target}?fieldManager=me"), json!({"data": {"k": "2"}}), "curl/8").await;
    assert_eq!(fields(&named, "me", "Update"), &json!({"f:data": {"f:k": {}}}));
    assert_eq!(fields(&named, "unknown", "Update"), &json!({"f:data": {}}), "a field has gone to another manager");

    // An update that changes nothing is not written, even from another manager.
    let same = send(Method::PUT, target.clone(), named.clone(), "wget/1").await;
    assert_eq!(same, named);
    let mut bare = named.clone();
    bare["metadata"].as_object_mut().unwrap().remove("managedFields");
    assert_eq!(send(Method::PUT, target.clone(), bare, "wget/1").await, named, "who does not know of managers does not lose them");

    // Managers can be cleared, and are then not kept until something is applied.
    let mut cleared = named.clone();
    cleared["metadata"]["managedFields"] = json!([{}]);
    let cleared = send(Method::PUT, target.clone(), cleared, "wget/1").await;
    assert!(cleared["metadata"].get("managedFields").is_none(), "{cleared}");
    let patched = send(Method::PATCH, target.clone(), json!({"data": {"m": "1"}}), "curl/8").await;
    assert!(patched["metadata"].get("managedFields").is_none());
    let (_, applied) = apply(&cluster, &target, "me", config_map("a", json!({"n": "1"}))).await;
    assert_eq!(managers(&applied), ["me Apply", "before-first-apply Update"]);

    // What a client says of managers is checked.
    let mut long = applied.clone();
    long["metadata"]["managedFields"][0]["manager"] = json!("x".repeat(129));
    let refused = send(Method::PUT, target.clone(), long, "wget/1").await;
    assert!(refused["message"].as_str().unwrap().contains("metadata.managedFields[0].manager: Too long"), "{refused}");

    // Lists have them too.
    let list = get(&cluster, MAPS).await;
    assert_eq!(
        managers(list["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == "a").unwrap()),
        managers(&applied)
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_goes_over_to_applying_in_the_server() {
    let cluster = Cluster::start().await;
    let target = format!("{DEPLOYMENTS}/d");
    let mut configuration = full_deployment("d", 2);
    let annotation = format!("{configuration}\n");
    let mut sent = configuration.clone();
    sent["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": annotation});
    let (code, made) = cluster.admin(Method::POST, &format!("{DEPLOYMENTS}?fieldManager=kubectl-client-side-apply"), sent).await;
    assert_eq!(code, 201, "{made}");
    configuration["spec"]["replicas"] = json!(3);
    let (code, _) = apply(&cluster, &target, "other", configuration.clone()).await;
    assert_eq!(code, 409);
    let (code, applied) = apply(&cluster, &target, "kubectl", configuration.clone()).await;
    assert_eq!((code, &applied["spec"]["replicas"]), (200, &json!(3)), "{applied}");
    let kept = applied["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].as_str().unwrap();
    assert_eq!(kept, format!("{configuration}\n"), "it can go back too");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_resources_are_applied_by_their_schema() {
    let cluster = Cluster::start().await;
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "harbour": {"type": "string"}, "sails": {"type": "integer"}, "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "crew": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}}}},
        "status": {"type": "object", "properties": {"afloat": {"type": "boolean"}}}}});
    let mut definition = boats(schema);
    let subresources = json!({"status": {}, "scale": {"specReplicasPath": ".spec.sails", "statusReplicasPath": ".status.sails"}});
    definition["spec"]["versions"][0]["subresources"] = subresources;
    establish(&cluster, definition).await;
    let boat = |spec: Value| json!({"apiVersion": "ships.example.com/v1", "kind": "Boat", "metadata": {"name": "b"}, "spec": spec});
    let target = format!("{BOATS}/b");

    let (code, refused) = apply(&cluster, &format!("{target}?fieldValidation=Strict"), "one", boat(json!({"nope": {"a": 1}}))).await;
    assert_eq!(code, 500);
    assert!(refused["message"].as_str().unwrap().ends_with(".spec.nope: field not declared in schema"), "{refused}");
    let mut unknown = boat(json!({}));
    unknown["metadata"]["unknownMeta"] = json!("x");
    let (_, refused) = apply(&cluster, &target, "one", unknown).await;
    assert!(refused["message"].as_str().unwrap().contains(".metadata.unknownMeta: field not declared in schema"), "{refused}");

    let (code, made) =
        apply(&cluster, &target, "one", boat(json!({"harbour": "a", "crew": [{"name": "ann", "age": 30}], "any": {"x": [1, {"y": 2}]}})))
            .await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(
        fields(&made, "one", "Apply")["f:spec"],
        json!({"f:harbour": {}, "f:any": {"f:x": {}}, "f:crew": {"k:{\"name\":\"ann\"}": {".": {}, "f:name": {}, "f:age": {}}}})
    );
    let (code, both) = apply(&cluster, &target, "two", boat(json!({"crew": [{"name": "bob"}]}))).await;
    assert_eq!((code, &both["spec"]["crew"]), (200, &json!([{"name": "ann", "age": 30}, {"name": "bob"}])));
    let (code, conflict) = apply(&cluster, &target, "two", boat(json!({"crew": [{"name": "ann", "age": 31}]}))).await;
    assert_eq!((code, &conflict["details"]["causes"][0]["field"]), (409, &json!(".spec.crew[name=\"ann\"].age")));
    let (_, fewer) = apply(&cluster, &target, "one", boat(json!({"harbour": "a"}))).await;
    assert_eq!(fewer["spec"], json!({"harbour": "a", "crew": [{"name": "bob"}]}), "{fewer}");

    let mut status = boat(json!({"harbour": "z"}));
    status["status"] = json!({"afloat": true});
    let (code, written) = apply(&cluster, &format!("{target}/status"), "robot", status).await;
    assert_eq!((code, &written["spec"]["harbour"], &written["status"]), (200, &json!("a"), &json!({"afloat": true})), "{written}");
    assert_eq!(fields(&written, "robot", "Apply"), &json!({"f:status": {"f:afloat": {}}}));
    assert_eq!(managers(&written), ["one Apply", "robot Apply status", "two Apply"]);
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "b"}, "spec": {"replicas": 4}});
    let (code, answer) = cluster.admin(Method::PUT, &format!("{target}/scale?fieldManager=scaler"), scale).await;
    assert_eq!(code, 200, "{answer}");
    let (code, patched) =
        cluster.admin(Method::PATCH, &format!("{target}?fieldManager=m"), json!({"spec": {"any": {"z": {"k": 1}}}})).await;
    assert_eq!(code, 200, "{patched}");
    assert_eq!(fields(&patched, "m", "Update"), &json!({"f:spec": {"f:any": {".": {}, "f:z": {".": {}, "f:k": {}}}}}));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_there_twice_are_told_with_their_line() {
    let cluster = Cluster::start().await;
    let body = "\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  l: x\n  foo: foo1\n  foo: foo2\n";
    let send = |validation: &'static str| {
        let uri = format!("{MAPS}/a?fieldManager=m&fieldValidation={validation}");
        let request = Request::builder().method(Method::PATCH).uri(uri).header("content-type", CONTENT_TYPE).body(body.into()).unwrap();
        cluster.api.call(admin(), request)
    };
    let (code, status) = read(send("Strict").await).await;
    assert_eq!(code, 400);
    let message =
        "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 9: key \"foo\" already set in map";
    assert_eq!(status["message"], message);
    let warned = send("Warn").await;
    assert!(warned.headers()["warning"].to_str().unwrap().contains("already set in map"));
    let (code, made) = read(warned).await;
    assert_eq!((code, &made["data"]["foo"]), (201, &json!("foo2")));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_patch_only_makes_nothing() {
    let cluster = Cluster::start().await;
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "patcher"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "patcher"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "patcher"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "pat"}]});
    cluster.admin(Method::POST, "/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await;
    let (code, bound) = cluster.admin(Method::POST, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
    assert_eq!(code, 201, "{bound}");
    cluster.seen(&bound).await;
    apply(&cluster, &format!("{MAPS}/there"), "m", config_map("there", json!({"a": "1"}))).await;
    let as_pat = |name: &'static str| {
        let caller = Caller { user: UserInfo::new("pat", &["system:authenticated"]), fence: None };
        let body = config_map(name, json!({"b": "1"})).to_string();
        let request = Request::builder().method(Method::PATCH).uri(format!("{MAPS}/{name}?fieldManager=pat"));
        cluster.api.call(caller, request.header("content-type", CONTENT_TYPE).body(body.into()).unwrap())
    };
    assert_eq!(read(as_pat("there").await).await.0, 200);
    let (code, refused) = read(as_pat("missing").await).await;
    assert_eq!(code, 403, "{refused}");
    cluster.stop().await;
}
