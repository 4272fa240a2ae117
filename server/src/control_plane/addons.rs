//! Objects that are ours, beside those every Kubernetes cluster is born with: cluster DNS's Service.

use serde_json::{Value, json};
use trireme_apiserver::{ObjectReader, bootstrap::Door};

use super::Parts;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-dns";

/// Creates what is missing; objects that exist are left as people changed them.
pub async fn install(parts: &Parts, door: &Door) -> Result<(), String> {
    if parts.api.registry().get("", "services", NAMESPACE, NAME).is_none() {
        let collection = format!("/api/v1/namespaces/{NAMESPACE}/services");
        door.create(&collection, &dns_service(parts)).await.map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// The Service has no endpoints: every node answers its address itself.
fn dns_service(parts: &Parts) -> Value {
    let labels = json!({"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"});
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "clusterIP": parts.cluster_dns.to_string(),
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
        },
    })
}
