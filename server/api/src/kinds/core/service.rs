//! Services. Upstream: `pkg/registry/core/service/strategy.go` and `storage/alloc.go`.

mod prepare;
mod validate;

use serde_json::{Value, json};

use crate::default::{Lit::*, Set, each, fill, set, text, unset};
use crate::kinds::text::{NONE, UNKNOWN, ingress_points, labels, or, strings};
use crate::names;
use crate::resource::{Allocation, Cells, Column, Kind, SelectableField};
use crate::time::Timestamp;
use crate::validate::{At, NameRule};

/// A service.
pub(crate) struct Service;

impl Kind for Service {
    fn counts_generation(&self) -> bool {
        false
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn name_rule(&self) -> NameRule {
        names::is_dns1123_label
    }

    fn allocations(&self) -> &'static [Allocation] {
        &[Allocation::ClusterAddresses, Allocation::NodePorts]
    }

    fn default(&self, _version: &str, object: &mut Value) {
        default(object);
    }

    fn prepare_for_create(&self, object: &mut Value, _now: Timestamp) {
        prepare::prepare_for_create(object);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value) {
        prepare::prepare_for_update(object, old);
    }

    fn validate(&self, object: &At<'_>) {
        validate::service(object);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        validate::service_update(object, old);
    }

    fn validate_status(&self, object: &At<'_>, _old: &At<'_>) {
        validate::load_balancer_status(object);
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings(object)
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Type|Cluster-IP|External-IP|Port(s)|Age|+Selector")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let mut row = vec![cells.name()];
        row.extend(table_cells(cells));
        row
    }

    fn selectable_fields(&self) -> Vec<SelectableField> {
        vec![SelectableField::new("spec.clusterIP"), SelectableField::new("spec.type")]
    }
}

fn default(object: &mut Value) {
    fill(
        object,
        &[
            Set("", "spec", Obj),
            Set("", "status", Obj),
            Set("status", "loadBalancer", Obj),
            Set("spec", "sessionAffinity", S("None")),
            Set("spec", "type", S("ClusterIP")),
            Set("spec.ports[]", "protocol", S("TCP")),
            Set("status.loadBalancer.ingress[]", "ipMode", S("VIP")),
        ],
    );
    each(object, "spec", &mut |spec| {
        if text(spec, "sessionAffinity") == "ClientIP" {
            let timeout = spec
                .get("sessionAffinityConfig")
                .and_then(|config| config.pointer("/clientIP/timeoutSeconds"))
                .filter(|seconds| !seconds.is_null());
            if timeout.is_none() {
                spec.insert("sessionAffinityConfig".to_owned(), json!({"clientIP": {"timeoutSeconds": 10_800}}));
            }
        } else if text(spec, "sessionAffinity") == "None" {
            spec.remove("sessionAffinityConfig");
        }
        if let Some(Value::Array(ports)) = spec.get_mut("ports") {
            for port in ports {
                target_port(port);
            }
        }
        let kind = text(spec, "type").to_owned();
        let external = matches!(kind.as_str(), "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && !unset(spec, "externalIPs"));
        if external {
            set(spec, "externalTrafficPolicy", S("Cluster"));
        }
        if kind != "ExternalName" {
            set(spec, "internalTrafficPolicy", S("Cluster"));
        }
        if kind == "LoadBalancer" {
            set(spec, "allocateLoadBalancerNodePorts", B(true));
        }
    });
    // An IP mode belongs to an address; a host name has none.
    each(object, "status.loadBalancer.ingress[]", &mut |ingress| {
        if text(ingress, "ip").is_empty() {
            ingress.remove("ipMode");
        }
    });
}

fn target_port(port: &mut Value) {
    let Some(map) = port.as_object_mut() else { return };
    let missing = match map.get("targetPort") {
        None | Some(Value::Null) => true,
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        Some(Value::String(name)) => name.is_empty(),
        Some(_) => false,
    };
    if missing && let Some(number) = map.get("port").cloned() {
        map.insert("targetPort".to_owned(), number);
    }
}

/// Upstream: `GetWarningsForService`.
fn warnings(object: &Value) -> Vec<String> {
    const TOPOLOGY: (&str, &str) = ("service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode");
    let spec = &object["spec"];
    let filled = |key: &str| match &spec[key] {
        Value::Array(list) => !list.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => false,
    };
    let mut warnings = Vec::new();
    if object["metadata"]["annotations"].get(TOPOLOGY.0).is_some() {
        warnings.push(format!("annotation {} is deprecated, please use {} instead", TOPOLOGY.0, TOPOLOGY.1));
    }
    let external_name = spec["type"] == "ExternalName";
    let headless = spec["type"] == "ClusterIP" && spec["clusterIP"] == "None";
    if headless {
        for key in ["loadBalancerIP", "externalIPs"] {
            if filled(key) {
                warnings.push(format!("spec.{key} is ignored for headless services"));
            }
        }
        if spec["sessionAffinity"] != "None" {
            warnings.push("spec.SessionAffinity is ignored for headless services".to_owned());
        }
    }
    if filled("externalIPs") && !headless && !external_name {
        warnings.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned());
    }
    if external_name && filled("externalIPs") {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !external_name && filled("externalName") {
        warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if spec["trafficDistribution"] == "PreferClose" {
        warnings.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned());
    }
    warnings
}

fn table_cells(cells: &Cells<'_>) -> Vec<Value> {
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
