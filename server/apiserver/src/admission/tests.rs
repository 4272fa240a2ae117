use std::sync::Arc;

use serde_json::json;
use trireme_api::gvk::{GroupVersionKind, GroupVersionResource};

use super::builtin::{self, Selection};
use super::chain::Chain;
use super::loopback::Loopback;
use super::plugin::{Environment, Plugin};
use super::plugins::service_allocation::Ranges;
use super::request::Operation;
use super::toleration_seconds::TolerationSeconds;
use super::*;
use crate::authz::Authorizer;
use crate::authz::tests::FakeReader;
use crate::catalog::rows::Rows;
use crate::egress::Direct;
use crate::user::UserInfo;

pub(super) struct World {
    pub(super) reader: Arc<FakeReader>,
    chain: Chain,
    pub(super) environment: Environment,
}

pub(super) fn world() -> World {
    world_with(&[])
}

/// A world in which these plugins run besides those that always do.
pub(super) fn world_with(enabled: &[&str]) -> World {
    let reader = Arc::new(FakeReader::with_defaults());
    for (name, phase) in [("a", "Active"), ("dying", "Terminating"), ("kube-node-lease", "Active")] {
        reader.put("", "namespaces", json!({"metadata": {"name": name}, "status": {"phase": phase}}));
    }
    reader.put(
        "",
        "serviceaccounts",
        json!({"metadata": {"namespace": "a", "name": "default"},
        "imagePullSecrets": [{"name": "pull"}]}),
    );
    reader.put(
        "",
        "serviceaccounts",
        json!({"metadata": {"namespace": "a", "name": "quiet"},
        "automountServiceAccountToken": false}),
    );
    reader.put(
        "scheduling.k8s.io",
        "priorityclasses",
        json!({"metadata": {"name": "high"}, "value": 1000,
        "preemptionPolicy": "Never"}),
    );
    reader.put("", "nodes", json!({"metadata": {"name": "n1", "uid": "node-1"}}));
    let environment = Environment {
        reader: reader.clone(),
        store: reader.clone(),
        authorizer: Authorizer::new(reader.clone()),
        egress: Arc::new(Direct::default()),
        ranges: Ranges::default(),
        tolerations: TolerationSeconds::default(),
        rows: Arc::new(Rows::builtin(1 << 16)),
        configuration: Arc::default(),
        loopback: Loopback::default(),
    };
    let selection = Selection { enabled: enabled.iter().map(|name| (*name).to_owned()).collect(), ..Selection::default() };
    let chain = Chain::new(builtin::plugins(&environment, &selection).unwrap());
    World { reader, chain, environment }
}

impl World {
    pub(super) async fn admit(&self, request: &mut AdmissionRequest) -> Answer<Effects> {
        self.chain.admit(request).await
    }

    pub(super) async fn validate(&self, request: &AdmissionRequest) -> Answer<Effects> {
        let mut effects = Effects::default();
        self.chain.validate(request, &mut effects).await?;
        Ok(effects)
    }
}

pub(super) fn on(group: &'static str, plural: &'static str, namespace: &str, operation: Operation, object: Value) -> AdmissionRequest {
    let kind = GroupVersionKind::new(group, "v1", "X");
    let mut request = AdmissionRequest::new(operation, kind, GroupVersionResource::new(group, "v1", plural), root());
    namespace.clone_into(&mut request.namespace);
    request.options = json!({});
    request.set_object(object);
    request
}

fn root() -> UserInfo {
    UserInfo::new("root", &["system:masters"])
}

pub(super) fn pod(namespace: &str, spec: Value) -> AdmissionRequest {
    on("", "pods", namespace, Operation::Create, json!({"metadata": {"generateName": "p-"}, "spec": spec}))
}

