use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::*;
pub(crate) use crate::storage::fake_reader::FakeReader;
use crate::user::UserInfo;

fn user(name: &str, groups: &[&str]) -> UserInfo {
    UserInfo::new(name, groups)
}

fn policy() -> (Arc<FakeReader>, Authorizer) {
    let reader = FakeReader::with_defaults();
    let fixture: Value = serde_json::from_str(include_str!("tests/policy.json")).unwrap();
    for (plural, objects) in fixture.as_object().unwrap() {
        for object in objects.as_array().unwrap() {
            reader.put(RBAC_GROUP, plural, object.clone());
        }
    }
    let reader = Arc::new(reader);
    (reader.clone(), Authorizer::new(reader))
}

fn request(user: UserInfo, verb: &str, what: &str, namespace: &str, name: &str) -> Attributes {
    let mut request = Attributes { user, verb: verb.to_owned(), ..Attributes::default() };
    if what.starts_with('/') {
        request.path = what.to_owned();
        return request;
    }
    let mut parts = what.split(':').map(str::to_owned);
    request.resource_request = true;
    request.group = parts.next().unwrap();
    request.resource = parts.next().unwrap();
    request.subresource = parts.next().unwrap_or_default();
    request.namespace = namespace.to_owned();
    request.name = name.to_owned();
    request
}

