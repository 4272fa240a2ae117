//! Authorization: `system:masters`, then the Node authorizer, then RBAC. Nothing else allows.
//!
//! Owns the decision and its reason in upstream's words. Must not do: read the store (objects come through
//! [`ObjectReader`], from the watch cache), nor know HTTP.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/authorization/>.

pub mod covers;
pub mod escalation;
pub mod node;
pub mod node_refs;
pub mod rbac;
pub mod review;
pub mod rule;

use std::sync::Arc;

use parking_lot::Mutex;
use trireme_api::{gvk::GroupResource, status::Status};

use crate::attributes::Attributes;
use crate::storage::lookup::{LookedUp, ObjectReader};
use crate::user::GROUP_MASTERS;

pub use escalation::EscalationCheck;
pub use node::NodeAuthorizer;
pub use rbac::{RbacIndex, RoleRef, Verdict};
pub use rule::PolicyRule;

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";
const RBAC_RESOURCES: [&str; 4] = ["roles", "clusterroles", "rolebindings", "clusterrolebindings"];

/// The outcome of authorization. There is no explicit deny: none of our authorizers gives one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request may go on.
    pub allowed: bool,
    /// Why; may be empty.
    pub reason: String,
}

/// The authorizers in their order, with the compiled RBAC index. Cheap to clone.
#[derive(Clone)]
pub struct Authorizer {
    inner: Arc<Inner>,
}

struct Inner {
    reader: Arc<dyn ObjectReader>,
    node: NodeAuthorizer,
    index: Mutex<Option<(RbacRevisions, Arc<RbacIndex>)>>,
}

/// The revision of the last change of each RBAC resource: while these stand, the index does.
type RbacRevisions = [i64; 4];

impl Authorizer {
    /// Authorizes by what `reader` sees.
    pub fn new(reader: Arc<dyn ObjectReader>) -> Authorizer {
        let node = NodeAuthorizer::new(reader.clone());
        Authorizer { inner: Arc::new(Inner { reader, node, index: Mutex::new(None) }) }
    }

    /// Decides. May wait for a ReadIndex, only for a node whose relation to an object is not visible here yet.
    pub async fn authorize(&self, request: &Attributes) -> Decision {
        if request.user.in_group(GROUP_MASTERS) {
            return Decision { allowed: true, reason: String::new() };
        }
        let by_node = self.inner.node.authorize(request).await;
        if by_node.allowed {
            return by_node;
        }
        match self.index().authorize(request) {
            Verdict::Allowed(reason) => Decision { allowed: true, reason },
            Verdict::NoRule(reason) => {
                let reasons = [by_node.reason, reason];
                let told: Vec<_> = reasons.iter().filter(|r| !r.is_empty()).map(String::as_str).collect();
                Decision { allowed: false, reason: told.join("\n") }
            }
        }
    }

    /// Decides, and makes the 403 of a refusal.
    pub async fn require(&self, request: &Attributes) -> Result<(), Box<Status>> {
        let decision = self.authorize(request).await;
        if decision.allowed { Ok(()) } else { Err(Box::new(forbidden(request, &decision.reason))) }
    }

    /// The compiled roles and bindings as of now. Recompiled when one of them changed.
    pub fn index(&self) -> Arc<RbacIndex> {
        let reader = &self.inner.reader;
        // Read before the lists: a change in between causes one compilation too many, never one too few.
        let revisions = RBAC_RESOURCES.map(|resource| reader.last_change(RBAC_GROUP, resource));
        let mut cached = self.inner.index.lock();
        if let Some((at, index)) = cached.as_ref()
            && *at == revisions
        {
            return index.clone();
        }
        let [roles, cluster_roles, role_bindings, cluster_role_bindings] =
            RBAC_RESOURCES.map(|resource| reader.list(RBAC_GROUP, resource, None));
        let objects = |list: &'_ [LookedUp]| list.iter().map(|l| l.object.clone()).collect::<Vec<_>>();
        let [roles, cluster_roles, role_bindings, cluster_role_bindings] =
            [&roles, &cluster_roles, &role_bindings, &cluster_role_bindings].map(|list| objects(list));
        let index = Arc::new(RbacIndex::build(
            roles.iter().map(AsRef::as_ref),
            cluster_roles.iter().map(AsRef::as_ref),
            role_bindings.iter().map(AsRef::as_ref),
            cluster_role_bindings.iter().map(AsRef::as_ref),
        ));
        *cached = Some((revisions, index.clone()));
        index
    }

    /// What the authorizer reads from.
    pub fn reader(&self) -> &Arc<dyn ObjectReader> {
        &self.inner.reader
    }
}

/// The 403 of a refused request.
pub fn forbidden(request: &Attributes, reason: &str) -> Status {
    let mut message = forbidden_message(request);
    if !reason.is_empty() {
        message = format!("{message}: {reason}");
    }
    if request.resource_request {
        let resource = GroupResource::new(request.group.clone(), request.resource.clone());
        Status::forbidden(&resource, &request.name, &message)
    } else {
        Status::forbidden_path(&message)
    }
}

/// `User "x" cannot list resource "pods" in API group "" in the namespace "default"`.
pub fn forbidden_message(request: &Attributes) -> String {
    let user = &request.user.name;
    let verb = &request.verb;
    if !request.resource_request {
        return format!("User {user:?} cannot {verb} path {:?}", request.path);
    }
    let mut resource = request.resource.clone();
    if !request.subresource.is_empty() {
        resource = format!("{resource}/{}", request.subresource);
    }
    let group = &request.group;
    if request.namespace.is_empty() {
        format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} at the cluster scope")
    } else {
        let namespace = &request.namespace;
        format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} in the namespace {namespace:?}")
    }
}

#[cfg(test)]
pub(crate) mod tests;