#[tokio::test]
async fn a_create_is_tied_to_its_living_namespace() {
    let world = world();
    let mut request = on("", "configmaps", "a", Operation::Create, json!({"metadata": {"name": "c"}}));
    let effects = world.chain.admit(&mut request).await.unwrap();
    assert_eq!(effects.compares().len(), 1);
    assert_eq!(&effects.compares()[0].key[..], b"/registry/core/namespaces/a");

    request.namespace = "dying".into();
    let status = world.chain.admit(&mut request).await.unwrap_err();
    assert_eq!(
        status.message,
        "configmaps \"c\" is forbidden: unable to create new content in namespace dying because it is being terminated"
    );
    let cause = &status.details.as_ref().unwrap().causes[0];
    assert_eq!((cause.reason.as_str(), cause.field.as_str()), ("NamespaceTerminating", "metadata.namespace"));
    request.operation = Operation::Delete;
    assert!(world.chain.admit(&mut request).await.unwrap().compares().is_empty());

    request.operation = Operation::Create;
    request.namespace = "none".into();
    assert_eq!(world.chain.admit(&mut request).await.unwrap_err().message, "namespaces \"none\" not found");
    world.reader.put_late("", "namespaces", json!({"metadata": {"name": "none"}}));
    assert!(world.chain.admit(&mut request).await.is_ok(), "made on another server just now");

    let mut delete = on("", "namespaces", "", Operation::Delete, json!({}));
    for (name, allowed) in [("default", false), ("kube-system", false), ("kube-node-lease", true), ("a", true)] {
        delete.name = name.into();
        assert_eq!(world.chain.admit(&mut delete).await.is_ok(), allowed, "{name}");
    }
}

