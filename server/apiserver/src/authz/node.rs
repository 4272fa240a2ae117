//! The Node authorizer: a kubelet sees what its pods need, and nothing of other nodes.
//!
//! The graph node → pods → objects is not kept: the node's pods in the namespace in question are looked through when a
//! node asks, which is seldom (once per pod start or watch), so that nothing has to be maintained on every pod change. They
//! are found by the indexed field; no other node's pod is parsed. When the relation is not visible here, the question is
//! asked once more after a ReadIndex: the kubelet may have learned of its pod from another server.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/node/>.

use std::sync::Arc;

use serde_json::Value;
use trireme_api::{meta, selector::FieldSelector};

use super::{Decision, node_refs, rule::PolicyRule};
use crate::attributes::Attributes;
use crate::storage::lookup::ObjectReader;
use crate::user::UserInfo;

const NODE_USER_PREFIX: &str = "system:node:";
const NODES_GROUP: &str = "system:nodes";
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The name of the node behind this identity, if it is a node at all.
pub fn node_name(user: &UserInfo) -> Option<&str> {
    let name = user.name.strip_prefix(NODE_USER_PREFIX)?;
    (!name.is_empty() && user.in_group(NODES_GROUP)).then_some(name)
}

/// Authorizes kubelets.
pub struct NodeAuthorizer {
    reader: Arc<dyn ObjectReader>,
    /// What every node may do regardless of its pods: the rules of the ClusterRole `system:node`.
    rules: Vec<PolicyRule>,
}

/// What the graph has to say: a related object is allowed, everything else has a reason.
enum Answer {
    Allow,
    Refuse(String),
    /// Only a path in the graph can allow it.
    AskGraph(Edge),
    /// Not special: the general rules decide.
    Rules,
}

#[derive(Clone, Copy)]
enum Edge {
    Secret,
    ConfigMap,
    Claim,
    Volume,
    ServiceAccount,
    ResourceClaim,
    Attachment,
    Pod,
    Slice,
}

impl NodeAuthorizer {
    /// Authorizes by what `reader` sees.
    pub fn new(reader: Arc<dyn ObjectReader>) -> NodeAuthorizer {
        let rules = trireme_api::rbac_defaults::cluster_roles()
            .iter()
            .find(|role| meta::name(role) == "system:node")
            .map(PolicyRule::list)
            .unwrap_or_default();
        NodeAuthorizer { reader, rules }
    }

    /// Decides for nodes; has no opinion on anybody else.
    pub async fn authorize(&self, request: &Attributes) -> Decision {
        let refuse = |reason: String| Decision { allowed: false, reason };
        let allow = || Decision { allowed: true, reason: String::new() };
        let Some(node) = node_name(&request.user) else {
            return refuse(String::new());
        };
        match classify(node, request) {
            Answer::Allow => allow(),
            Answer::Refuse(reason) => refuse(reason),
            Answer::AskGraph(_) if request.name.is_empty() => refuse("No Object name found".to_owned()),
            Answer::AskGraph(edge) => {
                if self.related(node, edge, request) || (self.reader.refresh().await && self.related(node, edge, request)) {
                    allow()
                } else {
                    refuse(format!("no relationship found between node '{node}' and this object"))
                }
            }
            Answer::Rules => {
                if self.rules.iter().any(|rule| rule.allows(request)) {
                    allow()
                } else {
                    refuse(String::new())
                }
            }
        }
    }

