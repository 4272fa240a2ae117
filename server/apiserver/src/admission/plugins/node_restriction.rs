//! NodeRestriction: a kubelet changes its own Node, its own pods and its own lease, and nothing else.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction>.

use futures::future::BoxFuture;
use serde_json::Value;
use trireme_api::certificate_request::CertificateRequest;
use trireme_api::meta;

use crate::admission::effects::Effects;
use crate::admission::forbid;
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::plugins::node_tokens;
use crate::admission::request::{AdmissionRequest, Operation};
use crate::authz::{Authorizer, node::node_name};
use crate::error::Answer;
use crate::storage::lookup::ObjectReader;

const MIRROR: &str = "kubernetes.io/config.mirror";
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Labels in Kubernetes' own domains that a kubelet may set on its node.
const KUBELET_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "node.kubernetes.io/windows-build",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
];
const KUBELET_LABEL_DOMAINS: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];

/// The plugin.
pub struct NodeRestriction {
    authorizer: Authorizer,
}

impl NodeRestriction {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> NodeRestriction {
        NodeRestriction { authorizer: environment.authorizer.clone() }
    }
}

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Admit]
    }

    /// Requests of others than nodes pass.
    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation != Operation::Connect && node_name(&request.user).is_some()
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(admit(&self.authorizer, request))
    }
}

