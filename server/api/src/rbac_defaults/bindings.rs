//! Namespaced bootstrap Roles, and who holds which role.

use super::{EVENTS, READ, Rule, named, rule};

/// Roles in kube-system and kube-public: namespace, name, rules.
#[rustfmt::skip]
pub(super) const ROLES: &[(&str, &str, &[Rule])] = &[
    ("kube-public", "system:controller:bootstrap-signer", &[rule("", "configmaps", READ), named("", "configmaps", "cluster-info", "update"), EVENTS]),
    ("kube-system", "extension-apiserver-authentication-reader", &[named("", "configmaps", "extension-apiserver-authentication", READ)]),
    ("kube-system", "system::leader-locking-kube-controller-manager", &[rule("coordination.k8s.io", "leases", "create,get,list,update,watch"), rule("coordination.k8s.io", "leasecandidates", "create,get,list,update,watch")]),
    ("kube-system", "system::leader-locking-kube-scheduler", &[rule("coordination.k8s.io", "leases", "create,get,list,update,watch"), rule("coordination.k8s.io", "leasecandidates", "create,get,list,update,watch")]),
    ("kube-system", "system:controller:bootstrap-signer", &[rule("", "secrets", READ)]),
    ("kube-system", "system:controller:cloud-provider", &[rule("", "configmaps", "create,get,list,watch")]),
    ("kube-system", "system:controller:token-cleaner", &[rule("", "secrets", "delete,get,list,watch"), EVENTS]),
];

/// ClusterRole (same name as the binding) and its subjects: `u:` user, `g:` group, `s:` service account in kube-system.
/// system:node has no binding: the Node authorizer speaks for kubelets.
#[rustfmt::skip]
pub(super) const CLUSTER_ROLE_BINDINGS: &[(&str, &[&str])] = &[
    ("cluster-admin", &["g:system:masters"]),
    ("system:basic-user", &["g:system:authenticated"]),
    ("system:discovery", &["g:system:authenticated"]),
    ("system:kube-controller-manager", &["u:system:kube-controller-manager"]),
    ("system:kube-dns", &["s:kube-dns"]),
    ("system:kube-scheduler", &["u:system:kube-scheduler"]),
    ("system:monitoring", &["g:system:monitoring"]),
    ("system:node", &[]),
    ("system:node-proxier", &["u:system:kube-proxy"]),
    ("system:public-info-viewer", &["g:system:authenticated", "g:system:unauthenticated"]),
    ("system:service-account-issuer-discovery", &["g:system:serviceaccounts"]),
    ("system:volume-scheduler", &["u:system:kube-scheduler"]),
    ("trireme:agent", &["g:system:nodes"]),
    ("trireme:network-policies", &["s:networkpolicy-controller"]),
    ("trireme:controllers", &["s:deployment-controller", "s:replicaset-controller", "s:namespace-controller", "s:root-ca-cert-publisher", "s:disruption-controller", "s:replication-controller", "s:job-controller", "s:cronjob-controller", "s:daemon-set-controller", "s:statefulset-controller", "s:resourcequota-controller", "s:pvc-protection-controller", "s:pv-protection-controller"]),
    ("trireme:volume-binder", &["s:persistent-volume-binder"]),
    ("trireme:local-path-provisioner", &["s:local-path-provisioner"]),
    ("trireme:custom-resources", &["s:custom-resource-definition-controller"]),
];

/// RoleBindings: namespace, name, Role, subjects (as above).
#[rustfmt::skip]
pub(super) const ROLE_BINDINGS: &[(&str, &str, &str, &[&str])] = &[
    ("kube-public", "system:controller:bootstrap-signer", "system:controller:bootstrap-signer", &["s:bootstrap-signer"]),
    ("kube-system", "system::extension-apiserver-authentication-reader", "extension-apiserver-authentication-reader", &["u:system:kube-controller-manager", "u:system:kube-scheduler"]),
    ("kube-system", "system::leader-locking-kube-controller-manager", "system::leader-locking-kube-controller-manager", &["u:system:kube-controller-manager", "s:kube-controller-manager", "s:leader-election-controller"]),
    ("kube-system", "system::leader-locking-kube-scheduler", "system::leader-locking-kube-scheduler", &["u:system:kube-scheduler", "s:kube-scheduler"]),
    ("kube-system", "system:controller:bootstrap-signer", "system:controller:bootstrap-signer", &["s:bootstrap-signer"]),
    ("kube-system", "system:controller:cloud-provider", "system:controller:cloud-provider", &["s:cloud-provider"]),
    ("kube-system", "system:controller:token-cleaner", "system:controller:token-cleaner", &["s:token-cleaner"]),
];
