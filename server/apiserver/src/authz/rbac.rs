//! All roles and bindings of the cluster, compiled for fast questions.
//!
//! Pure: made from lists of objects, replaced as a whole when one of them changes (they change rarely).
//! ClusterRole aggregation is a controller's work: the index only reads the rules that it materialised.

use std::{collections::HashMap, sync::Arc};

use serde_json::Value;

use super::rule::PolicyRule;
use crate::attributes::Attributes;
use crate::user::UserInfo;

/// Prefix of the user names of service accounts.
pub const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// Who a binding names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

/// One subject of one binding.
#[derive(Clone, Debug)]
struct Grant {
    /// `ClusterRoleBinding "x"` or `RoleBinding "x/ns"`.
    binding: Arc<str>,
    /// `User "x"`, `Group "x"` or `ServiceAccount "x/ns"`.
    subject: String,
    role: RoleRef,
}

/// What a binding points at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RoleRef {
    /// A ClusterRole.
    ClusterRole(String),
    /// A Role of this namespace.
    Role {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
}

impl RoleRef {
    /// Reads `roleRef`; a Role is looked for in the binding's namespace.
    pub fn from_value(role_ref: &Value, namespace: &str) -> Option<RoleRef> {
        let name = role_ref["name"].as_str()?.to_owned();
        match role_ref["kind"].as_str()? {
            "ClusterRole" => Some(RoleRef::ClusterRole(name)),
            "Role" if !namespace.is_empty() => Some(RoleRef::Role { namespace: namespace.to_owned(), name }),
            _ => None,
        }
    }

    fn kind_and_name(&self) -> (&'static str, &str) {
        match self {
            RoleRef::ClusterRole(name) => ("ClusterRole", name),
            RoleRef::Role { name, .. } => ("Role", name),
        }
    }
}

/// The answer of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Allowed, and by what.
    Allowed(String),
    /// No rule allows it; bindings to roles that do not exist are named.
    NoRule(String),
}

/// The compiled roles and bindings.
#[derive(Debug, Default)]
pub struct RbacIndex {
    roles: HashMap<RoleRef, Arc<[PolicyRule]>>,
    cluster_grants: HashMap<Subject, Vec<Grant>>,
    namespace_grants: HashMap<String, HashMap<Subject, Vec<Grant>>>,
}

impl RbacIndex {
    /// Compiles lists of Role, ClusterRole, RoleBinding and ClusterRoleBinding objects.
    pub fn build<'a>(
        roles: impl IntoIterator<Item = &'a Value>,
        cluster_roles: impl IntoIterator<Item = &'a Value>,
        role_bindings: impl IntoIterator<Item = &'a Value>,
        cluster_role_bindings: impl IntoIterator<Item = &'a Value>,
    ) -> RbacIndex {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut index = RbacIndex::default();
        for role in roles {
            let meta = &role["metadata"];
            let key = RoleRef::Role { namespace: text(&meta["namespace"]), name: text(&meta["name"]) };
            index.roles.insert(key, PolicyRule::list(role).into());
        }
        for role in cluster_roles {
            let key = RoleRef::ClusterRole(text(&role["metadata"]["name"]));
            index.roles.insert(key, PolicyRule::list(role).into());
        }
        for binding in cluster_role_bindings {
            add_grants(&mut index.cluster_grants, binding, "");
        }
        for binding in role_bindings {
            let namespace = text(&binding["metadata"]["namespace"]);
            let grants = index.namespace_grants.entry(namespace.clone()).or_default();
            add_grants(grants, binding, &namespace);
        }
        index
    }

    /// Whether any binding of the user allows the request.
    pub fn authorize(&self, request: &Attributes) -> Verdict {
        let mut missing = Vec::new();
        for grant in self.grants(&request.user, &request.namespace) {
            match self.roles.get(&grant.role) {
                Some(rules) if rules.iter().any(|rule| rule.allows(request)) => {
                    let (kind, name) = grant.role.kind_and_name();
                    return Verdict::Allowed(format!("RBAC: allowed by {} of {kind} {name:?} to {}", grant.binding, grant.subject));
                }
                Some(_) => {}
                None => {
                    let error = not_found(&grant.role);
                    if !missing.contains(&error) {
                        missing.push(error);
                    }
                }
            }
        }
        Verdict::NoRule(match missing.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        })
    }

    /// All rules that hold for the user in the namespace (empty: cluster-wide only), and what was missing.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        let (mut rules, mut missing) = (Vec::new(), Vec::new());
        for grant in self.grants(user, namespace) {
            match self.roles.get(&grant.role) {
                Some(found) => rules.extend(found.iter().cloned()),
                None => missing.push(not_found(&grant.role)),
            }
        }
        (rules, missing)
    }

    /// The rules of one role; the error is upstream's "not found".
    pub fn rules_of(&self, role: &RoleRef) -> Result<Arc<[PolicyRule]>, String> {
        self.roles.get(role).cloned().ok_or_else(|| not_found(role))
    }

    /// The grants of a user: cluster-wide ones first, then those of the namespace.
    fn grants<'a>(&'a self, user: &'a UserInfo, namespace: &str) -> impl Iterator<Item = &'a Grant> {
        let tables =
            std::iter::once(&self.cluster_grants).chain((!namespace.is_empty()).then(|| self.namespace_grants.get(namespace)).flatten());
        tables.flat_map(move |table| {
            let subjects = std::iter::once(Subject::User(user.name.clone())).chain(user.groups.iter().cloned().map(Subject::Group));
            subjects.filter_map(|subject| table.get(&subject)).flatten()
        })
    }
}

fn not_found(role: &RoleRef) -> String {
    let (kind, name) = role.kind_and_name();
    format!("{}.rbac.authorization.k8s.io {name:?} not found", kind.to_ascii_lowercase())
}

fn add_grants(grants: &mut HashMap<Subject, Vec<Grant>>, binding: &Value, namespace: &str) {
    let Some(role) = RoleRef::from_value(&binding["roleRef"], namespace) else {
        return;
    };
    let name = binding["metadata"]["name"].as_str().unwrap_or_default();
    let described: Arc<str> = if namespace.is_empty() {
        format!("ClusterRoleBinding {name:?}").into()
    } else {
        format!("RoleBinding {:?}", format!("{name}/{namespace}")).into()
    };
    for subject in binding["subjects"].as_array().into_iter().flatten() {
        let Some(name) = subject["name"].as_str() else {
            continue;
        };
        let (key, text) = match subject["kind"].as_str() {
            Some("User") => (Subject::User(name.to_owned()), format!("User {name:?}")),
            Some("Group") => (Subject::Group(name.to_owned()), format!("Group {name:?}")),
            Some("ServiceAccount") => {
                let own = subject["namespace"].as_str().filter(|ns| !ns.is_empty());
                let Some(of) = own.or((!namespace.is_empty()).then_some(namespace)) else {
                    continue;
                };
                let described = format!("{name}/{of}");
                (Subject::User(format!("{SERVICE_ACCOUNT_PREFIX}{of}:{name}")), format!("ServiceAccount {described:?}"))
            }
            _ => continue,
        };
        grants.entry(key).or_default().push(Grant { binding: described.clone(), subject: text, role: role.clone() });
    }
}
