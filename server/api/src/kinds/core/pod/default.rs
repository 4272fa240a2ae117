//! Defaults of a pod spec, wherever it is embedded, and the few that only a Pod itself gets.
//!
//! Upstream: `SetDefaults_PodSpec`, `SetDefaults_Container` and their neighbours run for every embedded spec;
//! `SetDefaults_Pod` (requests from limits, service links, host ports) runs only for a Pod, so that a template stays as it
//! was written.

use serde_json::{Value, json};

use crate::default::{Lit, Lit::*, Object, Set, each, fill, set, text, unset};
use crate::quantity::Quantity;

const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];

const POD_SPEC: &[Set] = &[
    Set("", "dnsPolicy", S("ClusterFirst")),
    Set("", "restartPolicy", S("Always")),
    Set("", "securityContext", Obj),
    Set("", "terminationGracePeriodSeconds", I(30)),
    Set("", "schedulerName", S("default-scheduler")),
];

const CONTAINER: &[Set] = &[
    Set("", "terminationMessagePath", S("/dev/termination-log")),
    Set("", "terminationMessagePolicy", S("File")),
    Set("ports[]", "protocol", S("TCP")),
    Set("env[].valueFrom.fieldRef", "apiVersion", S("v1")),
    Set("env[].valueFrom.fileKeyRef", "optional", B(false)),
    Set("lifecycle.postStart.httpGet", "path", S("/")),
    Set("lifecycle.postStart.httpGet", "scheme", S("HTTP")),
    Set("lifecycle.preStop.httpGet", "path", S("/")),
    Set("lifecycle.preStop.httpGet", "scheme", S("HTTP")),
];

const PROBE: &[Set] = &[
    Set("", "timeoutSeconds", Z(1)),
    Set("", "periodSeconds", Z(10)),
    Set("", "successThreshold", Z(1)),
    Set("", "failureThreshold", Z(3)),
    Set("httpGet", "path", S("/")),
    Set("httpGet", "scheme", S("HTTP")),
    Set("grpc", "service", Empty),
];

/// Sources that a PersistentVolume shares with a pod's volume.
const VOLUME_SOURCE: &[Set] = &[
    Set("hostPath", "type", Empty),
    Set("iscsi", "iscsiInterface", S("default")),
    Set("rbd", "pool", S("rbd")),
    Set("rbd", "user", S("admin")),
    Set("rbd", "keyring", S("/etc/ceph/keyring")),
    Set("azureDisk", "cachingMode", S("ReadWrite")),
    Set("azureDisk", "kind", S("Shared")),
    Set("azureDisk", "fsType", S("ext4")),
    Set("azureDisk", "readOnly", B(false)),
    Set("scaleIO", "storageMode", S("ThinProvisioned")),
    Set("scaleIO", "fsType", S("xfs")),
];

const VOLUME: &[Set] = &[
    Set("secret", "defaultMode", I(420)),
    Set("configMap", "defaultMode", I(420)),
    Set("downwardAPI", "defaultMode", I(420)),
    Set("downwardAPI.items[].fieldRef", "apiVersion", S("v1")),
    Set("projected", "defaultMode", I(420)),
    Set("projected.sources[].serviceAccountToken", "expirationSeconds", I(3600)),
    Set("projected.sources[].downwardAPI.items[].fieldRef", "apiVersion", S("v1")),
    Set("projected.sources[].podCertificate", "maxExpirationSeconds", I(86_400)),
    Set("ephemeral.volumeClaimTemplate.spec", "volumeMode", S("Filesystem")),
];

/// The fields of a pod spec that upstream's encoder always writes.
const ALWAYS: &[Set] = &[
    Set("", "containers", Null),
    Set("containers[]", "resources", Obj),
    Set("initContainers[]", "resources", Obj),
    Set("ephemeralContainers[]", "resources", Obj),
    Set("containers[].env[].valueFrom.resourceFieldRef", "divisor", S("0")),
    Set("initContainers[].env[].valueFrom.resourceFieldRef", "divisor", S("0")),
    Set("volumes[].downwardAPI.items[].resourceFieldRef", "divisor", S("0")),
    Set("volumes[].projected.sources[].downwardAPI.items[].resourceFieldRef", "divisor", S("0")),
    Set("volumes[].projected", "sources", Null),
    Set("volumes[].ephemeral.volumeClaimTemplate", "metadata", Obj),
    Set("volumes[].ephemeral.volumeClaimTemplate.spec", "resources", Obj),
];

