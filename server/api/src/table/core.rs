//! Rows of the core group, beside pods.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Cells;
use super::text::{NONE, UNKNOWN, UNSET, condition, containers, labels, or, plain, some, strings};
use crate::meta;

/// Appends the cells after the name.
pub(super) fn row(plural: &str, cells: &Cells<'_>, row: &mut Vec<Value>) {
    match plural {
        "componentstatuses" => row.extend(component_status(cells)),
        "configmaps" => {
            let count = ["data", "binaryData"].map(|key| cells.at(&[key]).as_object().map_or(0, serde_json::Map::len));
            row.extend([json!(count[0] + count[1]), cells.age()]);
        }
        "secrets" => {
            let count = cells.at(&["data"]).as_object().map_or(0, serde_json::Map::len);
            row.extend([json!(cells.text(&["type"])), json!(count), cells.age()]);
        }
        "namespaces" => row.extend([json!(cells.text(&["status", "phase"])), cells.age()]),
        "nodes" => row.extend(node(cells)),
        "services" => row.extend(service(cells)),
        "endpoints" => row.extend([json!(endpoints(cells)), cells.age()]),
        "limitranges" => row.push(cells.created_at()),
        "persistentvolumes" => row.extend(volume(cells)),
        "persistentvolumeclaims" => row.extend(claim(cells)),
        "podtemplates" => {
            row.extend(containers(cells.list(&["template", "spec", "containers"])));
            row.push(json!(labels(cells.at(&["template", "metadata", "labels"]))));
        }
        "replicationcontrollers" => {
            row.extend([
                json!(cells.int(&["spec", "replicas"])),
                json!(cells.int(&["status", "replicas"])),
                json!(cells.int(&["status", "readyReplicas"])),
                cells.age(),
            ]);
            row.extend(containers(cells.list(&["spec", "template", "spec", "containers"])));
            row.push(json!(labels(cells.at(&["spec", "selector"]))));
        }
        "resourcequotas" => row.extend(quota(cells)),
        _ => {}
    }
}

fn component_status(cells: &Cells<'_>) -> Vec<Value> {
    let healthy = cells.list(&["conditions"]).iter().find(|condition| condition["type"] == "Healthy");
    let status = match healthy {
        Some(condition) if condition["status"] == "True" => "Healthy",
        Some(_) => "Unhealthy",
        None => "Unknown",
    };
    let text = |key: &str| json!(healthy.and_then(|condition| condition[key].as_str()).unwrap_or_default());
    vec![json!(status), text("message"), text("error")]
}

