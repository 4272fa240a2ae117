//! Allocated fields of a Service that its author may leave out, and fields that only one type has.
//!
//! A client that knows nothing of cluster IPs or node ports must be able to PUT what it once read, or to change only the type. The
//! allocator chooses addresses and ports.

use serde_json::{Map, Value};

use crate::meta;

type Spec = Map<String, Value>;

/// Whether a Service has use for a field.
type Needed = fn(&Spec) -> bool;

/// `clusterIPs` follows `clusterIP`, for clients from before there were two.
pub(crate) fn prepare_for_create(service: &mut Value) {
    let spec = meta::map_at(service, "spec");
    if text(spec, "type") != "ExternalName" && list(spec, "clusterIPs").is_empty() {
        let one = text(spec, "clusterIP").to_owned();
        if !one.is_empty() {
            spec.insert("clusterIPs".to_owned(), Value::from(vec![one]));
        }
    }
}

pub(crate) fn prepare_for_update(service: &mut Value, old: &Value) {
    let Some(old) = old.get("spec").and_then(Value::as_object) else { return };
    let spec = meta::map_at(service, "spec");
    keep_allocated(spec, old);
    normalize(spec, old);
    drop_of_other_type(spec, old);
}

fn text<'a>(spec: &'a Spec, key: &str) -> &'a str {
    spec.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(spec: &'a Spec, key: &str) -> &'a [Value] {
    spec.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn needs_cluster_ip(spec: &Spec) -> bool {
    matches!(text(spec, "type"), "ClusterIP" | "NodePort" | "LoadBalancer")
}

fn needs_node_ports(spec: &Spec) -> bool {
    match text(spec, "type") {
        "NodePort" => true,
        "LoadBalancer" => spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)),
        _ => false,
    }
}

fn needs_health_check(spec: &Spec) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

fn external(spec: &Spec) -> bool {
    match text(spec, "type") {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => !list(spec, "externalIPs").is_empty(),
        _ => false,
    }
}

fn balanced(spec: &Spec) -> bool {
    text(spec, "type") == "LoadBalancer"
}

fn keep(spec: &mut Spec, old: &Spec, key: &str) {
    if let Some(value) = old.get(key) {
        spec.insert(key.to_owned(), value.clone());
    }
}

fn node_port(port: &Value) -> i64 {
    port.get("nodePort").and_then(Value::as_i64).unwrap_or(0)
}

/// Keeps the allocated values that an update omits, where the Service still needs them.
fn keep_allocated(spec: &mut Spec, old: &Spec) {
    if needs_cluster_ip(old) && needs_cluster_ip(spec) {
        if text(spec, "clusterIP").is_empty() {
            keep(spec, old, "clusterIP");
        }
        if list(spec, "clusterIPs").is_empty() && text(spec, "clusterIP") == text(old, "clusterIP") {
            keep(spec, old, "clusterIPs");
        }
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if spec.get(key).is_none_or(Value::is_null) {
                keep(spec, old, key);
            }
        }
    }
    if needs_node_ports(old) && needs_node_ports(spec) {
        keep_node_ports(spec, old);
    }
    if needs_health_check(old) && needs_health_check(spec) && spec.get("healthCheckNodePort").and_then(Value::as_i64).unwrap_or(0) == 0 {
        keep(spec, old, "healthCheckNodePort");
    }
}

/// A port that is still there keeps its node port, unless the author gave that number to another.
fn keep_node_ports(spec: &mut Spec, old: &Spec) {
    let used: Vec<i64> = list(spec, "ports").iter().map(node_port).collect();
    let Some(Value::Array(ports)) = spec.get_mut("ports") else { return };
    for port in ports.iter_mut().filter(|port| node_port(port) == 0) {
        let same = |before: &&Value| before["port"] == port["port"] && before.get("protocol") == port.get("protocol");
        let before = list(old, "ports").iter().find(same).map(node_port).filter(|number| *number != 0);
        if let Some(number) = before.filter(|number| !used.contains(number))
            && let Some(map) = port.as_object_mut()
        {
            map.insert("nodePort".to_owned(), Value::from(number));
        }
    }
}

/// Of `clusterIP` and `clusterIPs`, the one that was changed speaks.
fn normalize(spec: &mut Spec, old: &Spec) {
    if text(spec, "type") == "ExternalName" {
        return;
    }
    let same_one = text(spec, "clusterIP") == text(old, "clusterIP");
    let same_list = list(spec, "clusterIPs") == list(old, "clusterIPs");
    if !same_one && same_list {
        let one = text(spec, "clusterIP").to_owned();
        if one.is_empty() {
            spec.remove("clusterIPs");
        } else {
            spec.insert("clusterIPs".to_owned(), Value::from(vec![one]));
        }
    } else if !same_list
        && text(spec, "clusterIP").is_empty()
        && let Some(first) = list(spec, "clusterIPs").first().cloned()
    {
        spec.insert("clusterIP".to_owned(), first);
    }
}

/// A field that the new type doesn't have goes with the old type, unless the author touched it: then it is an error
/// that validation reports.
fn drop_of_other_type(spec: &mut Spec, old: &Spec) {
    let unchanged = |spec: &Spec, key: &str| spec.get(key) == old.get(key);
    if needs_cluster_ip(old) && !needs_cluster_ip(spec) {
        for key in ["clusterIPs", "clusterIP", "ipFamilies", "ipFamilyPolicy"] {
            if unchanged(spec, key) {
                spec.remove(key);
            }
        }
    }
    if needs_node_ports(old) && !needs_node_ports(spec) {
        let ports = |spec: &Spec| -> Vec<i64> { list(spec, "ports").iter().map(node_port).collect() };
        if ports(spec).iter().all(|number| ports(old).contains(number)) {
            for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(map) = port.as_object_mut() {
                    map.remove("nodePort");
                }
            }
        }
    }
    let rules: [(&str, Needed); 6] = [
        ("healthCheckNodePort", needs_health_check),
        ("externalTrafficPolicy", external),
        ("allocateLoadBalancerNodePorts", balanced),
        ("loadBalancerClass", balanced),
        ("internalTrafficPolicy", needs_cluster_ip),
        ("externalName", |spec| text(spec, "type") == "ExternalName"),
    ];
    for (key, needed) in rules {
        if needed(old) && !needed(spec) && unchanged(spec, key) {
            spec.remove(key);
        }
    }
}