const CONTAINER_STATUS: &[(&str, Lit)] = &[
    ("image", Empty),
    ("imageID", Empty),
    ("lastState", Obj),
    ("name", Empty),
    ("ready", B(false)),
    ("restartCount", I(0)),
    ("state", Obj),
];

const CONDITION: &[Set] = &[Set("status.conditions[]", "lastProbeTime", Null), Set("status.conditions[]", "lastTransitionTime", Null)];

/// Defaults of a pod template at `path`.
pub(crate) fn template(object: &mut Value, path: &str) {
    each(object, path, &mut |template| {
        set(template, "metadata", Lit::Obj);
        set(template, "spec", Lit::Obj);
    });
    pod_spec(object, &format!("{path}.spec"));
}

/// Defaults of the pod spec at `path` (for example `spec.template.spec`).
fn pod_spec(object: &mut Value, path: &str) {
    each(object, path, &mut |spec| {
        let mut value = Value::Object(std::mem::take(spec));
        fill(&mut value, ALWAYS);
        if let Value::Object(filled) = value {
            *spec = filled;
        }
        for list in CONTAINER_LISTS {
            if let Some(Value::Array(containers)) = spec.get_mut(list) {
                containers.iter_mut().for_each(container);
            }
        }
        if let Some(Value::Array(volumes)) = spec.get_mut("volumes") {
            volumes.iter_mut().for_each(volume);
        }
        let mut value = Value::Object(std::mem::take(spec));
        fill(&mut value, POD_SPEC);
        if let Value::Object(filled) = value {
            *spec = filled;
        }
    });
}

/// The defaults of a Pod.
pub(crate) fn pod(object: &mut Value) {
    fill(object, &[Set("", "spec", Obj), Set("", "status", Obj)]);
    pod_status(object);
    pod_spec(object, "spec");
    each(object, "spec", &mut |spec| {
        for list in ["initContainers", "containers"] {
            if let Some(Value::Array(containers)) = spec.get_mut(list) {
                for container in containers {
                    each(container, "resources", &mut requests_from_limits);
                }
            }
        }
        pod_level_requests(spec);
        set(spec, "enableServiceLinks", B(true));
        if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
            host_ports(spec);
        }
    });
}

/// Defaults of the volume source in `map`, for PersistentVolumes.
pub(crate) fn volume_source(value: &mut Value) {
    fill(value, VOLUME_SOURCE);
}

/// A pod's status lists.
fn pod_status(object: &mut Value) {
    fill(object, CONDITION);
    for list in ["status.containerStatuses[]", "status.initContainerStatuses[]", "status.ephemeralContainerStatuses[]"] {
        for (key, lit) in CONTAINER_STATUS {
            each(object, list, &mut |map| set(map, key, *lit));
        }
        for state in ["state", "lastState"] {
            let at = format!("{list}.{state}");
            each(object, &format!("{at}.running"), &mut |map| set(map, "startedAt", Null));
            each(object, &format!("{at}.terminated"), &mut |map| {
                set(map, "exitCode", I(0));
                set(map, "startedAt", Null);
                set(map, "finishedAt", Null);
            });
        }
    }
}

fn container(container: &mut Value) {
    fill(container, CONTAINER);
    for probe in PROBES {
        if let Some(inner) = container.get_mut(probe) {
            fill(inner, PROBE);
        }
    }
    if let Value::Object(map) = container
        && unset(map, "imagePullPolicy")
    {
        let policy = pull_policy(text(map, "image"));
        map.insert("imagePullPolicy".to_owned(), json!(policy));
    }
}

fn volume(volume: &mut Value) {
    if let Value::Object(map) = volume
        && !map.iter().any(|(key, source)| key != "name" && !source.is_null())
    {
        map.insert("emptyDir".to_owned(), json!({}));
    }
    fill(volume, VOLUME);
    volume_source(volume);
    each(volume, "image", &mut |image| {
        if unset(image, "pullPolicy") {
            let policy = pull_policy(text(image, "reference"));
            image.insert("pullPolicy".to_owned(), json!(policy));
        }
    });
}

/// Always for `latest` (said or implied), else IfNotPresent. A digest without a tag is not `latest`.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let tag = name.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    match (tag, digest) {
        (Some("latest"), _) | (None, None) => "Always",
        _ => "IfNotPresent",
    }
}

