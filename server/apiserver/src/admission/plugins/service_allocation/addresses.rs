//! The cluster addresses of a Service.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};
use trireme_api::field::{FieldError, FieldErrors, FieldPath};
use trireme_api::meta;

use super::ranges::Ranges;
use crate::storage::keys;

/// The addresses that a Service holds.
pub(super) fn held(service: &Value) -> Vec<Ipv4Addr> {
    if !wants_ip(service) {
        return Vec::new();
    }
    let mut ips: Vec<Ipv4Addr> =
        meta::list_at(service, &["spec", "clusterIPs"]).iter().filter_map(|ip| ip.as_str()?.parse().ok()).collect();
    if let Ok(ip) = cluster_ip(service).parse()
        && !ips.contains(&ip)
    {
        ips.push(ip);
    }
    ips
}

/// Gives the Service an address, or checks the one that it asks for.
pub(super) fn settle(
    ranges: &Ranges,
    service: &mut Value,
    existing: Option<&Value>,
    taken: &impl Fn(&str) -> bool,
    errors: &mut FieldErrors,
) {
    if !wants_ip(service) {
        forget_unchanged(service, existing);
        return;
    }
    let before = existing.filter(|e| wants_ip(e));
    // A headless or allocated Service keeps its address when a client leaves it out.
    if let Some(before) = before.map(cluster_ip).filter(|ip| !ip.is_empty() && cluster_ip(service).is_empty()) {
        set_ip(service, before);
    }
    if cluster_ip(service).is_empty() {
        let first = meta::list_at(service, &["spec", "clusterIPs"]).first().and_then(Value::as_str).unwrap_or_default().to_owned();
        set_ip(service, &first);
    }
    let chosen = cluster_ip(service).to_owned();
    let old = before.map(held).unwrap_or_default();
    let path = FieldPath::new("spec").child("clusterIPs");
    let refuse = |why: &str| FieldError::invalid(&path, json!([chosen]), format!("failed to allocate IP {chosen}: {why}"));
    let is_taken = |ip: Ipv4Addr| taken(&keys::service_ip(IpAddr::V4(ip)));
    match chosen.as_str() {
        "" => match ranges.pick_ip(is_taken) {
            Some(ip) => set_ip(service, &ip.to_string()),
            None => errors.push(FieldError::internal(&FieldPath::new("spec").child("clusterIP"), "range is full")),
        },
        "None" => set_ip(service, "None"),
        _ => match chosen.parse::<Ipv4Addr>() {
            Ok(ip) if old.contains(&ip) => set_ip(service, &chosen),
            Ok(ip) if !ranges.holds(ip) => errors.push(refuse("the provided network does not match the current range")),
            Ok(ip) if is_taken(ip) => errors.push(refuse("provided IP is already allocated")),
            // Validation says what is wrong with one that is no address.
            _ => set_ip(service, &chosen),
        },
    }
    families(service);
}

/// A Service that becomes an ExternalName has no addresses; what its client did not touch goes.
fn forget_unchanged(service: &mut Value, existing: Option<&Value>) {
    let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) else { return };
    for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if existing.is_some_and(|e| e["spec"].get(key) == spec.get(key)) {
            spec.remove(key);
        }
    }
}

fn cluster_ip(service: &Value) -> &str {
    meta::str_at(service, &["spec", "clusterIP"])
}

fn wants_ip(service: &Value) -> bool {
    service.is_object() && super::service_type(service) != "ExternalName"
}

fn set_ip(service: &mut Value, ip: &str) {
    let spec = meta::map_at(service, "spec");
    spec.insert("clusterIP".to_owned(), json!(ip));
    spec.insert("clusterIPs".to_owned(), json!([ip]));
}

fn families(service: &mut Value) {
    let headless_external = cluster_ip(service) == "None"
        && meta::get(service, &["spec", "selector"]).is_none_or(|s| s.as_object().is_none_or(serde_json::Map::is_empty));
    let spec = meta::map_at(service, "spec");
    let empty = |v: Option<&Value>| v.is_none_or(|v| v.is_null() || v == "" || v.as_array().is_some_and(Vec::is_empty));
    if empty(spec.get("ipFamilyPolicy")) {
        spec.insert("ipFamilyPolicy".to_owned(), json!(if headless_external { "RequireDualStack" } else { "SingleStack" }));
    }
    if empty(spec.get("ipFamilies")) {
        spec.insert("ipFamilies".to_owned(), if headless_external { json!(["IPv4", "IPv6"]) } else { json!(["IPv4"]) });
    }
}