    fn related(&self, node: &str, edge: Edge, request: &Attributes) -> bool {
        let (namespace, name) = (request.namespace.as_str(), request.name.as_str());
        match edge {
            Edge::Secret => {
                self.pod_of(node, namespace, |pod| node_refs::uses_secret(pod, name)) || self.volume_secret(node, namespace, name)
            }
            Edge::ConfigMap => self.pod_of(node, namespace, |pod| node_refs::uses_config_map(pod, name)),
            Edge::Claim => self.pod_of(node, namespace, |pod| node_refs::uses_claim(pod, name)),
            Edge::ServiceAccount => self.pod_of(node, namespace, |pod| node_refs::uses_service_account(pod, name)),
            Edge::ResourceClaim => self.pod_of(node, namespace, |pod| node_refs::uses_resource_claim(pod, name)),
            Edge::Pod => {
                self.reader.get("", "pods", namespace, name).is_some_and(|pod| meta::str_at(&pod.object, &["spec", "nodeName"]) == node)
            }
            Edge::Slice => self
                .reader
                .get("resource.k8s.io", "resourceslices", "", name)
                .is_some_and(|found| meta::str_at(&found.object, &["spec", "nodeName"]) == node),
            Edge::Attachment => self
                .reader
                .get("storage.k8s.io", "volumeattachments", "", name)
                .is_some_and(|found| meta::str_at(&found.object, &["spec", "nodeName"]) == node),
            Edge::Volume => self.reader.get("", "persistentvolumes", "", name).is_some_and(|volume| self.volume_used(node, &volume.object)),
        }
    }

    fn pod_of(&self, node: &str, namespace: &str, uses: impl Fn(&Value) -> bool) -> bool {
        let pods = self.reader.list_with("", "pods", namespace, "spec.nodeName", node);
        pods.iter().any(|pod| node_refs::counts_for(&pod.object, node) && uses(&pod.object))
    }

    /// A volume belongs to a node through the claim that it is bound to.
    fn volume_used(&self, node: &str, volume: &Value) -> bool {
        let namespace = meta::str_at(volume, &["spec", "claimRef", "namespace"]);
        let claim = meta::str_at(volume, &["spec", "claimRef", "name"]);
        !claim.is_empty() && self.pod_of(node, namespace, |pod| node_refs::uses_claim(pod, claim))
    }

    fn volume_secret(&self, node: &str, namespace: &str, name: &str) -> bool {
        self.reader
            .list("", "persistentvolumes", None)
            .iter()
            .any(|volume| node_refs::volume_uses_secret(&volume.object, namespace, name) && self.volume_used(node, &volume.object))
    }
}

// === which question this is ===

fn classify(node: &str, request: &Attributes) -> Answer {
    if !request.resource_request {
        return if request.path == trireme_tunnel::PATH && request.verb == "get" { Answer::Allow } else { Answer::Rules };
    }
    match (request.group.as_str(), request.resource.as_str()) {
        ("", "secrets") => read_namespaced(request, Edge::Secret),
        ("", "configmaps") => read_namespaced(request, Edge::ConfigMap),
        ("", "persistentvolumeclaims") if request.subresource == "status" => status_update(request),
        ("", "persistentvolumeclaims") => get_one(request, Edge::Claim),
        ("", "persistentvolumes") => get_one(request, Edge::Volume),
        ("resource.k8s.io", "resourceclaims") => get_one(request, Edge::ResourceClaim),
        ("storage.k8s.io", "volumeattachments") => get_one(request, Edge::Attachment),
        ("", "serviceaccounts") => service_account(request),
        ("coordination.k8s.io", "leases") => lease(node, request),
        ("storage.k8s.io", "csinodes") => csi_node(node, request),
        ("resource.k8s.io", "resourceslices") => resource_slice(node, request),
        ("", "nodes") => own_node(node, request),
        ("", "pods") => pod(node, request),
        _ => Answer::Rules,
    }
}

fn refuse(reason: &str) -> Answer {
    Answer::Refuse(reason.to_owned())
}

fn read_namespaced(request: &Attributes, edge: Edge) -> Answer {
    if !request.is_read_only() {
        refuse("can only read resources of this type")
    } else if !request.subresource.is_empty() {
        refuse("cannot read subresource")
    } else if request.namespace.is_empty() {
        refuse("can only read namespaced object of this type")
    } else {
        Answer::AskGraph(edge)
    }
}

fn get_one(request: &Attributes, edge: Edge) -> Answer {
    if request.verb != "get" {
        refuse("can only get individual resources of this type")
    } else if !request.subresource.is_empty() {
        refuse("cannot get subresource")
    } else {
        Answer::AskGraph(edge)
    }
}

