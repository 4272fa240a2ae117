//! Warnings about pod specs: deprecated labels and volumes, and values that are valid but surely not meant.
//!
//! Upstream: `pkg/api/pod/warnings.go`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::meta;
use crate::names;

const LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    ("failure-domain.beta.kubernetes.io/region", "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
];

/// Volume sources that are deprecated or that nothing implements any more.
pub(crate) const VOLUMES: &[(&str, &str)] = &[
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

/// Warnings about the pod template at `path`, when it is new or changed.
pub(crate) fn template(object: &Value, old: Option<&Value>, path: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    if old.is_none_or(|old| at(old, path) != at(object, path)) {
        pod_spec(&at(object, path)["spec"], &format!("{path}.spec"), &mut warnings);
    }
    warnings
}

fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(object, |value, key| &value[key])
}

pub(crate) fn host_name(object: &Value, warnings: &mut Vec<String>) {
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

pub(crate) fn pod_spec(spec: &Value, path: &str, warnings: &mut Vec<String>) {
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