#[tokio::test]
async fn a_plain_pod_is_filled_in() {
    let world = world();
    let mut request = pod(
        "a",
        json!({"containers": [{"name": "c"}, {"name": "d", "volumeMounts": [
        {"name": "own", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}]}),
    );
    world.chain.admit(&mut request).await.unwrap();
    let spec = &request.object().unwrap()["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(spec["serviceAccount"], "default");
    assert_eq!(spec["imagePullSecrets"], json!([{"name": "pull"}]));
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(0), &json!("PreemptLowerPriority")));
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    let volume = spec["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.starts_with("kube-api-access-") && volume.len() == 21, "{volume}");
    assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], volume);
    assert_eq!(spec["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);
    assert_eq!(spec["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3607);
    let once = request.object().cloned();
    world.chain.admit(&mut request).await.unwrap();
    assert_eq!(request.object().cloned(), once, "admission runs again on conflicts and must then change nothing");

    let mut quiet = pod(
        "a",
        json!({"serviceAccountName": "quiet", "containers": [{"name": "c"}],
        "priorityClassName": "high", "tolerations": [{"operator": "Exists"}]}),
    );
    world.chain.admit(&mut quiet).await.unwrap();
    let spec = &quiet.object().unwrap()["spec"];
    assert_eq!(spec.get("volumes"), None);
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(1000), &json!("Never")));
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 1);

    for (spec, part) in [
        (json!({"serviceAccountName": "none"}), "error looking up service account a/none: serviceaccount \"none\" not found"),
        (json!({"priorityClassName": "none"}), "no PriorityClass with name none was found"),
        (json!({"priority": 7}), "the integer value of priority (7) must not be provided"),
        (json!({"priorityClassName": "high", "preemptionPolicy": "PreemptLowerPriority"}), "computed Never"),
    ] {
        let status = world.chain.admit(&mut pod("a", spec)).await.unwrap_err();
        assert_eq!(status.code(), 403);
        assert!(status.message.starts_with("pods \"p-\" is forbidden: ") && status.message.contains(part), "{}", status.message);
    }
}

#[tokio::test]
async fn nodes_touch_only_what_is_theirs() {
    let world = world();
    let mine = json!({"metadata": {"namespace": "a", "name": "mine", "uid": "u1"}, "spec": {"nodeName": "n1",
        "volumes": [{"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}});
    let other = json!({"metadata": {"namespace": "a", "name": "other", "uid": "u2"}, "spec": {"nodeName": "n2"}});
    world.reader.put("", "pods", mine.clone());
    world.reader.put("", "pods", other.clone());
    let node = || UserInfo::new("system:node:n1", &["system:nodes"]);
    let labelled = |key: &str| json!({"metadata": {"name": "n1", "labels": {key: "x"}}});
    let slice = |node: &str| json!({"metadata": {"name": "s"}, "spec": {"nodeName": node}});
    let lease = |name: &str| json!({"metadata": {"name": name}});
    let token = |name: &str, uid: &str, audience: Value| json!({"spec": {"audiences": audience, "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}}});
    let mirror = |owner: Value| {
        json!({"metadata": {"name": "m", "annotations": {"kubernetes.io/config.mirror": "h"}, "ownerReferences": [owner]},
               "spec": {"nodeName": "n1", "containers": []}})
    };
    let owner = |uid: &str| json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": uid, "controller": true});
    let tainted = json!({"metadata": {"name": "n1"}, "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    use Operation::{Create, Delete, Update};
    let plain = json!({"metadata": {"name": "n1"}});
    // resource/subresource, namespace, name, operation, new, old, allowed
    let cases: Vec<(&str, &str, &str, Operation, Value, Value, bool)> = vec![
        ("/nodes", "", "", Create, labelled("kubernetes.io/hostname"), Value::Null, true),
        ("/nodes", "", "", Create, labelled("example.com/pool"), Value::Null, true),
        ("/nodes", "", "", Create, labelled("node-role.kubernetes.io/control-plane"), Value::Null, false),
        ("/nodes", "", "", Create, labelled("node-restriction.kubernetes.io/x"), Value::Null, false),
        ("/nodes", "", "", Create, json!({"metadata": {"name": "n2"}}), Value::Null, false),
        ("/nodes", "", "n1", Update, plain.clone(), labelled("node-role.kubernetes.io/x"), false),
        ("/nodes", "", "n1", Update, plain.clone(), plain.clone(), true),
        ("/nodes", "", "n1", Update, tainted, plain.clone(), false),
        ("/nodes/status", "", "n2", Update, json!({}), json!({}), false),
        ("/pods", "a", "", Create, mirror(owner("node-1")), Value::Null, true),
        ("/pods", "a", "", Create, mirror(owner("other")), Value::Null, false),
        ("/pods", "a", "", Create, json!({"metadata": {"name": "x"}, "spec": {"nodeName": "n1"}}), Value::Null, false),
        ("/pods", "a", "mine", Delete, Value::Null, mine.clone(), true),
        ("/pods", "a", "other", Delete, Value::Null, other.clone(), false),
        ("/pods/status", "a", "mine", Update, mine.clone(), mine.clone(), true),
        ("/pods/status", "a", "other", Update, other.clone(), other, false),
        ("/pods/binding", "a", "mine", Create, json!({}), Value::Null, false),
        ("/pods/eviction", "a", "mine", Create, json!({}), Value::Null, true),
        ("/pods/eviction", "a", "other", Create, json!({}), Value::Null, false),
        ("coordination.k8s.io/leases", "kube-node-lease", "", Create, lease("n1"), Value::Null, true),
        ("coordination.k8s.io/leases", "kube-node-lease", "", Create, lease("n2"), Value::Null, false),
        ("coordination.k8s.io/leases", "a", "", Create, lease("n1"), Value::Null, false),
        ("resource.k8s.io/resourceslices", "", "", Create, slice("n1"), Value::Null, true),
        ("resource.k8s.io/resourceslices", "", "", Create, slice("n2"), Value::Null, false),
        ("resource.k8s.io/resourceslices", "", "", Create, json!({"spec": {"allNodes": true}}), Value::Null, false),
        ("resource.k8s.io/resourceslices", "", "s", Operation::Delete, Value::Null, slice("n1"), true),
        ("resource.k8s.io/resourceslices", "", "s", Operation::Delete, Value::Null, slice("n2"), false),
        ("/serviceaccounts/token", "a", "default", Create, token("mine", "u1", json!([])), Value::Null, true),
        ("/serviceaccounts/token", "a", "default", Create, token("mine", "", json!([])), Value::Null, false),
        ("/serviceaccounts/token", "a", "default", Create, token("other", "u2", json!([])), Value::Null, false),
        ("/serviceaccounts/token", "a", "default", Create, token("mine", "u1", json!(["vault"])), Value::Null, false),
        ("/serviceaccounts/token", "a", "default", Create, json!({"spec": {}}), Value::Null, false),
    ];
    for (what, namespace, name, operation, new, old, allowed) in cases {
        let mut parts = what.split('/').map(str::to_owned);
        let (group, plural) = (parts.next().unwrap(), parts.next().unwrap());
        let mut request = on("", "x", namespace, operation, new);
        request.resource = GroupVersionResource::new(group, "v1", plural);
        request.subresource = parts.next().unwrap_or_default();
        request.name = name.to_owned();
        request.old_object = (!old.is_null()).then(|| Arc::new(old));
        request.user = node();
        let restriction = plugins::node_restriction::NodeRestriction::new(&world.environment);
        let result = if restriction.handles(&request) { restriction.admit(&mut request, &mut Effects::default()).await } else { Ok(()) };
        assert_eq!(result.is_ok(), allowed, "{what} {operation:?} {name}: {result:?}");
        request.user = UserInfo::new("jane", &[]);
        assert!(!restriction.handles(&request), "not a node");
    }
}

#[tokio::test]
async fn classes_taints_and_certificates() {
    let world = world();
    for (name, born) in [("old", "2020-01-01T00:00:00Z"), ("new", "2024-01-01T00:00:00Z")] {
        world.reader.put(
            "storage.k8s.io",
            "storageclasses",
            json!({"metadata": {"name": name, "creationTimestamp": born,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}),
        );
    }
    let mut claim = on("", "persistentvolumeclaims", "a", Operation::Create, json!({"spec": {}}));
    world.chain.admit(&mut claim).await.unwrap();
    assert_eq!(claim.take_object()["spec"]["storageClassName"], "new");
    let mut claim = on("", "persistentvolumeclaims", "a", Operation::Create, json!({"spec": {"storageClassName": ""}}));
    world.chain.admit(&mut claim).await.unwrap();
    assert_eq!(claim.take_object()["spec"]["storageClassName"], "");

    let mut node = on("", "nodes", "", Operation::Create, json!({"metadata": {"name": "n"}}));
    world.chain.admit(&mut node).await.unwrap();
    world.chain.admit(&mut node).await.unwrap();
    assert_eq!(node.take_object()["spec"]["taints"], json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]));

    let request = |signer: &str| json!({"metadata": {"name": "c"}, "spec": {"signerName": signer, "username": "forged", "uid": "f"}});
    let mut csr = on("certificates.k8s.io", "certificatesigningrequests", "", Operation::Create, request("example.com/x"));
    world.chain.admit(&mut csr).await.unwrap();
    let spec = &csr.object().unwrap()["spec"];
    assert_eq!((spec["username"].as_str(), spec.get("uid")), (Some("root"), None));

    let signers = json!({"metadata": {"name": "appr"}, "rules": [{"apiGroups": ["certificates.k8s.io"], "resources": ["signers"],
        "resourceNames": ["example.com/*"], "verbs": ["approve"]}]});
    world.reader.put("rbac.authorization.k8s.io", "clusterroles", signers);
    world.reader.put(
        "rbac.authorization.k8s.io",
        "clusterrolebindings",
        json!({"metadata": {"name": "appr"},
        "roleRef": {"kind": "ClusterRole", "name": "appr"}, "subjects": [{"kind": "User", "name": "ann"}]}),
    );
    for (signer, who, allowed) in [("example.com/x", "ann", true), ("other.com/x", "ann", false), ("example.com/x", "bob", false)] {
        let mut approval = on("certificates.k8s.io", "certificatesigningrequests", "", Operation::Update, request(signer));
        approval.old_object = Some(Arc::new(request(signer)));
        approval.subresource = "approval".into();
        approval.user = UserInfo::new(who, &[]);
        assert_eq!(world.validate(&approval).await.is_ok(), allowed, "{signer} {who}");
    }

    let default = |name: &str| json!({"metadata": {"name": name}, "globalDefault": true, "value": 5});
    world.reader.put("scheduling.k8s.io", "priorityclasses", default("one"));
    let mut second = on("scheduling.k8s.io", "priorityclasses", "", Operation::Create, default("two"));
    assert!(world.validate(&second).await.is_err());
    second.set_object(default("one"));
    second.operation = Operation::Update;
    second.name = "one".to_owned();
    second.old_object = Some(Arc::new(default("one")));
    assert!(world.validate(&second).await.is_ok());

    let grant = json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
    let mut role = on("rbac.authorization.k8s.io", "clusterroles", "", Operation::Create, grant);
    assert!(world.validate(&role).await.is_ok());
    role.user = UserInfo::new("jane", &["system:authenticated"]);
    assert_eq!(world.validate(&role).await.unwrap_err().code(), 403);
}
