//! From a manifest to the pod that runs. Pure.
//!
//! The UID is made of the node, the file and its content, so that it stays over a restart of the agent and another content is another
//! pod.

use std::path::Path;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use trireme_api::{
    gvk::GroupVersionKind,
    kinds,
    schema::{self, ContentType, FieldValidation},
};

/// Where a pod is from: `file` here.
pub(super) const SOURCE: &str = "kubernetes.io/config.source";
/// The UID of a static pod.
pub(super) const HASH: &str = "kubernetes.io/config.hash";
const SEEN: &str = "kubernetes.io/config.seen";

/// Metadata that the API server gives, or that would have a static pod wait for somebody.
const NOT_FROM_A_FILE: [&str; 10] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
];

/// Reads a manifest in YAML or JSON.
pub(super) fn read(text: &[u8], path: &Path, node: &str, seen: Timestamp) -> Result<Pod, String> {
    let expected = GroupVersionKind::new("", "v1", "Pod");
    let decoded = schema::decode(text, ContentType::Yaml, &expected, FieldValidation::Warn).map_err(|status| status.message)?;
    for warning in decoded.warnings {
        tracing::warn!("{}: {warning}", path.display());
    }
    let mut pod = decoded.object;
    let uid = uid(text, path, node);
    place(&mut pod, node, &uid, seen)?;
    let definition = kinds::find("", "pods").ok_or("pods have no definition")?;
    definition.default(&mut pod);
    let errors = definition.validate_create(&pod);
    if !errors.is_empty() {
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        return Err(all.join(", "));
    }
    if let Some(reference) = reference(&pod["spec"]) {
        return Err(format!("static pods may not reference {reference}"));
    }
    pod["metadata"]["uid"] = json!(uid);
    pod["status"] = json!({"phase": "Pending"});
    serde_json::from_value(pod).map_err(|error| error.to_string())
}

/// 32 hexadecimal digits, as upstream's.
fn uid(text: &[u8], path: &Path, node: &str) -> String {
    let mut hash = Sha256::new();
    for part in [node.as_bytes(), path.as_os_str().as_encoded_bytes(), text] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(&hash.finalize()[..16])
}

fn place(pod: &mut Value, node: &str, uid: &str, seen: Timestamp) -> Result<(), String> {
    let metadata = pod["metadata"].as_object_mut().ok_or("metadata.name: Required value")?;
    for field in NOT_FROM_A_FILE {
        metadata.remove(field);
    }
    let name = metadata.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()).ok_or("metadata.name: Required value")?;
    let name = format!("{name}-{}", node.to_lowercase());
    metadata.insert("name".into(), json!(name));
    if metadata.get("namespace").and_then(Value::as_str).unwrap_or_default().is_empty() {
        metadata.insert("namespace".into(), json!("default"));
    }
    for (key, value) in [(HASH, uid), (SEEN, &seen.to_string()), (SOURCE, "file")] {
        pod["metadata"]["annotations"][key] = json!(value);
    }
    let spec = pod["spec"].as_object_mut().ok_or("spec: Required value")?;
    spec.insert("nodeName".into(), json!(node));
    // No taint takes a static pod off its node.
    let everything = json!({"operator": "Exists", "effect": "NoExecute"});
    match spec.get_mut("tolerations").and_then(Value::as_array_mut) {
        Some(tolerations) => tolerations.push(everything),
        None => drop(spec.insert("tolerations".into(), json!([everything]))),
    }
    Ok(())
}