fn status_update(request: &Attributes) -> Answer {
    match request.verb.as_str() {
        "update" | "patch" => Answer::AskGraph(Edge::Claim),
        _ => refuse("can only get/update/patch this type"),
    }
}

fn service_account(request: &Attributes) -> Answer {
    if request.verb == "get" && request.subresource.is_empty() {
        // Credential providers of the kubelet read the service account of the pod that pulls.
        return Answer::AskGraph(Edge::ServiceAccount);
    }
    if request.verb != "create" || request.name.is_empty() {
        refuse("can only create tokens for individual service accounts")
    } else if request.subresource != "token" {
        refuse("can only create token subresource of service account")
    } else {
        Answer::AskGraph(Edge::ServiceAccount)
    }
}

fn is_own_verb(verb: &str) -> bool {
    matches!(verb, "get" | "create" | "update" | "patch" | "delete")
}

fn lease(node: &str, request: &Attributes) -> Answer {
    if !is_own_verb(&request.verb) {
        refuse("can only get, create, update, patch, or delete a node lease")
    } else if request.namespace != LEASE_NAMESPACE {
        refuse(&format!("can only access leases in the \"{LEASE_NAMESPACE}\" system namespace"))
    } else if request.verb != "create" && request.name != node {
        refuse("can only access node lease with the same name as the requesting node")
    } else {
        Answer::Allow
    }
}

fn csi_node(node: &str, request: &Attributes) -> Answer {
    if !is_own_verb(&request.verb) {
        refuse("can only get, create, update, patch, or delete a CSINode")
    } else if !request.subresource.is_empty() {
        refuse("cannot authorize CSINode subresources")
    } else if request.verb != "create" && request.name != node {
        refuse("can only access CSINode with the same name as the requesting node")
    } else {
        Answer::Allow
    }
}

/// A create is judged by NodeRestriction, which sees the object.
fn resource_slice(node: &str, request: &Attributes) -> Answer {
    if !request.subresource.is_empty() {
        return refuse("cannot authorize ResourceSlice subresources");
    }
    match request.verb.as_str() {
        "create" => Answer::Allow,
        "get" | "update" | "patch" | "delete" => Answer::AskGraph(Edge::Slice),
        "list" | "watch" | "deletecollection" if selects_own(node, request) => Answer::Allow,
        "list" | "watch" | "deletecollection" => refuse("can only list/watch/deletecollection resourceslices with nodeName field selector"),
        _ => refuse(
            "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
        ),
    }
}

/// Whether a request is for objects of this node alone.
fn selects_own(node: &str, request: &Attributes) -> bool {
    let selector = request.field_selector.as_deref().and_then(|text| FieldSelector::parse(text).ok());
    selector.is_some_and(|selector| selector.required_value("spec.nodeName") == Some(node))
}

/// Writes are limited to the own object by the NodeRestriction admission plugin, which sees the name on create too.
fn own_node(node: &str, request: &Attributes) -> Answer {
    match (request.subresource.as_str(), request.verb.as_str()) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Answer::Allow,
        ("", "get" | "list" | "watch") if request.name == node => Answer::Allow,
        ("", "get" | "list" | "watch") if request.name.is_empty() => {
            Answer::Refuse(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => Answer::Refuse(format!("node '{node}' cannot read '{}', only its own Node object", request.name)),
        _ => refuse(""),
    }
}

fn pod(node: &str, request: &Attributes) -> Answer {
    match (request.subresource.as_str(), request.verb.as_str()) {
        ("", "get") => Answer::AskGraph(Edge::Pod),
        ("", "list" | "watch") if selects_own(node, request) => Answer::Allow,
        // One pod, by its name.
        ("", "list" | "watch") if !request.name.is_empty() => Answer::AskGraph(Edge::Pod),
        ("", "list" | "watch") => refuse("can only list/watch pods with spec.nodeName field selector"),
        ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Answer::Allow,
        _ => refuse(""),
    }
}
