//! Objects of Trireme beside those that every Kubernetes cluster has: cluster DNS's Service, the class of local volumes, the right to
//! read what pods use.

use serde_json::{Value, json};
use trireme_apiserver::ObjectReader;
use trireme_client::storage::{DEFAULT_CLASS, LOCAL_PROVISIONER};
use trireme_cluster::bootstrap::Writer;

use super::Parts;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-dns";

const CLASSES: &str = "/apis/storage.k8s.io/v1/storageclasses";
/// k3s' name for it.
const CLASS: &str = "local-path";

const RBAC: &str = "rbac.authorization.k8s.io";
const METRICS_ROLE: &str = "system:aggregated-metrics-reader";

/// The nodes answer a Service with this annotation themselves; the service proxy has the same name for it.
const ANSWERED_BY_NODES: &str = "trireme.io/answered-by-nodes";

/// Every proxy but ours passes a Service with this label over. kube-proxy would reject what is sent to one without endpoints.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// Creates what is missing; objects that exist are left as people changed them. With `--disable dns` the Service goes, if it is ours, so
/// that another DNS can take the address.
pub async fn install(parts: &Parts, writer: &Writer) -> Result<(), String> {
    install_dns(parts, writer).await?;
    install_class(parts, writer).await?;
    install_metrics_role(parts, writer).await
}

async fn install_dns(parts: &Parts, writer: &Writer) -> Result<(), String> {
    let collection = format!("/api/v1/namespaces/{NAMESPACE}/services");
    let item = format!("{collection}/{NAME}");
    let existing = parts.api.storage().get("", "services", NAMESPACE, NAME).map(|found| found.object);
    let done = match (parts.nodes_answer_dns, existing) {
        (true, None) => writer.create(&collection, &dns_service(parts)).await,
        (true, Some(service)) if was_made_by_an_earlier_version(&service) => {
            let mut service = (*service).clone();
            service["metadata"]["annotations"][ANSWERED_BY_NODES] = "true".into();
            service["metadata"]["labels"][PROXY_NAME] = "trireme".into();
            writer.replace(&item, &service).await
        }
        (false, Some(service)) if is_answered_by_nodes(&service) || was_made_by_an_earlier_version(&service) => writer.delete(&item).await,
        _ => Ok(()),
    };
    done.map_err(|e| e.to_string())
}

/// As with DNS: what people changed stays, and `--disable local-storage` removes the class if it is ours. Volumes stay in any case.
async fn install_class(parts: &Parts, writer: &Writer) -> Result<(), String> {
    let item = format!("{CLASSES}/{CLASS}");
    let known: Vec<_> = parts.api.storage().list("storage.k8s.io", "storageclasses", None).into_iter().map(|found| found.object).collect();
    let existing = known.iter().find(|class| class["metadata"]["name"] == CLASS);
    let done = match (parts.has_local_storage, existing) {
        (true, None) => writer.create(CLASSES, &local_class(!known.iter().any(|class| is_default(class)))).await,
        (false, Some(class)) if class["provisioner"] == LOCAL_PROVISIONER => writer.delete(&item).await,
        _ => Ok(()),
    };
    done.map_err(|e| e.to_string())
}

/// Whoever may view a namespace may see what its pods use; with `--disable metrics-server` that is another component's to say.
async fn install_metrics_role(parts: &Parts, writer: &Writer) -> Result<(), String> {
    let existing = parts.api.storage().get(RBAC, "clusterroles", "", METRICS_ROLE);
    if !parts.has_resource_metrics || existing.is_some() {
        return Ok(());
    }
    writer.create(&format!("/apis/{RBAC}/v1/clusterroles"), &metrics_role()).await.map_err(|e| e.to_string())
}

/// As the manifest of metrics-server has it.
fn metrics_role() -> Value {
    let aggregated = |role: &str| (format!("rbac.authorization.k8s.io/aggregate-to-{role}"), Value::from("true"));
    let labels: serde_json::Map<String, Value> = ["admin", "edit", "view"].into_iter().map(aggregated).collect();
    json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRole", "metadata": {"name": METRICS_ROLE, "labels": labels},
        "rules": [{"apiGroups": ["metrics.k8s.io"], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]}],
    })
}

fn is_default(class: &Value) -> bool {
    class["metadata"]["annotations"][DEFAULT_CLASS] == "true"
}

/// A volume is a folder on the node of the first pod that uses it. `default` is false in a cluster that already has a default class: of
/// several, the newest would win.
fn local_class(default: bool) -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": {DEFAULT_CLASS: default.to_string()}},
        "provisioner": LOCAL_PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    })
}

fn is_answered_by_nodes(service: &Value) -> bool {
    service["metadata"]["annotations"][ANSWERED_BY_NODES] == "true"
}

/// Such a Service lacks the annotation or the label; one of a deployed DNS has a selector.
fn was_made_by_an_earlier_version(service: &Value) -> bool {
    let labels = &service["metadata"]["labels"];
    let is_complete = is_answered_by_nodes(service) && !labels[PROXY_NAME].is_null();
    !is_complete && service["spec"]["selector"].is_null() && labels["k8s-app"] == "kube-dns"
}

/// The Service has no endpoints: every node answers its address itself.
fn dns_service(parts: &Parts) -> Value {
    let labels = json!({
        "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS", PROXY_NAME: "trireme",
    });
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels, "annotations": {ANSWERED_BY_NODES: "true"}},
        "spec": {
            "clusterIP": parts.cluster_dns.to_string(),
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d08_only_our_own_dns_service_makes_room() {
        let labels = json!({"k8s-app": "kube-dns"});
        let earlier = json!({"metadata": {"labels": labels}, "spec": {"clusterIP": "10.43.0.10"}});
        let deployed = json!({"metadata": {"labels": labels}, "spec": {"selector": {"k8s-app": "kube-dns"}}});
        let unnamed = json!({"metadata": {"labels": labels, "annotations": {ANSWERED_BY_NODES: "true"}}, "spec": {}});
        let mut ours = unnamed.clone();
        ours["metadata"]["labels"][PROXY_NAME] = "trireme".into();
        assert!(was_made_by_an_earlier_version(&unnamed) && is_answered_by_nodes(&unnamed));
        assert!(was_made_by_an_earlier_version(&earlier) && !was_made_by_an_earlier_version(&ours));
        assert!(is_answered_by_nodes(&ours) && !is_answered_by_nodes(&deployed) && !was_made_by_an_earlier_version(&deployed));
    }
}