async fn admit(authorizer: &Authorizer, request: &AdmissionRequest) -> Answer<()> {
    let Some(node) = node_name(&request.user) else {
        return Ok(());
    };
    let reader = &**authorizer.reader();
    match (request.resource.group.as_ref(), request.resource.resource.as_ref(), request.subresource.as_str()) {
        ("", "pods", "") => pod(reader, node, request),
        ("", "pods", "status") => pod_status(node, request),
        ("", "pods", "eviction") => eviction(reader, node, request),
        ("", "pods", other) => {
            Err(forbid(request, &format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed")))
        }
        ("", "nodes", _) => own_node(node, request),
        ("", "persistentvolumeclaims", "status") => claim_status(node, request),
        ("", "persistentvolumeclaims", other) => Err(forbid(request, &format!("may only update PVC status, not subresource {other:?}"))),
        ("", "serviceaccounts", "token") => node_tokens::admit(authorizer, node, request).await,
        ("coordination.k8s.io", "leases", _) => lease(node, request),
        ("storage.k8s.io", "csinodes", _) => named_as_node(node, request, "CSINode"),
        ("resource.k8s.io", "resourceslices", _) => resource_slice(node, request),
        ("certificates.k8s.io", "certificatesigningrequests", "") => csr(request),
        _ => Ok(()),
    }
}

fn pod(reader: &dyn ObjectReader, node: &str, request: &AdmissionRequest) -> Answer<()> {
    match (request.operation, request.object(), &request.old_object) {
        (Operation::Create, Some(pod), _) => mirror_pod(reader, node, pod).map_err(|text| forbid(request, &text)),
        (Operation::Delete, _, Some(old)) => {
            if meta::str_at(old, &["spec", "nodeName"]) == node {
                Ok(())
            } else {
                let text = format!("node {node:?} can only delete pods with spec.nodeName set to itself");
                Err(forbid(request, &text))
            }
        }
        _ => {
            let operation = request.operation.as_str();
            let text = format!("unexpected operation {operation:?}, node {node:?} can only create and delete mirror pods");
            Err(forbid(request, &text))
        }
    }
}

/// A node creates mirrors of its static pods only, and they may reach for nothing.
fn mirror_pod(reader: &dyn ObjectReader, node: &str, pod: &Value) -> Result<(), String> {
    if meta::annotation(pod, MIRROR).is_none() {
        return Err(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
    }
    if meta::str_at(pod, &["spec", "nodeName"]) != node {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owners = meta::owner_references(pod);
    let [owner] = owners else {
        return Err(if owners.is_empty() {
            format!("node {node:?} can only create pods with an owner reference set to itself")
        } else {
            format!("node {node:?} can only create pods with a single owner reference set to itself")
        });
    };
    let text = |field: &str| meta::str_at(owner, &[field]);
    if (text("apiVersion"), text("kind"), text("name")) != ("v1", "Node", node) {
        return Err(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if owner["controller"] != true {
        return Err(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
    }
    if owner["blockOwnerDeletion"] == true {
        return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let uid = reader.get("", "nodes", "", node).map(|found| meta::uid(&found.object).to_owned());
    match uid {
        Some(uid) if uid == text("uid") => {}
        Some(uid) => return Err(format!("node {node} UID mismatch: expected {uid} got {}", text("uid"))),
        None => return Err(format!("node {node:?} not found")),
    }
    if !meta::str_at(pod, &["spec", "serviceAccountName"]).is_empty() {
        return Err(format!("node {node:?} can not create pods that reference a service account"));
    }
    match referenced(pod) {
        Some(what) => Err(format!("node {node:?} can not create pods that reference {what}")),
        None => Ok(()),
    }
}

/// The first kind of object that a pod refers to.
fn referenced(pod: &Value) -> Option<&'static str> {
    let spec = &pod["spec"];
    let volumes = meta::list_at(spec, &["volumes"]);
    let containers = ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|list| meta::list_at(spec, &[list]));
    let (mut secrets, mut config_maps) = (!meta::list_at(spec, &["imagePullSecrets"]).is_empty(), false);
    for container in containers {
        for env in meta::list_at(container, &["env"]) {
            secrets |= meta::get(env, &["valueFrom", "secretKeyRef"]).is_some();
            config_maps |= meta::get(env, &["valueFrom", "configMapKeyRef"]).is_some();
        }
        for from in meta::list_at(container, &["envFrom"]) {
            secrets |= from.get("secretRef").is_some();
            config_maps |= from.get("configMapRef").is_some();
        }
    }
    for volume in volumes {
        secrets |= volume.get("secret").is_some() || volume.pointer("/csi/nodePublishSecretRef").is_some();
        config_maps |= volume.get("configMap").is_some();
        for source in meta::list_at(volume, &["projected", "sources"]) {
            if source.get("serviceAccountToken").is_some() {
                return Some("a service account");
            }
            secrets |= source.get("secret").is_some();
            config_maps |= source.get("configMap").is_some();
        }
    }
    if secrets {
        Some("secrets")
    } else if config_maps {
        Some("configmaps")
    } else if volumes.iter().any(|v| v.get("persistentVolumeClaim").is_some() || v.get("ephemeral").is_some()) {
        Some("persistentvolumeclaims")
    } else if !meta::list_at(spec, &["resourceClaims"]).is_empty() {
        Some("resourceclaims")
    } else {
        None
    }
}

fn pod_status(node: &str, request: &AdmissionRequest) -> Answer<()> {
    let (Operation::Update, Some(new), Some(old)) = (request.operation, request.object(), &request.old_object) else {
        return Err(forbid(request, &format!("unexpected operation {:?}", request.operation.as_str())));
    };
    if meta::str_at(old, &["spec", "nodeName"]) != node {
        let text = format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself");
        return Err(forbid(request, &text));
    }
    if meta::labels(new) != meta::labels(old) {
        return Err(forbid(request, &format!("node {node:?} cannot update labels through pod status")));
    }
    let claims = |pod: &Value| meta::list_at(pod, &["status", "resourceClaimStatuses"]).to_vec();
    if claims(new) != claims(old) {
        return Err(forbid(request, &format!("node {node:?} cannot update resource claim statuses")));
    }
    Ok(())
}

fn eviction(reader: &dyn ObjectReader, node: &str, request: &AdmissionRequest) -> Answer<()> {
    if request.operation != Operation::Create {
        return Err(forbid(request, &format!("unexpected operation {:?}", request.operation.as_str())));
    }
    let of = reader.get("", "pods", &request.namespace, &crate::admission::shown_name(request));
    if of.is_some_and(|pod| meta::str_at(&pod.object, &["spec", "nodeName"]) == node) {
        return Ok(());
    }
    Err(forbid(request, &format!("node {node} can only evict pods with spec.nodeName set to itself")))
}

fn own_node(node: &str, request: &AdmissionRequest) -> Answer<()> {
    let mut name = request.name.as_str();
    let empty = Value::Null;
    let new = request.object().unwrap_or(&empty);
    let old = request.old_object.as_deref().unwrap_or(&empty);
    match request.operation {
        Operation::Create => {
            let forbidden = forbidden_labels(new, &Value::Null);
            if !forbidden.is_empty() {
                let text = format!("node {node:?} is not allowed to set the following labels: {}", forbidden.join(", "));
                return Err(forbid(request, &text));
            }
            if name.is_empty() {
                name = meta::name(new);
            }
        }
        Operation::Update => {
            let list = |node: &Value| meta::list_at(node, &["spec", "taints"]).to_vec();
            if list(new) != list(old) {
                return Err(forbid(request, &format!("node {node:?} is not allowed to modify taints")));
            }
            let forbidden = forbidden_labels(new, old);
            if !forbidden.is_empty() {
                let text = format!("is not allowed to modify labels: {}", forbidden.join(", "));
                return Err(forbid(request, &text));
            }
            if meta::owner_references(new) != meta::owner_references(old) {
                return Err(forbid(request, &format!("node {node:?} is not allowed to modify ownerReferences")));
            }
        }
        Operation::Delete | Operation::Connect => {}
    }
    if name == node {
        return Ok(());
    }
    Err(forbid(request, &format!("node {node:?} is not allowed to modify node {name:?}")))
}

/// The changed labels that a kubelet may not touch: they could attract workloads that are meant for other nodes.
fn forbidden_labels(new: &Value, old: &Value) -> Vec<String> {
    let value = |node: &Value, key: &str| meta::label(node, key).map(str::to_owned);
    let keys = [new, old].into_iter().filter_map(meta::labels).flat_map(|labels| labels.keys());
    let mut changed: Vec<String> = keys.filter(|key| value(new, key) != value(old, key)).cloned().collect();
    changed.sort();
    changed.dedup();
    changed.retain(|key| !kubelet_may_label(key));
    changed
}

fn within(domain: &str, of: &str) -> bool {
    domain == of || domain.strip_suffix(of).is_some_and(|rest| rest.ends_with('.'))
}

fn kubelet_may_label(key: &str) -> bool {
    let domain = key.split_once('/').map(|(domain, _)| domain).unwrap_or_default();
    if within(domain, "node-restriction.kubernetes.io") {
        return false;
    }
    if !within(domain, "kubernetes.io") && !within(domain, "k8s.io") {
        return true;
    }
    KUBELET_LABELS.contains(&key) || KUBELET_LABEL_DOMAINS.iter().any(|allowed| within(domain, allowed))
}

fn claim_status(node: &str, request: &AdmissionRequest) -> Answer<()> {
    let (Operation::Update, Some(new), Some(old)) = (request.operation, request.object(), &request.old_object) else {
        return Err(forbid(request, &format!("unexpected operation {:?}", request.operation.as_str())));
    };
    let rest = |claim: &Value| {
        let mut claim = claim.clone();
        if let Some(status) = claim.get_mut("status").and_then(Value::as_object_mut) {
            for field in ["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"] {
                status.remove(field);
            }
        }
        meta::remove(&mut claim, "managedFields");
        meta::remove(&mut claim, "resourceVersion");
        claim
    };
    if rest(new) != rest(old) {
        let text = format!("node {node:?} is not allowed to update fields other than status.capacity and status.conditions");
        return Err(forbid(request, &text));
    }
    Ok(())
}

/// What the authorizer cannot see: the object of a create, and each object of a deletecollection.
fn resource_slice(node: &str, request: &AdmissionRequest) -> Answer<()> {
    let (object, verb) = match request.operation {
        Operation::Create => (request.object(), "create"),
        Operation::Delete => (request.old_object.as_deref(), "delete"),
        Operation::Update | Operation::Connect => return Ok(()),
    };
    if object.is_some_and(|slice| meta::str_at(slice, &["spec", "nodeName"]) == node) {
        return Ok(());
    }
    Err(forbid(request, &format!("can only {verb} ResourceSlice with the same NodeName as the requesting node")))
}

fn lease(node: &str, request: &AdmissionRequest) -> Answer<()> {
    if request.namespace != LEASE_NAMESPACE {
        let text = format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace");
        return Err(forbid(request, &text));
    }
    named_as_node(node, request, "node lease")
}

fn named_as_node(node: &str, request: &AdmissionRequest, what: &str) -> Answer<()> {
    if crate::admission::shown_name(request) == node {
        return Ok(());
    }
    Err(forbid(request, &format!("can only access {what} with the same name as the requesting node")))
}

/// A kubelet asks for certificates in its own name only.
fn csr(request: &AdmissionRequest) -> Answer<()> {
    const SIGNERS: [&str; 2] = ["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"];
    let (Operation::Create, Some(csr)) = (request.operation, request.object()) else {
        return Ok(());
    };
    if !SIGNERS.contains(&meta::str_at(csr, &["spec", "signerName"])) {
        return Ok(());
    }
    match CertificateRequest::of_object(csr) {
        Err(why) => Err(forbid(request, &format!("unable to parse csr: {why}"))),
        Ok(decoded) if decoded.subject().common_name == request.user.name => Ok(()),
        Ok(_) => Err(forbid(request, &format!("can only create a node CSR with CN={}", request.user.name))),
    }
}