fn node(cells: &Cells<'_>) -> Vec<Value> {
    let mut status = match condition(cells.object, "Ready") {
        Some(condition) if condition["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if cells.at(&["spec", "unschedulable"]) == &Value::Bool(true) {
        status.push_str(",SchedulingDisabled");
    }
    let mut roles = BTreeSet::new();
    for (key, value) in meta::labels(cells.object).into_iter().flatten() {
        if let Some(role) = key.strip_prefix("node-role.kubernetes.io/").filter(|role| !role.is_empty()) {
            roles.insert(role);
        } else if key == "kubernetes.io/role" {
            roles.extend(value.as_str().filter(|role| !role.is_empty()));
        }
    }
    let address = |kind: &str| {
        let found = cells.list(&["status", "addresses"]).iter().find(|address| address["type"] == kind);
        json!(found.and_then(|address| address["address"].as_str()).unwrap_or(NONE))
    };
    vec![
        json!(status),
        json!(or(roles.into_iter().collect::<Vec<_>>().join(","), NONE)),
        cells.age(),
        json!(cells.text(&["status", "nodeInfo", "kubeletVersion"])),
        address("InternalIP"),
        address("ExternalIP"),
        cells.text_or(&["status", "nodeInfo", "osImage"], UNKNOWN),
        cells.text_or(&["status", "nodeInfo", "kernelVersion"], UNKNOWN),
        cells.text_or(&["status", "nodeInfo", "containerRuntimeVersion"], UNKNOWN),
    ]
}

/// Addresses and names of a load balancer.
pub(super) fn ingress_points(cells: &Cells<'_>) -> Vec<String> {
    let points: BTreeSet<String> = cells
        .list(&["status", "loadBalancer", "ingress"])
        .iter()
        .map(|point| or(plain(&point["ip"]), point["hostname"].as_str().unwrap_or_default()))
        .filter(|point| !point.is_empty())
        .collect();
    points.into_iter().collect()
}

fn service(cells: &Cells<'_>) -> Vec<Value> {
    let own = strings(cells.at(&["spec", "externalIPs"]));
    let external = match cells.text(&["spec", "type"]) {
        "ClusterIP" | "NodePort" => or(own.join(","), NONE),
        "LoadBalancer" => or([ingress_points(cells), own].concat().join(","), "<pending>"),
        "ExternalName" => cells.text(&["spec", "externalName"]).to_owned(),
        _ => UNKNOWN.to_owned(),
    };
    let ports: Vec<String> = cells
        .list(&["spec", "ports"])
        .iter()
        .map(|port| {
            let protocol = port["protocol"].as_str().unwrap_or_default();
            match port["nodePort"].as_i64() {
                Some(node_port) if node_port > 0 => format!("{}:{node_port}/{protocol}", port["port"]),
                _ => format!("{}/{protocol}", port["port"]),
            }
        })
        .collect();
    vec![
        json!(cells.text(&["spec", "type"])),
        cells.text_or(&["spec", "clusterIP"], NONE),
        json!(external),
        json!(or(ports.join(","), NONE)),
        cells.age(),
        json!(labels(cells.at(&["spec", "selector"]))),
    ]
}

/// The first three of address and port; without ports (headless) the addresses alone.
fn endpoints(cells: &Cells<'_>) -> String {
    let mut all = Vec::new();
    for subset in cells.list(&["subsets"]) {
        let addresses: Vec<&str> = meta::list_at(subset, &["addresses"]).iter().filter_map(|address| address["ip"].as_str()).collect();
        let ports = meta::list_at(subset, &["ports"]);
        if ports.is_empty() {
            all.extend(addresses.iter().map(|address| (*address).to_owned()));
        }
        for port in ports {
            all.extend(addresses.iter().map(|address| match address.contains(':') {
                true => format!("[{address}]:{}", port["port"]),
                false => format!("{address}:{}", port["port"]),
            }));
        }
    }
    or(some(&all, 3, ","), NONE)
}

fn access_modes(modes: &Value) -> String {
    let given = strings(modes);
    [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")]
        .iter()
        .filter(|(mode, _)| given.iter().any(|one| one == mode))
        .map(|(_, short)| *short)
        .collect::<Vec<_>>()
        .join(",")
}

fn phase(cells: &Cells<'_>) -> Value {
    match meta::deletion_timestamp(cells.object) {
        Some(_) => json!("Terminating"),
        None => json!(cells.text(&["status", "phase"])),
    }
}

/// The class by the old annotation, else by the field.
fn storage_class(cells: &Cells<'_>) -> Value {
    let old = meta::annotation(cells.object, "volume.beta.kubernetes.io/storage-class");
    json!(old.unwrap_or(cells.text(&["spec", "storageClassName"])))
}

fn size(value: &Value) -> String {
    crate::quantity::canonicalize(value).unwrap_or_else(|| "0".to_owned())
}

fn volume(cells: &Cells<'_>) -> Vec<Value> {
    let claim = cells.at(&["spec", "claimRef"]);
    let claim = match claim.is_object() {
        true => format!("{}/{}", plain(&claim["namespace"]), plain(&claim["name"])),
        false => String::new(),
    };
    vec![
        json!(size(cells.at(&["spec", "capacity", "storage"]))),
        json!(access_modes(cells.at(&["spec", "accessModes"]))),
        json!(cells.text(&["spec", "persistentVolumeReclaimPolicy"])),
        phase(cells),
        json!(claim),
        storage_class(cells),
        cells.text_or(&["spec", "volumeAttributesClassName"], UNSET),
        json!(cells.text(&["status", "reason"])),
        cells.age(),
        cells.text_or(&["spec", "volumeMode"], UNSET),
    ]
}

fn claim(cells: &Cells<'_>) -> Vec<Value> {
    let bound = !cells.text(&["spec", "volumeName"]).is_empty();
    let (capacity, modes) = if bound {
        (size(cells.at(&["status", "capacity", "storage"])), access_modes(cells.at(&["status", "accessModes"])))
    } else {
        (String::new(), String::new())
    };
    vec![
        phase(cells),
        json!(cells.text(&["spec", "volumeName"])),
        json!(capacity),
        json!(modes),
        storage_class(cells),
        cells.text_or(&["spec", "volumeAttributesClassName"], UNSET),
        cells.age(),
        cells.text_or(&["spec", "volumeMode"], UNSET),
    ]
}

fn quota(cells: &Cells<'_>) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in cells.at(&["status", "hard"]).as_object().into_iter().flatten() {
        let used = size(&cells.at(&["status", "used"])[resource.as_str()]);
        let column = if resource.starts_with("limits.") { &mut limits } else { &mut requests };
        column.push(format!("{resource}: {used}/{}", size(hard)));
    }
    vec![json!(requests.join(", ")), json!(limits.join(", ")), cells.age()]
}

/// An event of either group; its name is the last cell.
pub(super) fn event(cells: &Cells<'_>) -> Vec<Value> {
    let first_of = |paths: &[&[&str]]| paths.iter().map(|path| cells.text(path)).find(|text| !text.is_empty());
    let about = match cells.at(&["involvedObject"]) {
        Value::Null => cells.at(&["regarding"]),
        object => object,
    };
    let event_time = cells.text(&["eventTime"]);
    let first = first_of(&[&["firstTimestamp"], &["deprecatedFirstTimestamp"]]).unwrap_or(event_time);
    let mut last = first_of(&[&["lastTimestamp"], &["deprecatedLastTimestamp"]]).unwrap_or(first);
    let mut count = cells.int(&["count"]).max(cells.int(&["deprecatedCount"])).max(1);
    if cells.at(&["series"]).is_object() {
        last = cells.text(&["series", "lastObservedTime"]);
        count = cells.int(&["series", "count"]);
    }
    let kind = plain(&about["kind"]).to_lowercase();
    let target = match plain(&about["name"]) {
        name if name.is_empty() => kind,
        name => format!("{kind}/{name}"),
    };
    let component =
        first_of(&[&["source", "component"], &["deprecatedSource", "component"], &["reportingComponent"], &["reportingController"]]);
    let host = first_of(&[&["source", "host"], &["deprecatedSource", "host"], &["reportingInstance"]]);
    let source = [component, host].into_iter().flatten().collect::<Vec<_>>().join(", ");
    vec![
        json!(cells.since(last)),
        json!(cells.text(&["type"])),
        json!(cells.text(&["reason"])),
        json!(target),
        json!(plain(&about["fieldPath"])),
        json!(source),
        json!(first_of(&[&["message"], &["note"]]).unwrap_or_default().trim()),
        json!(cells.since(first)),
        json!(count),
        json!(meta::name(cells.object)),
    ]
}
