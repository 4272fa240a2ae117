//! Admission plugins over the whole path of a request.

use crate::support::{Cluster, Events};
use http::Method;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const EVENTS: &str = "/api/v1/namespaces/default/events";

async fn create(cluster: &Cluster, target: &str, object: Value) -> Value {
    let (code, created) = cluster.admin(Method::POST, target, object).await;
    assert_eq!(code, 201, "{created}");
    cluster.seen(&created).await;
    created
}

async fn with(enabled: &[&str], disabled: &[&str]) -> Cluster {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Cluster::start_on("127.0.0.1:0", |options, _| {
        (options.admission.enabled, options.admission.disabled) = (owned(enabled), owned(disabled));
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_grows_where_its_class_allows_it() {
    let cluster = Cluster::start().await;
    for (name, expands) in [("grows", true), ("stays", false)] {
        let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
            "provisioner": "example.com/p", "allowVolumeExpansion": expands});
        create(&cluster, "/apis/storage.k8s.io/v1/storageclasses", class).await;
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": {
            "storageClassName": name, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        create(&cluster, CLAIMS, claim).await;
        let (code, bound) = cluster.admin(Method::PATCH, &format!("{CLAIMS}/{name}/status"), json!({"status": {"phase": "Bound"}})).await;
        assert_eq!(code, 200, "{bound}");
    }
    let larger = || json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let (code, grown) = cluster.admin(Method::PATCH, &format!("{CLAIMS}/grows"), larger()).await;
    assert_eq!((code, &grown["spec"]["resources"]["requests"]["storage"]), (200, &json!("2Gi")), "{grown}");
    let (code, refused) = cluster.admin(Method::PATCH, &format!("{CLAIMS}/stays"), larger()).await;
    let message = "persistentvolumeclaims \"stays\" is forbidden: only dynamically provisioned pvc can be resized and the storageclass that \
                   provisions the pvc must support resize";
    assert_eq!((code, refused["message"].as_str()), (403, Some(message)));
    let (_, kept) = cluster.admin(Method::GET, &format!("{CLAIMS}/stays"), Value::Null).await;
    assert_eq!(kept["spec"]["resources"]["requests"]["storage"], "1Gi");
    cluster.stop().await;
}

fn node() -> Value {
    let labels = json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "pool": "p"});
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": labels}})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn binding(pod: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod, "labels": {"by": "scheduler"}}, "target": {"kind": "Node", "name": "n1"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_bound_with_the_zone_and_the_region_of_its_node() {
    let cluster = Cluster::start().await;
    create(&cluster, "/api/v1/nodes", node()).await;
    let of_node = json!({"app": "a", "topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r"});
    for (name, target) in [("one", format!("{PODS}/one/binding")), ("two", "/api/v1/namespaces/default/bindings".to_owned())] {
        let created = create(&cluster, PODS, pod(name)).await;
        let (code, tried) = cluster.admin(Method::POST, &format!("{target}?dryRun=All"), binding(name)).await;
        assert_eq!(code, 201, "{tried}");
        let watch = format!("{PODS}?watch=1&resourceVersion={}", created["metadata"]["resourceVersion"].as_str().unwrap());
        let mut events = Events::new(cluster.send(Method::GET, &watch, Value::Null, &[]).await);
        let (code, bound) = cluster.admin(Method::POST, &target, binding(name)).await;
        assert_eq!(code, 201, "{bound}");
        // The first change of the pod has both: they are one transaction.
        let (_, changed) = events.next().await.unwrap();
        let mut wanted = of_node.clone();
        wanted["by"] = json!("scheduler");
        assert_eq!((&changed["spec"]["nodeName"], &changed["metadata"]["labels"]), (&json!("n1"), &wanted), "{name}");
    }
    let mut placed = pod("three");
    placed["spec"]["nodeName"] = json!("n1");
    assert_eq!(create(&cluster, PODS, placed).await["metadata"]["labels"], of_node);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_plugin_a_binding_brings_its_own_labels_only() {
    let cluster = with(&[], &["PodTopologyLabels"]).await;
    create(&cluster, "/api/v1/nodes", node()).await;
    create(&cluster, PODS, pod("one")).await;
    assert_eq!(cluster.admin(Method::POST, &format!("{PODS}/one/binding"), binding("one")).await.0, 201);
    let (_, bound) = cluster.admin(Method::GET, &format!("{PODS}/one"), Value::Null).await;
    assert_eq!((&bound["spec"]["nodeName"], &bound["metadata"]["labels"]), (&json!("n1"), &json!({"app": "a", "by": "scheduler"})));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_makes_its_namespace() {
    let cluster = with(&["NamespaceAutoProvision"], &[]).await;
    let map = || json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    let (code, tried) = cluster.admin(Method::POST, "/api/v1/namespaces/fresh/configmaps?dryRun=All", map()).await;
    assert_eq!((code, cluster.admin(Method::GET, "/api/v1/namespaces/fresh", Value::Null).await.0), (404, 404), "{tried}");
    create(&cluster, "/api/v1/namespaces/fresh/configmaps", map()).await;
    let (code, namespace) = cluster.admin(Method::GET, "/api/v1/namespaces/fresh", Value::Null).await;
    let facts =
        (&namespace["status"]["phase"], &namespace["spec"]["finalizers"], &namespace["metadata"]["labels"]["kubernetes.io/metadata.name"]);
    assert_eq!((code, facts), (200, (&json!("Active"), &json!(["kubernetes"]), &json!("fresh"))), "{namespace}");
    let (code, refused) = cluster.admin(Method::POST, "/api/v1/namespaces/Not_A_Name/configmaps", map()).await;
    assert!(code == 403 && refused["message"].as_str().unwrap().starts_with("configmaps \"m\" is forbidden: Namespace"), "{refused}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_limits_events() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("admission.yaml");
    let text =
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n- {name: EventRateLimit, path: events.yaml}\n";
    std::fs::write(&file, text).unwrap();
    let text = "apiVersion: eventratelimit.admission.k8s.io/v1alpha1\nkind: Configuration\nlimits: [{type: User, qps: 1, burst: 1}]\n";
    std::fs::write(folder.path().join("events.yaml"), text).unwrap();
    let cluster = Cluster::start_on("127.0.0.1:0", |options, _| {
        options.admission.enabled = vec!["EventRateLimit".to_owned()];
        options.admission_configuration = Some(file);
    })
    .await;
    let event = |name: String| {
        let object = json!({"kind": "Pod", "namespace": "default", "name": "p"});
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name}, "involvedObject": object})
    };
    // However slow the machine is: all at once are more than one a second.
    let sent = (0..40).map(|number| cluster.admin(Method::POST, EVENTS, event(format!("e{number}"))));
    let answers = futures::future::join_all(sent).await;
    let refused: Vec<&Value> = answers.iter().filter(|(code, _)| *code == 429).map(|(_, answer)| answer).collect();
    assert!(!refused.is_empty() && answers.iter().any(|(code, _)| *code == 201), "{answers:?}");
    assert_eq!(refused[0]["message"], "Too many requests: limit reached on type User for key admin");
    cluster.stop().await;
}
