//! The user-facing ClusterRoles: cluster-admin, admin, edit, view and the roles that feed their aggregation.

use super::{READ, Rule, WRITE, rule, url};

/// A user-facing role. `aggregate_to` labels it as a part of that role, `aggregates` makes it a sum of such parts.
pub(super) struct UserRole {
    pub(super) name: &'static str,
    pub(super) aggregate_to: &'static str,
    pub(super) aggregates: &'static str,
    pub(super) rules: &'static [Rule],
}

#[rustfmt::skip]
pub(super) const USER_ROLES: &[UserRole] = &[
    UserRole { name: "admin", aggregate_to: "", aggregates: "admin", rules: &[] },
    UserRole { name: "cluster-admin", aggregate_to: "", aggregates: "", rules: &[rule("*", "*", "*"), url("*", "*")] },
    UserRole { name: "edit", aggregate_to: "admin", aggregates: "edit", rules: &[] },
    UserRole { name: "system:aggregate-to-admin", aggregate_to: "admin", aggregates: "", rules: &[rule("authorization.k8s.io", "localsubjectaccessreviews", "create"), rule("rbac.authorization.k8s.io", "rolebindings,roles", "create,delete,deletecollection,get,list,patch,update,watch")] },
    UserRole { name: "system:aggregate-to-edit", aggregate_to: "edit", aggregates: "", rules: &[rule("", "pods/attach,pods/exec,pods/portforward,pods/proxy,secrets,services/proxy", READ), rule("", "serviceaccounts", "impersonate"), rule("", "pods,pods/attach,pods/exec,pods/portforward,pods/proxy", WRITE), rule("", "pods/eviction", "create"), rule("", "configmaps,persistentvolumeclaims,replicationcontrollers,replicationcontrollers/scale,secrets,serviceaccounts,services,services/proxy", WRITE), rule("", "serviceaccounts/token", "create"), rule(",events.k8s.io", "events", WRITE), rule("apps", "daemonsets,deployments,deployments/rollback,deployments/scale,replicasets,replicasets/scale,statefulsets,statefulsets/scale", WRITE), rule("autoscaling", "horizontalpodautoscalers", WRITE), rule("batch", "cronjobs,jobs", WRITE), rule("extensions", "daemonsets,deployments,deployments/rollback,deployments/scale,ingresses,networkpolicies,replicasets,replicasets/scale,replicationcontrollers/scale", WRITE), rule("policy", "poddisruptionbudgets", WRITE), rule("networking.k8s.io", "ingresses,networkpolicies", WRITE), rule("coordination.k8s.io", "leases", "create,delete,deletecollection,get,list,patch,update,watch"), rule("resource.k8s.io", "resourceclaims,resourceclaimtemplates", WRITE)] },
    UserRole { name: "system:aggregate-to-view", aggregate_to: "view", aggregates: "", rules: &[rule("", "configmaps,endpoints,persistentvolumeclaims,persistentvolumeclaims/status,pods,replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/status", READ), rule("", "bindings,limitranges,namespaces/status,pods/log,pods/status,replicationcontrollers/status,resourcequotas,resourcequotas/status", READ), rule("", "namespaces", READ), rule(",events.k8s.io", "events", READ), rule("discovery.k8s.io", "endpointslices", READ), rule("apps", "controllerrevisions,daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,replicasets,replicasets/scale,replicasets/status,statefulsets,statefulsets/scale,statefulsets/status", READ), rule("autoscaling", "horizontalpodautoscalers,horizontalpodautoscalers/status", READ), rule("batch", "cronjobs,cronjobs/status,jobs,jobs/status", READ), rule("extensions", "daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,ingresses,ingresses/status,networkpolicies,replicasets,replicasets/scale,replicasets/status,replicationcontrollers/scale", READ), rule("policy", "poddisruptionbudgets,poddisruptionbudgets/status", READ), rule("networking.k8s.io", "ingresses,ingresses/status,networkpolicies", READ), rule("resource.k8s.io", "resourceclaims,resourceclaims/status,resourceclaimtemplates", READ)] },
    UserRole { name: "view", aggregate_to: "edit", aggregates: "view", rules: &[] },
];