/// An object of the API server that the pod needs, if there is one.
fn reference(spec: &Value) -> Option<&'static str> {
    let is_given = |value: &Value| !value.is_null() && value.as_str() != Some("") && value.as_array().is_none_or(|list| !list.is_empty());
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for (field, what) in [("serviceAccountName", "serviceaccounts"), ("imagePullSecrets", "secrets"), ("resourceClaims", "resourceclaims")]
    {
        if is_given(&spec[field]) {
            return Some(what);
        }
    }
    let volumes = items(&spec["volumes"]);
    let projected = volumes.iter().flat_map(|volume| items(&volume["projected"]["sources"]));
    for source in volumes.iter().cloned().chain(projected) {
        let kinds = [
            ("secret", "secrets"),
            ("configMap", "configmaps"),
            ("persistentVolumeClaim", "persistentvolumeclaims"),
            ("ephemeral", "persistentvolumeclaims"),
            ("csi", "csidrivers"),
            ("serviceAccountToken", "serviceaccounts"),
            ("clusterTrustBundle", "clustertrustbundles"),
            ("podCertificate", "podcertificaterequests"),
        ];
        if let Some((_, what)) = kinds.iter().find(|(field, _)| is_given(&source[*field])) {
            return Some(what);
        }
    }
    let containers = ["initContainers", "containers", "ephemeralContainers"].iter().flat_map(|list| items(&spec[*list]));
    for container in containers {
        let from = items(&container["envFrom"]);
        let variables: Vec<Value> = items(&container["env"]).into_iter().map(|variable| variable["valueFrom"].clone()).collect();
        let names =
            [("secretRef", "secrets"), ("configMapRef", "configmaps"), ("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")];
        for (field, what) in names {
            if from.iter().chain(&variables).any(|source| is_given(&source[field])) {
                return Some(what);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PLAIN: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: web
  uid: ../../etc
  finalizers: [example.com/never]
spec:
  containers:
  - name: c
    image: example.com/web:1
";

    fn parse(text: &str) -> Result<Pod, String> {
        read(text.as_bytes(), Path::new("/m/web.yaml"), "node-1", Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_manifest_becomes_a_pod_of_this_node() {
        let pod = parse(PLAIN).unwrap();
        let (meta, spec) = (&pod.metadata, pod.spec.as_ref().unwrap());
        assert_eq!((meta.name.as_deref(), meta.namespace.as_deref()), (Some("web-node-1"), Some("default")));
        assert_eq!(spec.node_name.as_deref(), Some("node-1"));
        assert_eq!(spec.termination_grace_period_seconds, Some(30), "upstream's defaults");
        assert_eq!(spec.tolerations.as_ref().unwrap()[0].effect.as_deref(), Some("NoExecute"));
        let uid = meta.uid.as_deref().unwrap();
        assert!(uid.len() == 32 && uid.bytes().all(|c| c.is_ascii_hexdigit()), "{uid}");
        assert!(meta.finalizers.is_none());
        assert_eq!(meta.annotations.as_ref().unwrap()[HASH], uid);
    }

    #[test]
    fn the_uid_is_of_the_content() {
        let uid = |text: &str| parse(text).unwrap().metadata.uid;
        assert_eq!(uid(PLAIN), uid(PLAIN));
        assert_ne!(uid(PLAIN), uid(&PLAIN.replace("web:1", "web:2")));
    }

    #[test]
    fn what_needs_the_api_server_is_refused() {
        let with = |extra: &str| parse(&format!("{PLAIN}{extra}")).unwrap_err();
        for (extra, what) in [
            ("  serviceAccountName: sa", "serviceaccounts"),
            ("  volumes: [{name: v, secret: {secretName: s}}]", "secrets"),
            ("  volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]", "persistentvolumeclaims"),
            ("  volumes: [{name: v, projected: {sources: [{configMap: {name: c}}]}}]", "configmaps"),
            ("    envFrom: [{configMapRef: {name: c}}]", "configmaps"),
            ("    env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]", "secrets"),
        ] {
            assert_eq!(with(extra), format!("static pods may not reference {what}"), "{extra}");
        }
    }

    #[test]
    fn what_is_no_valid_pod_is_refused_in_words() {
        for (text, why) in [
            ("kind: Pod\napiVersion: v1\n", "metadata.name: Required value"),
            ("{", "error"),
            (&PLAIN.replace("kind: Pod", "kind: Service"), "Service"),
            (&PLAIN.replace("name: c\n", "name: C\n"), "spec.containers[0].name"),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }
}
