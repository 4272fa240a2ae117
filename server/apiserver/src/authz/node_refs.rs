//! Which objects a pod makes its node need: the edges of the Node authorizer's graph.
//!
//! Pure functions over the pod's JSON. Answers to upstream's `podutil.VisitPodSecretNames` and its like.

use serde_json::Value;

/// The non-empty string under `path`.
fn text<'a>(value: &'a Value, path: &str) -> Option<&'a str> {
    value.pointer(path).and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn items<'a>(value: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(path).and_then(Value::as_array).into_iter().flatten()
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["/spec/initContainers", "/spec/containers", "/spec/ephemeralContainers"].into_iter().flat_map(|path| items(pod, path))
}

/// Where a volume source names a Secret of the pod's namespace.
const VOLUME_SECRETS: &[&str] = &[
    "/secret/secretName",
    "/azureFile/secretName",
    "/cephfs/secretRef/name",
    "/cinder/secretRef/name",
    "/flexVolume/secretRef/name",
    "/rbd/secretRef/name",
    "/scaleIO/secretRef/name",
    "/iscsi/secretRef/name",
    "/storageos/secretRef/name",
    "/csi/nodePublishSecretRef/name",
];

/// Whether the pod uses this Secret of its namespace.
pub fn uses_secret(pod: &Value, name: &str) -> bool {
    let is = |value: &Value, path: &str| text(value, path) == Some(name);
    items(pod, "/spec/imagePullSecrets").any(|r| is(r, "/name"))
        || containers(pod).any(|container| {
            items(container, "/env").any(|env| is(env, "/valueFrom/secretKeyRef/name"))
                || items(container, "/envFrom").any(|from| is(from, "/secretRef/name"))
        })
        || items(pod, "/spec/volumes").any(|volume| {
            VOLUME_SECRETS.iter().any(|path| is(volume, path))
                || items(volume, "/projected/sources").any(|source| is(source, "/secret/name"))
        })
}

/// Whether the pod uses this ConfigMap of its namespace.
pub fn uses_config_map(pod: &Value, name: &str) -> bool {
    let is = |value: &Value, path: &str| text(value, path) == Some(name);
    containers(pod).any(|container| {
        items(container, "/env").any(|env| is(env, "/valueFrom/configMapKeyRef/name"))
            || items(container, "/envFrom").any(|from| is(from, "/configMapRef/name"))
    }) || items(pod, "/spec/volumes")
        .any(|volume| is(volume, "/configMap/name") || items(volume, "/projected/sources").any(|source| is(source, "/configMap/name")))
}

/// Whether the pod uses this claim of its namespace, by name or as an ephemeral volume.
pub fn uses_claim(pod: &Value, name: &str) -> bool {
    let pod_name = text(pod, "/metadata/name").unwrap_or_default();
    items(pod, "/spec/volumes").any(|volume| {
        text(volume, "/persistentVolumeClaim/claimName") == Some(name)
            || (volume.get("ephemeral").is_some() && text(volume, "/name").is_some_and(|v| name == format!("{pod_name}-{v}")))
    })
}

/// Whether the pod runs under this service account of its namespace.
pub fn uses_service_account(pod: &Value, name: &str) -> bool {
    text(pod, "/spec/serviceAccountName") == Some(name)
}

/// Whether the pod was given this resource claim of its namespace.
pub fn uses_resource_claim(pod: &Value, name: &str) -> bool {
    items(pod, "/spec/resourceClaims").any(|claim| text(claim, "/resourceClaimName") == Some(name))
        || items(pod, "/status/resourceClaimStatuses").any(|status| text(status, "/resourceClaimName") == Some(name))
}

/// Whether the pod may grant its node anything: it is bound there and no mirror of a static pod.
pub fn counts_for(pod: &Value, node_name: &str) -> bool {
    text(pod, "/spec/nodeName") == Some(node_name) && text(pod, "/metadata/annotations/kubernetes.io~1config.mirror").is_none()
}

/// Whether the volume's driver needs this Secret (namespace, name) on the node.
pub fn volume_uses_secret(volume: &Value, namespace: &str, name: &str) -> bool {
    const REFERENCES: &[&str] = &[
        "/spec/csi/nodePublishSecretRef",
        "/spec/csi/nodeStageSecretRef",
        "/spec/csi/nodeExpandSecretRef",
        "/spec/csi/controllerPublishSecretRef",
        "/spec/cephfs/secretRef",
        "/spec/rbd/secretRef",
        "/spec/iscsi/secretRef",
        "/spec/flexVolume/secretRef",
    ];
    let claim_namespace = text(volume, "/spec/claimRef/namespace").unwrap_or_default();
    REFERENCES
        .iter()
        .filter_map(|path| volume.pointer(path))
        .any(|reference| text(reference, "/name") == Some(name) && text(reference, "/namespace").unwrap_or(claim_namespace) == namespace)
}