/// The expected answers were computed by an independent evaluator over the same policy and upstream's defaults.
#[tokio::test]
async fn table_of_decisions() {
    let (_, authorizer) = policy();
    let dash = |text: &'static str| if text == "-" { "" } else { text };
    let (mut count, mut wrong) = (0, Vec::new());
    for line in include_str!("tests/cases.txt").lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<_> = line.split(" | ").collect();
        let [name, groups, verb, what, namespace, object, expected] = fields[..] else {
            panic!("bad line: {line}");
        };
        let groups: Vec<_> = groups.split(',').collect();
        let request = request(user(name, &groups), verb, what, dash(namespace), dash(object));
        if authorizer.authorize(&request).await.allowed != (expected == "yes") {
            wrong.push(line);
        }
        count += 1;
    }
    assert!(count > 400, "only {count} cases");
    assert!(wrong.is_empty(), "{} of {count} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn refusals_and_reasons_speak_upstreams_words() {
    let (reader, authorizer) = policy();
    let authenticated = |name| user(name, &["system:authenticated"]);
    let refused = request(authenticated("x"), "list", ":pods:", "default", "");
    let status = authorizer.require(&refused).await.unwrap_err();
    assert_eq!(status.message, r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default""#);
    let refused = request(authenticated("x"), "get", "apps:deployments:scale", "", "d");
    assert_eq!(
        forbidden(&refused, "").message,
        r#"deployments.apps "d" is forbidden: User "x" cannot get resource "deployments/scale" in API group "apps" at the cluster scope"#
    );
    let refused = request(authenticated("x"), "get", "/logs", "", "");
    assert_eq!(forbidden(&refused, "").message, r#"forbidden: User "x" cannot get path "/logs""#);
    let lost = request(authenticated("lost"), "list", ":pods:", "team", "");
    assert_eq!(authorizer.authorize(&lost).await.reason, r#"RBAC: clusterrole.rbac.authorization.k8s.io "missing" not found"#);
    let allowed = request(user("dora", &["devs"]), "create", ":configmaps:", "team", "");
    assert_eq!(
        authorizer.authorize(&allowed).await.reason,
        r#"RBAC: allowed by RoleBinding "r1/team" of Role "cm-writer" to Group "devs""#
    );
    reader.remove(RBAC_GROUP, "rolebindings", "team", "r1");
    assert!(!authorizer.authorize(&allowed).await.allowed, "a removed binding must not go on allowing");
}

#[tokio::test]
async fn a_node_reaches_what_its_pods_need_and_no_more() {
    let reader = Arc::new(FakeReader::with_defaults());
    let pod = |name: &str, node: &str| {
        json!({"metadata": {"name": name, "namespace": "a"}, "spec": {
            "nodeName": node, "serviceAccountName": "runner",
            "imagePullSecrets": [{"name": format!("{name}-pull")}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": format!("{name}-env")}}}],
                            "envFrom": [{"configMapRef": {"name": format!("{name}-cm")}}]}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": format!("{name}-claim")}},
                        {"name": "e", "ephemeral": {}},
                        {"name": "t", "projected": {"sources": [{"secret": {"name": format!("{name}-proj")}},
                                                                 {"configMap": {"name": "kube-root-ca.crt"}}]}}],
        }})
    };
    reader.put("", "pods", pod("p1", "n1"));
    reader.put("", "pods", pod("p2", "n2"));
    let mut mirror = pod("m", "n1");
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    reader.put("", "pods", mirror);
    reader.put(
        "",
        "persistentvolumes",
        json!({"metadata": {"name": "pv"}, "spec": {
        "claimRef": {"namespace": "a", "name": "p1-claim"},
        "csi": {"nodeStageSecretRef": {"namespace": "sys", "name": "stage"}}}}),
    );
    reader.put("storage.k8s.io", "volumeattachments", json!({"metadata": {"name": "va"}, "spec": {"nodeName": "n1"}}));
    for (name, node) in [("slice1", "n1"), ("slice2", "n2")] {
        reader.put("resource.k8s.io", "resourceslices", json!({"metadata": {"name": name}, "spec": {"nodeName": node}}));
    }
    reader.put("resource.k8s.io", "resourceslices", json!({"metadata": {"name": "common"}, "spec": {"allNodes": true}}));
    reader.put_late("", "pods", pod("p3", "n1"));
    let authorizer = Authorizer::new(reader.clone());
    // verb, resource, namespace, name, field selector, allowed for n1
    let cases: &[(&str, &str, &str, &str, &str, bool)] = &[
        ("get", ":secrets", "a", "p1-env", "", true),
        ("watch", ":secrets", "a", "p1-pull", "", true),
        ("list", ":secrets", "a", "p1-proj", "", true),
        ("get", ":secrets", "sys", "stage", "", true),
        ("get", ":secrets", "a", "m-env", "", false),
        ("get", ":secrets", "a", "p2-env", "", false),
        ("get", ":secrets", "b", "p1-env", "", false),
        ("list", ":secrets", "a", "", "", false),
        ("update", ":secrets", "a", "p1-env", "", false),
        ("get", ":configmaps", "a", "p1-cm", "", true),
        ("get", ":configmaps", "a", "kube-root-ca.crt", "", true),
        ("get", ":configmaps", "a", "p2-cm", "", false),
        ("get", ":secrets", "a", "p3-env", "", true),
        ("get", ":persistentvolumeclaims", "a", "p1-claim", "", true),
        ("get", ":persistentvolumeclaims", "a", "p1-e", "", true),
        ("patch", ":persistentvolumeclaims:status", "a", "p1-claim", "", true),
        ("list", ":persistentvolumeclaims", "a", "p1-claim", "", false),
        ("get", ":persistentvolumes", "", "pv", "", true),
        ("get", "storage.k8s.io:volumeattachments", "", "va", "", true),
        ("create", ":serviceaccounts:token", "a", "runner", "", true),
        ("create", ":serviceaccounts:token", "a", "other", "", false),
        ("get", ":nodes", "", "n1", "", true),
        // By our own role for agents: the pod network needs its peers.
        ("list", ":nodes", "", "", "", true),
        ("watch", "discovery.k8s.io:endpointslices", "", "", "", true),
        ("update", "discovery.k8s.io:endpointslices", "", "", "", false),
        ("watch", ":nodes", "", "n1", "", true),
        ("patch", ":nodes:status", "", "n1", "", true),
        ("delete", ":nodes", "", "n1", "", false),
        ("get", ":pods", "a", "p1", "", true),
        ("get", ":pods", "a", "p2", "", false),
        ("list", ":pods", "", "", "spec.nodeName=n1", true),
        ("watch", ":pods", "", "", "spec.nodeName=n2", false),
        ("list", ":pods", "", "", "", false),
        ("watch", ":pods", "a", "p1", "metadata.name=p1", true),
        ("watch", ":pods", "a", "p2", "metadata.name=p2", false),
        ("create", "resource.k8s.io:resourceslices", "", "", "", true),
        ("get", "resource.k8s.io:resourceslices", "", "slice1", "", true),
        ("update", "resource.k8s.io:resourceslices", "", "slice2", "", false),
        ("delete", "resource.k8s.io:resourceslices", "", "common", "", false),
        ("list", "resource.k8s.io:resourceslices", "", "", "spec.nodeName=n1", true),
        ("list", "resource.k8s.io:resourceslices", "", "", "", false),
        ("deletecollection", "resource.k8s.io:resourceslices", "", "", "spec.nodeName=n1", true),
        ("deletecollection", "resource.k8s.io:resourceslices", "", "", "spec.nodeName=n2", false),
        ("deletecollection", "resource.k8s.io:resourceslices", "", "", "", false),
        ("patch", ":pods:status", "a", "p1", "", true),
        ("update", "coordination.k8s.io:leases", "kube-node-lease", "n1", "", true),
        ("update", "coordination.k8s.io:leases", "kube-node-lease", "n2", "", false),
        ("get", "coordination.k8s.io:leases", "default", "n1", "", false),
        ("list", ":services", "", "", "", true),
        ("create", ":events", "a", "", "", true),
        ("create", "authentication.k8s.io:tokenreviews", "", "", "", true),
        ("delete", ":namespaces", "", "a", "", false),
    ];
    for (verb, what, namespace, name, fields, expected) in cases {
        let node = user("system:node:n1", &["system:nodes", "system:authenticated"]);
        let mut request = request(node, verb, what, namespace, name);
        request.field_selector = (!fields.is_empty()).then(|| (*fields).to_owned());
        let decision = authorizer.authorize(&request).await;
        assert_eq!(decision.allowed, *expected, "{verb} {what} {namespace}/{name}: {}", decision.reason);
        request.user.groups.clear();
        assert!(!authorizer.authorize(&request).await.allowed, "the name alone is no node");
    }
    assert!(reader.refreshed.load(Ordering::Relaxed));
}

#[tokio::test]
async fn nobody_grants_what_he_does_not_hold() {
    let (reader, authorizer) = policy();
    reader.put(
        RBAC_GROUP,
        "clusterroles",
        json!({"metadata": {"name": "may-bind"}, "rules": [
        {"apiGroups": [RBAC_GROUP], "resources": ["clusterroles"], "resourceNames": ["cluster-admin"], "verbs": ["bind"]},
        {"apiGroups": [RBAC_GROUP], "resources": ["roles"], "verbs": ["escalate"]}]}),
    );
    reader.put(
        RBAC_GROUP,
        "clusterrolebindings",
        json!({"metadata": {"name": "mb"},
        "roleRef": {"kind": "ClusterRole", "name": "may-bind"}, "subjects": [{"kind": "User", "name": "binder"}]}),
    );
    let role = |verbs: &[&str]| json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]});
    let binding = |name: &str| json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": name}, "subjects": []});
    let aggregated = json!({"metadata": {"name": "r"}, "aggregationRule": {"clusterRoleSelectors": []}, "rules": []});
    let cases = [
        ("paula", "roles", "team", role(&["get", "list"]), true),
        ("paula", "roles", "team", role(&["get", "delete"]), false),
        ("paula", "clusterroles", "", role(&["*"]), false),
        ("paula", "clusterroles", "", aggregated, false),
        ("paula", "rolebindings", "team", binding("pod-reader"), true),
        ("paula", "rolebindings", "team", binding("named-secret"), true),
        ("paula", "rolebindings", "other", binding("named-secret"), false),
        ("paula", "clusterrolebindings", "", binding("cluster-admin"), false),
        ("binder", "clusterrolebindings", "", binding("cluster-admin"), true),
        ("binder", "roles", "team", role(&["*"]), true),
        ("binder", "clusterroles", "", role(&["get"]), false),
    ];
    for (name, resource, namespace, object, expected) in &cases {
        let who = user(name, &["system:authenticated"]);
        let check = EscalationCheck { user: &who, resource, namespace, new: object, old: None };
        assert_eq!(check.run(&authorizer).await.is_ok(), *expected, "{name} {resource} {object}");
        let update = EscalationCheck { old: Some(object), ..check };
        assert!(update.run(&authorizer).await.is_ok(), "an unchanged object grants nothing new");
        let root = user("root", &["system:masters"]);
        assert!(EscalationCheck { user: &root, ..check }.run(&authorizer).await.is_ok());
    }
    let who = user("paula", &["system:authenticated"]);
    let object = role(&["get", "delete", "create"]);
    let check = EscalationCheck { user: &who, resource: "roles", namespace: "team", new: &object, old: None };
    assert_eq!(
        check.run(&authorizer).await.unwrap_err().message,
        "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"paula\" (groups=[\"system:authenticated\"]) is \
         attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], \
         Verbs:[\"delete\" \"create\"]}"
    );
}

