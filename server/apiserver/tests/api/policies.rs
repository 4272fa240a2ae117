//! Admission policies over HTTP: what upstream's end-to-end tests of them ask for, and what is refused when they are written.

use crate::support::Cluster;
use http::Method;
use serde_json::{Value, json};
use trireme_apiserver::{Caller, UserInfo};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn deployment(name: &str, replicas: i64) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": "a"}},
        "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

fn rules(group: &str, version: &str, plural: &str) -> Value {
    json!([{"operations": ["CREATE", "UPDATE"], "apiGroups": [group], "apiVersions": [version], "resources": [plural]}])
}

fn policy(kind: &str, name: &str, spec: &Value) -> Value {
    let mut spec = spec.clone();
    if spec.get("matchConstraints").is_none() {
        spec["matchConstraints"] = json!({"resourceRules": rules("apps", "v1", "deployments")});
    }
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn binding(kind: &str, policy: &str, more: &Value) -> Value {
    let mut spec = more.clone();
    spec["policyName"] = json!(policy);
    if kind.starts_with("Validating") && spec.get("validationActions").is_none() {
        spec["validationActions"] = json!(["Deny"]);
    }
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": format!("{policy}-binding")}, "spec": spec})
}

/// A policy and its binding.
async fn install(cluster: &Cluster, word: &str, name: &str, spec: &Value, more: &Value) {
    let plural = format!("{}admissionpolic", word.to_lowercase());
    let kind = format!("{word}AdmissionPolicy");
    let (code, answer) = cluster.admin(Method::POST, &format!("{GROUP}/{plural}ies"), policy(&kind, name, spec)).await;
    assert_eq!(code, 201, "{answer}");
    let bound = binding(&format!("{kind}Binding"), name, more);
    let (code, answer) = cluster.admin(Method::POST, &format!("{GROUP}/{plural}ybindings"), bound).await;
    assert_eq!(code, 201, "{answer}");
    assert!(cluster.api.storage().refresh_all().await, "policies act once they are in the watch cache");
}

async fn uninstall(cluster: &Cluster, word: &str, name: &str) {
    let plural = format!("{}admissionpolic", word.to_lowercase());
    for path in [format!("{plural}ybindings/{name}-binding"), format!("{plural}ies/{name}")] {
        assert_eq!(cluster.admin(Method::DELETE, &format!("{GROUP}/{path}"), Value::Null).await.0, 200);
    }
    assert!(cluster.api.storage().refresh_all().await);
}

async fn created(cluster: &Cluster, target: &str, object: Value) -> (u16, String) {
    let (code, answer) = cluster.admin(Method::POST, target, object).await;
    (code, answer["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_refuses_in_its_own_words() {
    let cluster = Cluster::start().await;
    install(
        &cluster,
        "Validating",
        "replicas",
        &json!({"validations": [
            {"expression": "object.spec.replicas > 1", "messageExpression": "'wants replicas > 1, got ' + string(object.spec.replicas)"},
            {"expression": "namespaceObject.metadata.name == 'default'", "message": "other namespace"}]}),
        &json!({"matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}}),
    )
    .await;
    let (code, answer) = cluster.admin(Method::POST, DEPLOYMENTS, deployment("marker", 1)).await;
    let message = "deployments.apps \"marker\" is forbidden: ValidatingAdmissionPolicy 'replicas' with binding 'replicas-binding' denied request: \
                   wants replicas > 1, got 1";
    assert_eq!((code, answer["message"].as_str(), answer["reason"].as_str()), (422, Some(message), Some("Invalid")), "{answer}");
    assert_eq!(answer["details"]["causes"][0]["message"].as_str().map(|text| message.ends_with(text)), Some(true), "{answer}");
    assert_eq!(created(&cluster, DEPLOYMENTS, deployment("replicated", 2)).await.0, 201);
    let scaled = json!({"spec": {"replicas": 1}});
    assert_eq!(cluster.admin(Method::PATCH, &format!("{DEPLOYMENTS}/replicated"), scaled).await.0, 422, "an update is judged too");
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "set"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"app": "b"}},
        "template": {"metadata": {"labels": {"app": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    assert_eq!(created(&cluster, "/apis/apps/v1/namespaces/default/replicasets", set).await.0, 201);
    let elsewhere = "/apis/apps/v1/namespaces/kube-system/deployments";
    assert_eq!(created(&cluster, elsewhere, deployment("elsewhere", 1)).await.0, 201, "not selected");
    uninstall(&cluster, "Validating", "replicas").await;
    assert_eq!(created(&cluster, DEPLOYMENTS, deployment("free", 1)).await.0, 201);

    install(
        &cluster,
        "Validating",
        "odd",
        &json!({
            "variables": [{"name": "replicas", "expression": "object.spec.replicas"},
                          {"name": "oddReplicas", "expression": "variables.replicas % 2 == 1"}],
            "validations": [{"expression": "variables.replicas > 1"}, {"expression": "variables.oddReplicas", "reason": "Forbidden"}]}),
        &json!({}),
    )
    .await;
    let (code, message) = created(&cluster, DEPLOYMENTS, deployment("one", 1)).await;
    assert!(code == 422 && message.ends_with("denied request: failed expression: variables.replicas > 1"), "{message}");
    assert_eq!(created(&cluster, DEPLOYMENTS, deployment("two", 2)).await.0, 403);
    assert_eq!(created(&cluster, DEPLOYMENTS, deployment("three", 3)).await.0, 201);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_actions_and_failures_count() {
    let cluster = Cluster::start().await;
    let on_maps = |more: Value| {
        let mut spec = json!({"matchConstraints": {"resourceRules": rules("", "v1", "configmaps")}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}});
    let conditions = json!([{"name": "not-me", "expression": "object.metadata.name != 'skip-me'"}]);
    let refuse = json!([{"expression": "false", "message": "no"}]);
    install(&cluster, "Validating", "all", &on_maps(json!({"matchConditions": conditions, "validations": refuse})), &json!({})).await;
    assert_eq!(created(&cluster, CONFIG_MAPS, map("other")).await.0, 422);
    assert_eq!(created(&cluster, CONFIG_MAPS, map("skip-me")).await.0, 201);
    uninstall(&cluster, "Validating", "all").await;

    let warn = json!({"validationActions": ["Warn", "Audit"]});
    install(&cluster, "Validating", "warn", &on_maps(json!({"validations": refuse})), &warn).await;
    let headers = [("content-type", "application/json")];
    let answer = cluster.send(Method::POST, CONFIG_MAPS, map("warned"), &headers).await;
    assert_eq!(answer.status(), 201);
    let warning = answer.headers().get("warning").unwrap().to_str().unwrap().to_owned();
    assert!(warning.contains("Validation failed for ValidatingAdmissionPolicy 'warn' with binding 'warn-binding': no"), "{warning}");
    uninstall(&cluster, "Validating", "warn").await;

    // An expression that fails on the object: the failure policy decides.
    for (failure, code) in [("Fail", 422), ("Ignore", 201)] {
        let spec = on_maps(json!({"failurePolicy": failure, "validations": [{"expression": "object.nothing.here == 1"}]}));
        install(&cluster, "Validating", "broken", &spec, &json!({})).await;
        let (found, message) = created(&cluster, CONFIG_MAPS, map(&format!("on-{}", failure.to_lowercase()))).await;
        assert_eq!(found, code, "{message}");
        let part = "expression 'object.nothing.here == 1' resulted in error: no such key: nothing";
        assert!(code == 201 || message.ends_with(part), "{message}");
        uninstall(&cluster, "Validating", "broken").await;
    }

    // Parameters: by name, missing ones allowed or not.
    let limits = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "limits"}, "data": {"max": "3"}});
    assert_eq!(created(&cluster, CONFIG_MAPS, limits).await.0, 201);
    let kind = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    let spec = json!({"paramKind": kind, "validations": [{"expression": "object.spec.replicas <= int(params.data.max)"}]});
    for (name, action, small, large) in [("limits", "Deny", 201, 422), ("none", "Deny", 422, 422), ("none", "Allow", 201, 201)] {
        let reference = json!({"paramRef": {"name": name, "parameterNotFoundAction": action}});
        install(&cluster, "Validating", "limited", &spec, &reference).await;
        for (replicas, code) in [(3, small), (4, large)] {
            let (found, message) = created(&cluster, &format!("{DEPLOYMENTS}?dryRun=All"), deployment("limited", replicas)).await;
            assert_eq!(found, code, "{name} {action} {replicas}: {message}");
            let missing = "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
            assert!(name != "none" || code == 201 || message.ends_with(missing), "{message}");
        }
        uninstall(&cluster, "Validating", "limited").await;
    }

    // The authorizer, and who may refer to parameters.
    let spec = on_maps(
        json!({"validations": [{"expression": "authorizer.group('').resource('secrets').namespace('default').check('get').allowed()"}]}),
    );
    install(&cluster, "Validating", "asking", &spec, &json!({})).await;
    assert_eq!(created(&cluster, CONFIG_MAPS, map("by-admin")).await.0, 201);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_refused_when_it_is_written() {
    let cluster = Cluster::start().await;
    let bad = json!({"name": "invalid-expression-1", "expression": "... [] bad expression"});
    for word in ["Validating", "Mutating"] {
        let kind = format!("{word}WebhookConfiguration");
        let hook = json!({"name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://a.example.com"}, "matchConditions": [bad],
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]});
        let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "a"}, "webhooks": [hook]});
        let (code, message) =
            created(&cluster, &format!("{GROUP}/{}configurations", format!("{word}webhook").to_lowercase()), object).await;
        assert_eq!(code, 422, "{message}");
        assert!(
            message
                .contains("webhooks[0].matchConditions[0].expression: Invalid value: \"... [] bad expression\": compilation failed: ERROR"),
            "{message}"
        );
    }
    let validating = |spec: Value| policy("ValidatingAdmissionPolicy", "a", &spec);
    let mutating = |spec: Value| policy("MutatingAdmissionPolicy", "a", &spec);
    let path = |word: &str| format!("{GROUP}/{word}admissionpolicies");
    for (word, object, part) in [
        (
            "validating",
            validating(json!({})),
            "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
        ),
        (
            "validating",
            validating(json!({"validations": [{"expression": "nothing"}]})),
            "spec.validations[0].expression: Invalid value: \"nothing\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'nothing'",
        ),
        ("validating", validating(json!({"validations": [{"expression": "'a'"}]})), "must evaluate to bool but got string"),
        (
            "validating",
            validating(json!({"validations": [{"expression": "true", "messageExpression": "1"}]})),
            "spec.validations[0].messageExpression: Invalid value: \"1\": must evaluate to string but got int",
        ),
        ("validating", validating(json!({"validations": [{"expression": "params.x == 1"}]})), "undeclared reference to 'params'"),
        (
            "validating",
            validating(json!({"validations": [{"expression": "true", "reason": "NotFound"}]})),
            "spec.validations[0].reason: Unsupported value: \"NotFound\"",
        ),
        (
            "validating",
            validating(json!({"validations": [{"expression": "true"}], "variables": [{"name": "a-b", "expression": "1 +"}]})),
            "spec.variables[0].name: Invalid value: \"a-b\": must be a valid CEL identifier",
        ),
        (
            "validating",
            validating(json!({"validations": [{"expression": "true"}], "variables": [{"name": "ab", "expression": "1 +"}]})),
            "spec.variables[0].expression: Invalid value: \"1 +\": compilation failed",
        ),
        (
            "validating",
            validating(json!({"validations": [{"expression": "true"}], "matchConstraints": {}})),
            "spec.matchConstraints.resourceRules: Required value",
        ),
        (
            "validating",
            validating(json!({"auditAnnotations": [{"key": "a", "valueExpression": "1"}]})),
            "must evaluate to one of [string null_type] but got int",
        ),
        ("mutating", mutating(json!({"mutations": []})), "spec.mutations: Required value: mutations must contain at least one item"),
        (
            "mutating",
            mutating(json!({"mutations": [{"patchType": "JSONPatch"}]})),
            "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch",
        ),
        (
            "mutating",
            mutating(json!({"mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "1"}}]})),
            "must evaluate to list(JSONPatch) but got int",
        ),
        (
            "mutating",
            mutating(json!({"mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "{}"}}]})),
            "must evaluate to Object but got map(dyn, dyn)",
        ),
    ] {
        let (code, message) = created(&cluster, &path(word), object.clone()).await;
        assert!(code == 422 && message.contains(part), "{object}: {code} {message}");
    }
    let unbound = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "b"},
        "spec": {"policyName": "a", "validationActions": ["Deny", "Warn"], "paramRef": {"name": "x", "selector": {}}}});
    let (code, message) = created(&cluster, &format!("{GROUP}/validatingadmissionpolicybindings"), unbound).await;
    for part in [
        "must not contain both Deny and Warn",
        "name and selector are mutually exclusive",
        "spec.paramRef.parameterNotFoundAction: Required",
    ] {
        assert!(code == 422 && message.contains(part), "{message}");
    }

    // Who may write policies but not read the parameters cannot refer to them.
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "author"},
        "rules": [{"apiGroups": ["admissionregistration.k8s.io"], "resources": ["*"], "verbs": ["*"]}]});
    let bound = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "author"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "author"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}]});
    for (plural, object) in [("clusterroles", role), ("clusterrolebindings", bound)] {
        let (code, answer) = cluster.admin(Method::POST, &format!("/apis/rbac.authorization.k8s.io/v1/{plural}"), object).await;
        assert_eq!(code, 201, "{answer}");
        cluster.seen(&answer).await;
    }
    let spec = json!({"paramKind": {"apiVersion": "v1", "kind": "Secret"}, "validations": [{"expression": "true"}]});
    let body = policy("ValidatingAdmissionPolicy", "secret", &spec).to_string();
    let request = http::Request::builder().method(Method::POST).uri(path("validating")).header("content-type", "application/json");
    let caller = Caller { user: UserInfo::new("ann", &["system:authenticated"]), fence: None };
    let (code, answer) = crate::support::read(cluster.api.call(caller, request.body(body.into()).unwrap()).await).await;
    let part = "must have \"get\" permission on all objects of the referenced paramKind (kind=Secret, apiVersion=v1)";
    assert!(code == 403 && answer["message"].as_str().unwrap().contains(part), "{answer}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_changes_objects() {
    let cluster = Cluster::start().await;
    let apply = |expression: &str| json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}});
    let patch = |expression: &str| json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}});
    let mutations = |list: &[Value]| json!({"reinvocationPolicy": "Never", "mutations": list});
    let annotated = apply("Object{metadata: Object.metadata{annotations: {\"mutated-by\": \"admission-policy\"}}}");
    let scaled = apply("Object{spec: Object.spec{replicas: 1337}}");
    install(&cluster, "Mutating", "apply", &mutations(&[annotated, scaled]), &json!({})).await;
    let (code, made) = cluster.admin(Method::POST, DEPLOYMENTS, deployment("applied", 1)).await;
    assert_eq!((code, &made["spec"]["replicas"]), (201, &json!(1337)), "{made}");
    assert_eq!(made["metadata"]["annotations"]["mutated-by"], "admission-policy");
    uninstall(&cluster, "Mutating", "apply").await;

    let sidecar = apply(
        "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: [
            Object.spec.template.spec.containers{name: 'side', image: 'sidecar:1'}]}}}}",
    );
    let labelled = patch(
        "[JSONPatch{op: 'test', path: '/spec/replicas', value: 1},
          JSONPatch{op: 'add', path: '/metadata/labels', value: {'a': 'b'}},
          JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('example.com/x'), value: string(object.spec.template.spec.containers.size())}]",
    );
    let skipped = patch("[JSONPatch{op: 'test', path: '/spec/replicas', value: 7}, JSONPatch{op: 'remove', path: '/spec/replicas'}]");
    install(&cluster, "Mutating", "patch", &mutations(&[sidecar, labelled, skipped]), &json!({})).await;
    let (code, made) = cluster.admin(Method::POST, DEPLOYMENTS, deployment("patched", 1)).await;
    assert_eq!((code, &made["metadata"]["labels"]), (201, &json!({"a": "b", "example.com/x": "2"})), "{made}");
    let containers = made["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.iter().map(|c| c["name"].as_str().unwrap()).collect::<Vec<_>>(), ["c", "side"]);
    assert_eq!(containers[1]["terminationMessagePath"], "/dev/termination-log", "what a policy adds gets defaults");
    uninstall(&cluster, "Mutating", "patch").await;

    // What does not fit the object is refused.
    for (mutation, part) in [
        (apply("Object{spec: Object.spec{nothing: 1}}"), "field not declared in schema"),
        (
            apply("Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'a': 'b'}}}}"),
            "may not mutate atomic arrays, maps or structs",
        ),
        (apply("Object{spec: Object.wrong{replicas: 1}}"), "unexpected type name \"Object.wrong\", expected \"Object.spec\""),
        (patch("[JSONPatch{op: 'remove', path: '/spec/nothing'}]"), "JSON Patch: "),
        (patch("[JSONPatch{op: 'add', path: '/spec/nothing', value: 1}]"), "nothing"),
        (patch("[JSONPatch{op: 'replace', path: '/kind', value: 'Pod'}]"), "cannot be changed"),
    ] {
        install(&cluster, "Mutating", "bad", &mutations(std::slice::from_ref(&mutation)), &json!({})).await;
        let (code, message) = created(&cluster, DEPLOYMENTS, deployment("bad", 1)).await;
        assert!(
            code == 403 && message.contains("policy 'bad' with binding 'bad-binding' denied request: "),
            "{mutation}: {code} {message}"
        );
        assert!(message.contains(part), "{mutation}: {message}");
        uninstall(&cluster, "Mutating", "bad").await;
    }

    // One that asks for it sees what a later one made.
    let sees = patch(
        "has(object.metadata.labels) && 'late' in object.metadata.labels ? [JSONPatch{op: 'add', path: '/metadata/labels/seen', value: 'yes'}] : []",
    );
    let spec = json!({"reinvocationPolicy": "IfNeeded", "mutations": [sees]});
    install(&cluster, "Mutating", "a-early", &spec, &json!({})).await;
    let late = apply("Object{metadata: Object.metadata{labels: {'late': 'yes'}}}");
    install(&cluster, "Mutating", "b-late", &mutations(&[late]), &json!({})).await;
    let (code, made) = cluster.admin(Method::POST, DEPLOYMENTS, deployment("twice", 1)).await;
    assert_eq!((code, &made["metadata"]["labels"]), (201, &json!({"late": "yes", "seen": "yes"})), "{made}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_served() {
    let cluster = Cluster::start().await;
    let (_, list) = cluster.admin(Method::GET, GROUP, Value::Null).await;
    let names: Vec<&str> = list["resources"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    for name in [
        "validatingadmissionpolicies",
        "validatingadmissionpolicies/status",
        "validatingadmissionpolicybindings",
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
    ] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    let target = format!("{GROUP}/validatingadmissionpolicies");
    let object = policy("ValidatingAdmissionPolicy", "a", &json!({"validations": [{"expression": "object.spec.replicas <= 100"}]}));
    let (code, made) = cluster.admin(Method::POST, &target, object).await;
    assert_eq!((code, made["metadata"]["generation"].as_i64()), (201, Some(1)), "{made}");
    let (code, patched) = cluster.admin(Method::PATCH, &format!("{target}/a"), json!({"spec": {"failurePolicy": "Ignore"}})).await;
    assert_eq!((code, patched["spec"]["failurePolicy"].as_str()), (200, Some("Ignore")), "{patched}");
    let condition = json!({"type": "PatchStatusFailed", "status": "False", "reason": "e2e", "message": "Set from an e2e test",
        "lastTransitionTime": "2024-01-01T00:00:00Z"});
    let (code, patched) = cluster.admin(Method::PATCH, &format!("{target}/a/status"), json!({"status": {"conditions": [condition]}})).await;
    assert_eq!((code, patched["status"]["conditions"][0]["type"].as_str()), (200, Some("PatchStatusFailed")), "{patched}");
    assert_eq!(cluster.admin(Method::DELETE, &target, Value::Null).await.0, 200);
    cluster.stop().await;
}
