//! Objects that are ours, beside those every Kubernetes cluster is born with: cluster DNS's Service, and what nodes may read.

use serde_json::{Value, json};
use trireme_apiserver::{ObjectReader, bootstrap::Door};

use super::Parts;

/// Creates what is missing; objects that exist are left as people changed them.
pub async fn install(parts: &Parts, door: &Door) -> Result<(), String> {
    let objects = [
        ("rbac.authorization.k8s.io", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", "clusterrolebindings", node_proxier()),
        ("", "/api/v1/namespaces/kube-system/services", "services", dns_service(parts)),
    ];
    let reader = parts.api.registry();
    for (group, collection, plural, object) in objects {
        let (namespace, name) =
            (object["metadata"]["namespace"].as_str().unwrap_or_default(), object["metadata"]["name"].as_str().unwrap_or_default());
        if reader.get(group, plural, namespace, name).is_none() {
            door.create(collection, &object).await.map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

/// One process is kubelet and service proxy: nodes read what kube-proxy reads.
fn node_proxier() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "trireme:node-proxier"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:node-proxier"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"}],
    })
}

/// The Service has no endpoints: every node answers its address itself.
fn dns_service(parts: &Parts) -> Value {
    let labels = json!({"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"});
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
        "spec": {
            "clusterIP": parts.cluster_dns.to_string(),
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
        },
    })
}
