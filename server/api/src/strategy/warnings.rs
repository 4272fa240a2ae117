//! Warnings that ride along with a successful answer: deprecated versions, fields and labels, and writings that are
//! allowed but surely not meant.
//!
//! Upstream: `pkg/api/pod/warnings.go`, `pkg/api/service/warnings.go` and the generated lifecycle of each version.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::meta;
use crate::names;

/// What to tell everyone who uses a version of a resource that is on its way out.
pub fn deprecation(group: &str, version: &str, plural: &str) -> Option<String> {
    match (group, version, plural) {
        ("", "v1", "componentstatuses") => Some("v1 ComponentStatus is deprecated in v1.19+".to_owned()),
        ("", "v1", "endpoints") => Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_owned()),
        _ => None,
    }
}

pub(super) fn on_write(group: &str, plural: &str, object: &Value, old: Option<&Value>) -> Vec<String> {
    let kind = crate::resources::find(group, plural).map(|resource| resource.kind.as_ref()).unwrap_or_default();
    let mut warnings = Vec::new();
    match (group, plural) {
        ("", "pods") => {
            if old.is_none() {
                host_name(object, &mut warnings);
            }
            pod_spec(&object["spec"], "spec", &mut warnings);
        }
        ("", "services") => service(object, &mut warnings),
        ("", "persistentvolumes") => persistent_volume(object, &mut warnings),
        _ => {}
    }
    if let Some(path) = crate::default::template_path(group, kind) {
        let changed = old.is_none_or(|old| at(old, path) != at(object, path));
        if changed {
            if matches!(plural, "jobs" | "cronjobs" | "statefulsets") && old.is_none() {
                host_name(object, &mut warnings);
            }
            let template = at(object, path);
            pod_spec(&template["spec"], &format!("{path}.spec"), &mut warnings);
        }
    }
    warnings
}

fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(object, |value, key| &value[key])
}

fn host_name(object: &Value, warnings: &mut Vec<String>) {
    let name = meta::name(object);
    let messages = names::is_dns1123_label(name);
    if !messages.is_empty() {
        warnings.push(format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; \
             a DNS label is recommended: [{}]",
            messages.join(" ")
        ));
    }
}

const LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    ("failure-domain.beta.kubernetes.io/region", "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
];

const VOLUMES: &[(&str, &str)] = &[
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

fn pod_spec(spec: &Value, path: &str, warnings: &mut Vec<String>) {
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    for (label, words) in LABELS {
        if spec["nodeSelector"].get(label).is_some() {
            warnings.push(format!("{path}.nodeSelector[{label}]: {words}"));
        }
    }
    for (index, volume) in list(&spec["volumes"]).iter().enumerate() {
        for (kind, words) in VOLUMES {
            if volume.get(*kind).is_some_and(|source| !source.is_null()) {
                warnings.push(format!("{path}.volumes[{index}].{kind}: {words}"));
            }
        }
    }
    let mut seen = BTreeSet::new();
    for (index, secret) in list(&spec["imagePullSecrets"]).iter().enumerate() {
        let name = secret["name"].as_str().unwrap_or_default().to_owned();
        if name.is_empty() {
            warnings.push(format!("{path}.imagePullSecrets[{index}].name: invalid empty name {name:?}"));
        } else if !seen.insert(name.clone()) {
            warnings.push(format!("{path}.imagePullSecrets[{index}].name: duplicate name {name:?}"));
        }
    }
    for group in ["initContainers", "containers"] {
        for (index, container) in list(&spec[group]).iter().enumerate() {
            container_warnings(container, &format!("{path}.{group}[{index}]"), warnings);
        }
    }
}

fn container_warnings(container: &Value, path: &str, warnings: &mut Vec<String>) {
    // A later variable of the same name hides the earlier one.
    let mut seen = BTreeSet::new();
    for (index, variable) in container["env"].as_array().into_iter().flatten().enumerate() {
        let name = variable["name"].as_str().unwrap_or_default();
        if !seen.insert(name) {
            warnings.push(format!("{path}.env[{index}]: hides previous definition of {name:?}, which may be dropped when using apply"));
        }
    }
    for list in ["limits", "requests"] {
        for (resource, amount) in container["resources"][list].as_object().into_iter().flatten() {
            let fraction = crate::quantity::from_json(amount).is_ok_and(|amount| !amount.is_integer());
            if matches!(resource.as_str(), "memory" | "ephemeral-storage") && fraction {
                let shown = crate::quantity::canonicalize(amount).unwrap_or_default();
                warnings
                    .push(format!("{path}.resources.{list}[{resource}]: fractional byte value {shown:?} is invalid, must be an integer"));
            }
        }
    }
}

fn service(object: &Value, warnings: &mut Vec<String>) {
    let spec = &object["spec"];
    if spec["clusterIP"] == "None" {
        for (key, value) in [("loadBalancerIP", &spec["loadBalancerIP"]), ("sessionAffinity", &spec["sessionAffinity"])] {
            let set = match key {
                "sessionAffinity" => value == "ClientIP",
                _ => !value.as_str().unwrap_or_default().is_empty(),
            };
            if set {
                warnings.push(format!("spec.{key} is ignored for headless services"));
            }
        }
        for key in ["externalIPs", "loadBalancerSourceRanges"] {
            if spec[key].as_array().is_some_and(|list| !list.is_empty()) {
                warnings.push(format!("spec.{key} is ignored for headless services"));
            }
        }
    }
}

fn persistent_volume(object: &Value, warnings: &mut Vec<String>) {
    if object["spec"]["persistentVolumeReclaimPolicy"] == "Recycle" {
        warnings.push(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. \
             Instead, the recommended approach is to use dynamic provisioning."
                .to_owned(),
        );
    }
    for (kind, words) in VOLUMES {
        if object["spec"].get(*kind).is_some_and(|source| !source.is_null()) {
            warnings.push(format!("spec.{kind}: {words}"));
        }
    }
}