#[tokio::test]
async fn reviews_answer_and_refuse_nonsense() {
    let (_, authorizer) = policy();
    let review = json!({"spec": {"user": "paula", "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "x"}}});
    let answer = review::subject(&authorizer, review.clone()).await.unwrap();
    assert_eq!(answer["status"]["allowed"], true);
    assert!(review::local_subject(&authorizer, "x", review.clone()).await.is_ok());
    assert_eq!(review::local_subject(&authorizer, "y", review).await.unwrap_err().code(), 422);
    let nobody = json!({"spec": {"nonResourceAttributes": {"verb": "get", "path": "/metrics"}}});
    assert_eq!(review::subject(&authorizer, nobody.clone()).await.unwrap_err().code(), 422);
    let otto = user("otto", &["ops"]);
    assert_eq!(review::own(&authorizer, &otto, nobody).await.unwrap()["status"]["allowed"], true);
    assert!(review::own(&authorizer, &otto, json!({"spec": {}})).await.is_err());
    let rules = review::rules(&authorizer, &otto, json!({"spec": {"namespace": "team"}})).unwrap();
    assert_eq!(rules["status"]["nonResourceRules"][0]["nonResourceURLs"][0], "/metrics");
    assert_eq!(rules["status"]["incomplete"], false);
}
