//! The RBAC objects that every cluster starts with, as tables of facts.
//!
//! Owns: upstream's default ClusterRoles, Roles and their bindings
//! (<https://kubernetes.io/docs/reference/access-authn-authz/rbac/#default-roles-and-role-bindings>) and the few that
//! Trireme's own agents need. Must not decide when they are written: the API server reconciles them at start
//! (`rbac.authorization.kubernetes.io/autoupdate`).

mod bindings;
mod controller_roles;
mod system_roles;
mod user_roles;

use serde_json::{Value, json};

const GROUP: &str = "rbac.authorization.k8s.io";
const API_VERSION: &str = "rbac.authorization.k8s.io/v1";
const READ: &str = "get,list,watch";
const WRITE: &str = "create,delete,deletecollection,patch,update";

/// One policy rule; each field is a comma-separated list. `urls` non-empty makes it a non-resource rule.
struct Rule {
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
    urls: &'static str,
    verbs: &'static str,
}

const fn rule(groups: &'static str, resources: &'static str, verbs: &'static str) -> Rule {
    Rule { groups, resources, names: "", urls: "", verbs }
}

const fn named(groups: &'static str, resources: &'static str, names: &'static str, verbs: &'static str) -> Rule {
    Rule { groups, resources, names, urls: "", verbs }
}

const fn url(urls: &'static str, verbs: &'static str) -> Rule {
    Rule { groups: "", resources: "", names: "", urls, verbs }
}

/// What nearly every component holds: writing events in both groups.
const EVENTS: Rule = rule(",events.k8s.io", "events", "create,patch,update");

/// All default ClusterRoles. The rules of admin, edit and view are already summed, so that they work before (and
/// without) the aggregation controller.
pub fn cluster_roles() -> Vec<Value> {
    let user = user_roles::USER_ROLES.iter().map(|role| {
        let mut object = json!({
            "apiVersion": API_VERSION, "kind": "ClusterRole", "metadata": metadata(None, role.name),
            "rules": aggregated(role).into_iter().map(rule_json).collect::<Vec<_>>(),
        });
        if !role.aggregate_to.is_empty() {
            object["metadata"]["labels"][format!("{GROUP}/aggregate-to-{}", role.aggregate_to)] = json!("true");
        }
        if !role.aggregates.is_empty() {
            let label = format!("{GROUP}/aggregate-to-{}", role.aggregates);
            object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
        }
        object
    });
    let system = system_roles::SYSTEM_ROLES.iter().map(|(name, rules)| role("ClusterRole", None, name, rules));
    let controllers =
        controller_roles::CONTROLLER_ROLES.iter().map(|(name, rules)| role("ClusterRole", None, &controller_name(name), rules));
    user.chain(system).chain(controllers).collect()
}

/// All default ClusterRoleBindings.
pub fn cluster_role_bindings() -> Vec<Value> {
    let listed = bindings::CLUSTER_ROLE_BINDINGS
        .iter()
        .map(|(name, subjects)| binding("ClusterRoleBinding", None, name, "ClusterRole", name, subjects));
    let controllers = controller_roles::CONTROLLER_ROLES.iter().map(|(name, _)| {
        let full = controller_name(name);
        binding("ClusterRoleBinding", None, &full, "ClusterRole", &full, &[&format!("s:{name}")])
    });
    listed.chain(controllers).collect()
}

/// The default Roles of kube-system and kube-public.
pub fn roles() -> Vec<Value> {
    bindings::ROLES.iter().map(|(namespace, name, rules)| role("Role", Some(namespace), name, rules)).collect()
}

/// The default RoleBindings of kube-system and kube-public.
pub fn role_bindings() -> Vec<Value> {
    bindings::ROLE_BINDINGS
        .iter()
        .map(|(namespace, name, target, subjects)| binding("RoleBinding", Some(namespace), name, "Role", target, subjects))
        .collect()
}

fn controller_name(name: &str) -> String {
    format!("system:controller:{name}")
}

/// The rules of a role plus those of every role that aggregates into it, in table order.
fn aggregated(role: &user_roles::UserRole) -> Vec<&'static Rule> {
    let mut rules: Vec<&'static Rule> = role.rules.iter().collect();
    if !role.aggregates.is_empty() {
        for part in user_roles::USER_ROLES.iter().filter(|part| part.aggregate_to == role.aggregates) {
            rules.extend(aggregated(part));
        }
    }
    rules
}

fn metadata(namespace: Option<&str>, name: &str) -> Value {
    let mut meta = json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    });
    if let Some(namespace) = namespace {
        meta["namespace"] = json!(namespace);
    }
    meta
}

fn role(kind: &str, namespace: Option<&str>, name: &str, rules: &'static [Rule]) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": kind, "metadata": metadata(namespace, name),
        "rules": rules.iter().map(rule_json).collect::<Vec<_>>(),
    })
}

fn rule_json(rule: &Rule) -> Value {
    let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    if !rule.urls.is_empty() {
        return json!({"nonResourceURLs": list(rule.urls), "verbs": list(rule.verbs)});
    }
    let mut value = json!({"apiGroups": list(rule.groups), "resources": list(rule.resources), "verbs": list(rule.verbs)});
    if !rule.names.is_empty() {
        value["resourceNames"] = json!(list(rule.names));
    }
    value
}

fn binding(kind: &str, namespace: Option<&str>, name: &str, role_kind: &str, role_name: &str, subjects: &[&str]) -> Value {
    let mut object = json!({
        "apiVersion": API_VERSION, "kind": kind, "metadata": metadata(namespace, name),
        "roleRef": {"apiGroup": GROUP, "kind": role_kind, "name": role_name},
    });
    if !subjects.is_empty() {
        object["subjects"] = subjects.iter().map(|subject| subject_json(subject)).collect();
    }
    object
}

fn subject_json(subject: &str) -> Value {
    let (kind, name) = subject.split_once(':').unwrap_or(("u", subject));
    match kind {
        "s" => json!({"kind": "ServiceAccount", "name": name, "namespace": "kube-system"}),
        "g" => json!({"kind": "Group", "apiGroup": GROUP, "name": name}),
        _ => json!({"kind": "User", "apiGroup": GROUP, "name": name}),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn find<'a>(list: &'a [Value], name: &str) -> &'a Value {
        list.iter().find(|object| object["metadata"]["name"] == name).unwrap()
    }

    #[test]
    fn aggregation_sums_the_parts_and_every_binding_has_its_role() {
        let roles = cluster_roles();
        let count = |name: &str| find(&roles, name)["rules"].as_array().unwrap().len();
        assert_eq!(count("view"), count("system:aggregate-to-view"));
        assert_eq!(count("edit"), count("system:aggregate-to-edit") + count("view"));
        assert_eq!(count("admin"), count("edit") + count("system:aggregate-to-admin"));
        for binding in cluster_role_bindings() {
            let target = binding["roleRef"]["name"].as_str().unwrap();
            assert!(roles.iter().any(|role| role["metadata"]["name"] == target), "{target}");
        }
    }

    #[test]
    fn a_controller_is_bound_to_its_service_account() {
        let bindings = cluster_role_bindings();
        let subject = &find(&bindings, "system:controller:replicaset-controller")["subjects"][0];
        assert_eq!(*subject, json!({"kind": "ServiceAccount", "name": "replicaset-controller", "namespace": "kube-system"}));
    }
}
