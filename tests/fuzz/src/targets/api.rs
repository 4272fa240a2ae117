//! Bodies: JSON, YAML, protobuf, patches, selectors, certificate requests.

use serde_json::{Value, json};
use trireme_api::gvk::GroupVersionKind;
use trireme_api::patch::{json_patch, merge_patch, strategic_merge_patch};
use trireme_api::protobuf;
use trireme_api::schema::{ContentType, FieldValidation, decode, type_of};
use trireme_api::selector::{FieldSelector, LabelSelector};

use super::{Target, texts};

/// Separates the object from the patch.
const BETWEEN: u8 = 0x1e;

pub fn targets() -> Vec<Target> {
    let target = |name, what, corpus, run| Target { name, what, corpus, run };
    vec![
        target("selector", "label and field selectors", selectors, run_selector),
        target("json", "bodies in JSON", bodies_json, run_json),
        target("yaml", "bodies in YAML", bodies_yaml, run_yaml),
        target("protobuf", "bodies in protobuf", bodies_protobuf, run_protobuf),
        target("json-patch", "JSON patches (RFC 6902)", json_patches, run_json_patch),
        target("merge-patch", "merge patches (RFC 7386)", merge_patches, run_merge_patch),
        target("strategic", "strategic merge patches", strategic_patches, run_strategic),
    ]
}

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}, "annotations": {}, "finalizers": ["a/b"]},
        "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}],
            "env": [{"name": "A", "value": "1"}], "resources": {"limits": {"cpu": "100m", "memory": "1Gi"}}}],
            "tolerations": [{"key": "k", "operator": "Exists"}], "terminationGracePeriodSeconds": 30}})
}

fn service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"selector": {"a": "b"},
        "ports": [{"name": "http", "port": 80, "targetPort": "http"}, {"port": 443, "targetPort": 8443}]}})
}

fn bodies() -> [(Value, GroupVersionKind); 3] {
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 3,
        "selector": {"matchLabels": {"a": "b"}}, "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod()["spec"]}}});
    [
        (pod(), GroupVersionKind::new("", "v1", "Pod")),
        (service(), GroupVersionKind::new("", "v1", "Service")),
        (deployment, GroupVersionKind::new("apps", "v1", "Deployment")),
    ]
}

fn selectors() -> Vec<Vec<u8>> {
    texts(&[
        "app=web",
        "app in (a,b),tier notin (c),!gone,there",
        "a==b,c!=d",
        "x>1,y<2",
        "metadata.name=web,status.phase!=Running",
        "a\\,b=c\\=d",
    ])
}

fn run_selector(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(selector) = LabelSelector::parse(&text) {
        let _ = selector.matches(pod()["metadata"]["labels"].as_object());
        let _ = selector.matches(None);
    }
    if let Ok(selector) = FieldSelector::parse(&text) {
        let _ = selector.matches(|field| field.to_owned().into());
    }
}

fn bodies_json() -> Vec<Vec<u8>> {
    bodies().iter().map(|(body, _)| body.to_string().into_bytes()).collect()
}

fn bodies_yaml() -> Vec<Vec<u8>> {
    let mut found = bodies_json();
    found.extend(texts(&[
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  labels: &l {app: web}\nspec:\n  containers:\n  - name: c\n    image: i\n    command: [sh, -c, 'echo']\n",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  a: |\n    text\n  b: \"1\"\n  c: >-\n    folded\n",
        "a: &a [1]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    ]));
    found
}

fn bodies_protobuf() -> Vec<Vec<u8>> {
    bodies().iter().filter_map(|(body, _)| protobuf::encode(body).ok()).collect()
}

fn decode_as_each(bytes: &[u8], content_type: ContentType) {
    for (_, gvk) in bodies() {
        for validation in [FieldValidation::Strict, FieldValidation::Ignore] {
            let Ok(decoded) = decode(bytes, content_type, &gvk, validation) else { continue };
            // What was decoded can be sent, in both forms.
            let _ = decoded.object.to_string();
            let _ = protobuf::encode(&decoded.object);
        }
    }
}

fn run_json(bytes: &[u8]) {
    decode_as_each(bytes, ContentType::Json);
}

fn run_yaml(bytes: &[u8]) {
    decode_as_each(bytes, ContentType::Yaml);
}

fn run_protobuf(bytes: &[u8]) {
    let _ = protobuf::decode(bytes);
    decode_as_each(bytes, ContentType::Protobuf);
}

fn joined(patches: &[Value]) -> Vec<Vec<u8>> {
    patches.iter().map(|patch| [pod().to_string().as_bytes(), &[BETWEEN], patch.to_string().as_bytes()].concat()).collect()
}

/// The object and the patch; none where they are not JSON: that is another target's matter.
fn parted(bytes: &[u8]) -> Option<(Value, Value)> {
    let at = bytes.iter().position(|byte| *byte == BETWEEN)?;
    Some((serde_json::from_slice(&bytes[..at]).ok()?, serde_json::from_slice(&bytes[at + 1..]).ok()?))
}

fn json_patches() -> Vec<Vec<u8>> {
    joined(&[
        json!([{"op": "add", "path": "/metadata/labels/x", "value": "y"}, {"op": "remove", "path": "/spec/containers/0/env"}]),
        json!([{"op": "copy", "from": "/spec", "path": "/metadata/annotations/x"}, {"op": "move", "from": "/metadata/labels", "path": "/metadata/a"}]),
        json!([{"op": "test", "path": "/metadata/name", "value": "web"}, {"op": "replace", "path": "/spec/containers/0/image", "value": "j"}]),
        json!([{"op": "add", "path": "/spec/containers/-", "value": {"name": "d"}}, {"op": "add", "path": "/spec/containers/0", "value": {}}]),
        json!([{"op": "copy", "from": "", "path": "/spec/x"}, {"op": "copy", "from": "", "path": "/spec/y"}, {"op": "copy", "from": "", "path": "/spec/z"}]),
    ])
}

fn run_json_patch(bytes: &[u8]) {
    if let Some((mut object, patch)) = parted(bytes) {
        let _ = json_patch(&mut object, &patch);
    }
}

fn merge_patches() -> Vec<Vec<u8>> {
    joined(&[json!({"metadata": {"labels": {"app": null, "x": "y"}}, "spec": null}), json!({"spec": {"containers": []}}), json!([])])
}

fn run_merge_patch(bytes: &[u8]) {
    if let Some((mut object, patch)) = parted(bytes) {
        let _ = merge_patch(&mut object, &patch);
    }
}

fn strategic_patches() -> Vec<Vec<u8>> {
    joined(&[
        json!({"spec": {"containers": [{"name": "c", "image": "j", "env": [{"name": "A", "$patch": "delete"}]}, {"name": "d"}]}}),
        json!({"spec": {"$setElementOrder/containers": [{"name": "d"}, {"name": "c"}], "containers": [{"name": "d"}]}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/b"], "finalizers": ["c/d"]}}),
        json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "e"}], "tolerations": [{"$patch": "delete", "key": "k"}]}}),
        json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "emptyDir"], "emptyDir": {}}]}}),
        json!({"$patch": "replace", "metadata": {}}),
    ])
}

fn run_strategic(bytes: &[u8]) {
    let Some(ty) = type_of("", "v1", "Pod") else { return };
    if let Some((mut object, patch)) = parted(bytes) {
        let _ = strategic_merge_patch(ty, &mut object, &patch);
    }
}
