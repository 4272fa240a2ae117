//! Nodes. Upstream: `pkg/registry/core/node/strategy.go`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::pod::{requirements, scheduling};
use crate::default::{Lit::*, Set, each, fill, unset};
use crate::field::FieldPath;
use crate::kinds::text::{NONE, UNKNOWN, condition, or};
use crate::meta;
use crate::resource::{Cells, Column, Kind, SelectableField};
use crate::validate::{At, net};

/// A machine that runs pods.
pub(crate) struct Node;

const NODE: &[Set] = &[
    Set("", "spec", Obj),
    Set("", "status", Obj),
    Set("status", "daemonEndpoints", Obj),
    Set("status.daemonEndpoints", "kubeletEndpoint", Obj),
    Set("status.daemonEndpoints.kubeletEndpoint", "Port", I(0)),
    Set("status", "nodeInfo", Obj),
    Set("status.nodeInfo", "architecture", Empty),
    Set("status.nodeInfo", "bootID", Empty),
    Set("status.nodeInfo", "containerRuntimeVersion", Empty),
    Set("status.nodeInfo", "kernelVersion", Empty),
    Set("status.nodeInfo", "kubeProxyVersion", Empty),
    Set("status.nodeInfo", "kubeletVersion", Empty),
    Set("status.nodeInfo", "machineID", Empty),
    Set("status.nodeInfo", "operatingSystem", Empty),
    Set("status.nodeInfo", "osImage", Empty),
    Set("status.nodeInfo", "systemUUID", Empty),
    Set("status.conditions[]", "lastHeartbeatTime", Null),
    Set("status.conditions[]", "lastTransitionTime", Null),
    Set("status.images[]", "names", Null),
];

impl Kind for Node {
    fn status_on_create(&self) -> bool {
        true
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn missing_behaviour(&self) -> &'static str {
        "configSource"
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, NODE);
        default(object);
    }

    fn validate_create(&self, object: &At<'_>) {
        node(object);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        node_update(object, old);
    }

    fn validate_status(&self, object: &At<'_>, old: &At<'_>) {
        node_update(object, old);
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Status|Roles|Age|Version|+Internal-IP|+External-IP|+OS-Image|+Kernel-Version|+Container-Runtime")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let mut row = vec![cells.name()];
        row.extend(table_cells(cells));
        row
    }

    fn selectable_fields(&self) -> Vec<SelectableField> {
        vec![SelectableField::new("spec.unschedulable").or("false")]
    }
}

fn default(object: &mut Value) {
    each(object, "status", &mut |status| {
        if unset(status, "allocatable")
            && let Some(capacity) = status.get("capacity").filter(|capacity| capacity.is_object()).cloned()
        {
            status.insert("allocatable".to_owned(), capacity);
        }
    });
}

fn node(object: &At<'_>) {
    let spec = object.at("spec");
    scheduling::taints(&spec.at("taints").named(FieldPath::new("metadata.taints")));
    node_resources(object);
    let ranges = spec.at("podCIDRs");
    ranges.items().for_each(|range| net::cidr(&range));
    let all = ranges.strings();
    if all.len() > 1 {
        let v6 = all.iter().filter(|range| range.contains(':')).count();
        if all.len() > 2 || v6 != 1 {
            ranges.invalid("may specify no more than one CIDR for each IP family");
        }
        let mut seen = BTreeSet::new();
        ranges.items().filter(|range| !seen.insert(range.text())).for_each(|range| range.duplicate());
    }
}

fn node_resources(object: &At<'_>) {
    for list in ["capacity", "allocatable"] {
        let list = object.at("status").at(list);
        for (resource, value) in list.entries() {
            requirements::quantity_value(resource, &value.named(list.path.child(resource)));
        }
    }
}

fn node_update(object: &At<'_>, old: &At<'_>) {
    node_resources(object);
    let addresses = object.at("status").at("addresses");
    let mut seen = BTreeSet::new();
    addresses.items().filter(|address| !seen.insert(address.value.to_string())).for_each(|address| address.duplicate());
    let (spec, before) = (object.at("spec"), old.at("spec"));
    if !before.at("podCIDRs").is_empty() && before.at("podCIDRs").value != spec.at("podCIDRs").value {
        spec.at("podCIDRs").forbidden("node updates may not change podCIDR except from \"\" to valid");
    }
    if before.at("providerID").is_full() && before.at("providerID").value != spec.at("providerID").value {
        spec.at("providerID").forbidden("node updates may not change providerID except from \"\" to valid");
    }
    scheduling::taints(&spec.at("taints").named(FieldPath::new("metadata.taints")));
}

fn table_cells(cells: &Cells<'_>) -> Vec<Value> {
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