fn requests_from_limits(resources: &mut Object) {
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    let Some(requests) = crate::default::object(resources, "requests") else { return };
    for (name, quantity) in limits {
        requests.entry(name).or_insert(quantity);
    }
    if requests.is_empty() {
        resources.remove("requests");
    }
}

/// Pod-level requests: what the containers ask for in sum, else the pod-level limit.
fn pod_level_requests(spec: &mut Object) {
    if spec.get("resources").is_none_or(Value::is_null) {
        return;
    }
    let names: Vec<String> = {
        let of = |list: &str| spec.get("resources").and_then(|resources| resources.get(list)).and_then(Value::as_object).cloned();
        let mut names: Vec<String> =
            container_requests(spec).into_keys().chain(of("limits").unwrap_or_default().into_iter().map(|(k, _)| k)).collect();
        names.retain(|name| name == "cpu" || name == "memory" || name.starts_with("hugepages-"));
        names.sort();
        names.dedup();
        names
    };
    let sums = container_requests(spec);
    let Some(Value::Object(resources)) = spec.get_mut("resources") else { return };
    let limits = resources.get("limits").cloned().unwrap_or(Value::Null);
    let Some(requests) = crate::default::object(resources, "requests") else { return };
    for name in names {
        if requests.contains_key(&name) {
            continue;
        }
        if let Some(sum) = sums.get(&name).filter(|_| !name.starts_with("hugepages-")) {
            requests.insert(name, json!(sum.to_string()));
        } else if let Some(limit) = limits.get(&name) {
            requests.insert(name, limit.clone());
        }
    }
    if requests.is_empty() {
        resources.remove("requests");
    }
}

/// The effective requests of a pod's containers: the larger of the running sum and what initialization peaks at.
/// Restartable init containers count in both.
fn container_requests(spec: &Object) -> std::collections::BTreeMap<String, Quantity> {
    use std::collections::BTreeMap;
    let requests = |container: &Value| -> BTreeMap<String, Quantity> {
        container
            .pointer("/resources/requests")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.parse().ok()?)))
            .collect()
    };
    fn add(into: &mut BTreeMap<String, Quantity>, other: &BTreeMap<String, Quantity>) {
        for (name, quantity) in other {
            let sum = into.get(name).map_or_else(|| *quantity, |have| have.plus(quantity));
            into.insert(name.clone(), sum);
        }
    }
    let list = |name: &str| spec.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut running = BTreeMap::new();
    for container in list("containers") {
        add(&mut running, &requests(&container));
    }
    let mut sidecars = BTreeMap::new();
    let mut peak: BTreeMap<String, Quantity> = BTreeMap::new();
    for container in list("initContainers") {
        let own = requests(&container);
        let at_this_point = if container.get("restartPolicy").and_then(Value::as_str) == Some("Always") {
            add(&mut running, &own);
            add(&mut sidecars, &own);
            sidecars.clone()
        } else {
            let mut sum = sidecars.clone();
            add(&mut sum, &own);
            sum
        };
        for (name, quantity) in at_this_point {
            if peak.get(&name).is_none_or(|have| *have < quantity) {
                peak.insert(name, quantity);
            }
        }
    }
    for (name, quantity) in peak {
        if running.get(&name).is_none_or(|have| *have < quantity) {
            running.insert(name, quantity);
        }
    }
    running
}

/// On the host's network a container port is a host port.
fn host_ports(spec: &mut Object) {
    for list in ["initContainers", "containers"] {
        let Some(Value::Array(containers)) = spec.get_mut(list) else { continue };
        for container in containers {
            let Some(Value::Array(ports)) = container.get_mut("ports") else { continue };
            for port in ports {
                let Some(map) = port.as_object_mut() else { continue };
                if map.get("hostPort").and_then(Value::as_i64).unwrap_or(0) == 0
                    && let Some(number) = map.get("containerPort").cloned()
                {
                    map.insert("hostPort".to_owned(), number);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("busybox", "Always"),
            ("registry:5000/app", "Always"),
            ("registry:5000/app:latest", "Always"),
            ("nginx:1.2", "IfNotPresent"),
            ("nginx@sha256:aa", "IfNotPresent"),
            ("nginx:latest@sha256:aa", "Always"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
