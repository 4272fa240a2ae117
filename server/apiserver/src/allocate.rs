//! Service addresses and node ports, allocated inside the Service's own transaction.
//!
//! An address is taken by a key of its own; the compare "nobody has it" joins the transaction that writes the Service, so
//! neither can exist without the other and no repair loop is needed. Dynamic allocation prefers the upper part of each
//! range and leaves the lower one to those who choose (KEP-3070, KEP-3668).

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use rand::Rng;
use serde_json::{Value, json};
use trireme_api::field::{FieldError, FieldErrors, FieldPath};
use trireme_api::meta;

use crate::admission_request::AdmissionEffects;
use crate::error::Answer;
use crate::keys;
use crate::registry::pipeline::Mutation;
use crate::rows::Row;

/// Random picks before the range is searched from its start.
const RANDOM_PICKS: usize = 32;

/// The ranges that Services draw from.
#[derive(Clone, Debug)]
pub struct Ranges {
    /// Cluster addresses.
    pub service_cidr: Ipv4Net,
    /// First and last node port.
    pub node_ports: (u16, u16),
}

impl Default for Ranges {
    fn default() -> Ranges {
        Ranges {
            service_cidr: Ipv4Net::new(Ipv4Addr::new(10, 43, 0, 0), 16).expect("invariant: 16 is a prefix length"),
            node_ports: (30000, 32767),
        }
    }
}

impl Ranges {
    fn first_ip(&self) -> u32 {
        u32::from(self.service_cidr.network()) + 1
    }

    fn last_ip(&self) -> u32 {
        u32::from(self.service_cidr.broadcast()).saturating_sub(1).max(self.first_ip())
    }

    /// The address of the `kubernetes` Service.
    pub fn kubernetes_ip(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.first_ip())
    }

    fn holds(&self, ip: Ipv4Addr) -> bool {
        (self.first_ip()..=self.last_ip()).contains(&u32::from(ip))
    }
}

/// Size of the part of a range of `size` that dynamic allocation leaves alone while it can.
fn static_band(size: u32, low: u32, high: u32, step: u32) -> u32 {
    if size <= low { 0 } else { (size / step).clamp(low, high) }
}

fn is_service(row: &Row) -> bool {
    row.group().is_empty() && row.plural() == "services"
}

fn service_type(service: &Value) -> &str {
    meta::str_at(service, &["spec", "type"])
}

fn has_node_ports(service: &Value) -> bool {
    match service_type(service) {
        "NodePort" => true,
        "LoadBalancer" => meta::get(service, &["spec", "allocateLoadBalancerNodePorts"]) != Some(&Value::Bool(false)),
        _ => false,
    }
}

fn cluster_ip(service: &Value) -> &str {
    meta::str_at(service, &["spec", "clusterIP"])
}

fn wants_ip(service: &Value) -> bool {
    service_type(service) != "ExternalName"
}

/// The addresses that a Service holds.
fn held_ips(service: &Value) -> Vec<Ipv4Addr> {
    let mut ips: Vec<Ipv4Addr> =
        meta::list_at(service, &["spec", "clusterIPs"]).iter().filter_map(|ip| ip.as_str()?.parse().ok()).collect();
    if let Ok(ip) = cluster_ip(service).parse()
        && !ips.contains(&ip)
    {
        ips.push(ip);
    }
    ips
}

/// The node ports that a Service holds, health check included.
fn held_ports(service: &Value) -> Vec<(String, u16)> {
    let port = |value: Option<&Value>| value.and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0);
    let mut held: Vec<(String, u16)> = Vec::new();
    for entry in meta::list_at(service, &["spec", "ports"]) {
        if let Some(port) = port(entry.get("nodePort")) {
            let key = (entry.get("protocol").and_then(Value::as_str).unwrap_or("TCP").to_owned(), port);
            if !held.contains(&key) {
                held.push(key);
            }
        }
    }
    if let Some(port) = port(meta::get(service, &["spec", "healthCheckNodePort"])) {
        held.push(("TCP".to_owned(), port));
    }
    held
}

/// Allocates for a new object. Only Services need anything.
pub fn create(mutation: &Mutation<'_>, service: &mut Value, effects: &mut AdmissionEffects) -> Answer<()> {
    if is_service(mutation.row) { settle(mutation, service, None, effects) } else { Ok(()) }
}

/// Allocates and frees for a changed object.
pub fn update(mutation: &Mutation<'_>, service: &mut Value, existing: &Value, effects: &mut AdmissionEffects) -> Answer<()> {
    if is_service(mutation.row) { settle(mutation, service, Some(existing), effects) } else { Ok(()) }
}

/// Frees everything that a removed object held.
pub fn delete(service: &Value, row: &Row, effects: &mut AdmissionEffects) {
    if !is_service(row) {
        return;
    }
    for ip in held_ips(service) {
        effects.ops.push(keys::delete(&keys::service_ip(IpAddr::V4(ip))));
    }
    for (protocol, port) in held_ports(service) {
        effects.ops.push(keys::delete(&keys::node_port(&protocol, port)));
    }
}

fn settle(mutation: &Mutation<'_>, service: &mut Value, existing: Option<&Value>, effects: &mut AdmissionEffects) -> Answer<()> {
    let ranges = &mutation.server.options.ranges;
    let owner = format!("{}/{}", meta::namespace(service), meta::name(service));
    let taken = |key: &str| mutation.server.registry.store.range(&keys::get(key)).is_ok_and(|r| !r.kvs.is_empty());
    let take = |effects: &mut AdmissionEffects, key: &str| {
        effects.compares.push(keys::unchanged(key, 0));
        effects.ops.push(keys::put(key, owner.clone(), 0));
    };
    let mut errors = FieldErrors::new();

    // What stays is carried over; a headless or allocated Service keeps its address when a client leaves it out.
    if let Some(existing) = existing
        && wants_ip(service)
        && wants_ip(existing)
        && cluster_ip(service).is_empty()
        && !cluster_ip(existing).is_empty()
    {
        set_ip(service, cluster_ip(existing));
    }
    let old_ips = existing.filter(|e| wants_ip(e)).map(held_ips).unwrap_or_default();
    if wants_ip(service) {
        if cluster_ip(service).is_empty() {
            let from_list = meta::list_at(service, &["spec", "clusterIPs"]).first().and_then(Value::as_str).map(str::to_owned);
            match from_list {
                Some(ip) if !ip.is_empty() => set_ip(service, &ip),
                _ => match pick_ip(ranges, |ip| taken(&keys::service_ip(IpAddr::V4(ip)))) {
                    Some(ip) => {
                        set_ip(service, &ip.to_string());
                        take(effects, &keys::service_ip(IpAddr::V4(ip)));
                    }
                    None => errors.push(FieldError::internal(&FieldPath::new("spec").child("clusterIP"), "range is full")),
                },
            }
        }
        let chosen = cluster_ip(service).to_owned();
        if chosen != "None" && !effects.ops.iter().any(|op| puts(op, &chosen)) {
            set_ip(service, &chosen);
            let path = FieldPath::new("spec").child("clusterIPs");
            let refuse = |why: &str| FieldError::invalid(&path, json!([chosen]), format!("failed to allocate IP {chosen}: {why}"));
            match chosen.parse::<Ipv4Addr>() {
                Ok(ip) if old_ips.contains(&ip) => {}
                Ok(ip) if !ranges.holds(ip) => errors.push(refuse("the provided network does not match the current range")),
                Ok(ip) if taken(&keys::service_ip(IpAddr::V4(ip))) => errors.push(refuse("provided IP is already allocated")),
                Ok(ip) => take(effects, &keys::service_ip(IpAddr::V4(ip))),
                // Validation says what is wrong with it.
                Err(_) => {}
            }
        } else if chosen == "None" {
            set_ip(service, "None");
        }
        families(service);
    } else if let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if existing.is_some_and(|e| e["spec"].get(key) == spec.get(key)) {
                spec.remove(key);
            }
        }
    }
    let new_ips = if wants_ip(service) { held_ips(service) } else { Vec::new() };
    for ip in old_ips.iter().filter(|ip| !new_ips.contains(ip)) {
        effects.ops.push(keys::delete(&keys::service_ip(IpAddr::V4(*ip))));
    }

    settle_ports(ranges, service, existing, effects, &taken, &take, &mut errors);
    mutation.refuse_invalid(meta::name(service), errors)
}

#[allow(clippy::too_many_arguments)]
fn settle_ports(
    ranges: &Ranges,
    service: &mut Value,
    existing: Option<&Value>,
    effects: &mut AdmissionEffects,
    taken: &impl Fn(&str) -> bool,
    take: &impl Fn(&mut AdmissionEffects, &str),
    errors: &mut FieldErrors,
) {
    let old: Vec<(String, u16)> = existing.map(held_ports).unwrap_or_default();
    let wanted = has_node_ports(service);
    let mut mine: HashSet<(String, u16)> = HashSet::new();
    let carried: Vec<Value> = existing.map(|e| meta::list_at(e, &["spec", "ports"]).to_vec()).unwrap_or_default();
    let kept_type = existing.is_some_and(has_node_ports);
    let service_kind = service_type(service).to_owned();
    let ports = service.pointer_mut("/spec/ports").and_then(Value::as_array_mut);
    for (index, entry) in ports.into_iter().flatten().enumerate() {
        let protocol = entry.get("protocol").and_then(Value::as_str).unwrap_or("TCP").to_owned();
        let path = FieldPath::new("spec").child("ports").index(index).child("nodePort");
        let given = entry.get("nodePort").and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok()).unwrap_or(0);
        // A load balancer that asks for no node ports may still name one, which is then reserved as any other.
        let named = given != 0 && service_kind == "LoadBalancer";
        if !wanted && !named {
            // A type without node ports drops those that it had; a new one there is for validation to refuse.
            if given != 0
                && old.contains(&(protocol.clone(), given))
                && kept_type
                && let Some(entry) = entry.as_object_mut()
            {
                entry.remove("nodePort");
            }
            continue;
        }
        let mut port = given;
        if port == 0 && kept_type {
            // The same port and protocol keep their node port.
            port = carried
                .iter()
                .find(|c| c.get("port") == entry.get("port") && c.get("protocol").and_then(Value::as_str).unwrap_or("TCP") == protocol)
                .and_then(|c| c.get("nodePort")?.as_u64())
                .and_then(|p| u16::try_from(p).ok())
                .filter(|p| !mine.contains(&(protocol.clone(), *p)))
                .unwrap_or(0);
        }
        if port == 0 {
            let free = |p: u16| !mine.contains(&(protocol.clone(), p)) && !taken(&keys::node_port(&protocol, p));
            match pick_port(ranges, free) {
                Some(found) => {
                    port = found;
                    take(effects, &keys::node_port(&protocol, port));
                }
                None => {
                    errors.push(FieldError::internal(&path, "failed to allocate a nodePort: range is full"));
                    continue;
                }
            }
        } else if !mine.contains(&(protocol.clone(), port)) && !old.contains(&(protocol.clone(), port)) {
            let (low, high) = ranges.node_ports;
            if !(low..=high).contains(&port) {
                errors.push(FieldError::invalid(
                    &path,
                    port,
                    format!("provided port is not in the valid range. The range of valid ports is {low}-{high}"),
                ));
                continue;
            }
            let key = keys::node_port(&protocol, port);
            if taken(&key) {
                errors.push(FieldError::invalid(&path, port, "provided port is already allocated"));
                continue;
            }
            take(effects, &key);
        }
        mine.insert((protocol, port));
        if let Some(entry) = entry.as_object_mut() {
            entry.insert("nodePort".to_owned(), port.into());
        }
    }
    settle_health_port(ranges, service, existing, effects, taken, take, errors);
    let now = held_ports(service);
    for (protocol, port) in old.iter().filter(|held| !now.contains(held)) {
        effects.ops.push(keys::delete(&keys::node_port(protocol, *port)));
    }
}

/// `externalTrafficPolicy: Local` on a load balancer needs a port for its health checks.
fn settle_health_port(
    ranges: &Ranges,
    service: &mut Value,
    existing: Option<&Value>,
    effects: &mut AdmissionEffects,
    taken: &impl Fn(&str) -> bool,
    take: &impl Fn(&mut AdmissionEffects, &str),
    errors: &mut FieldErrors,
) {
    let needs = service_type(service) == "LoadBalancer" && meta::str_at(service, &["spec", "externalTrafficPolicy"]) == "Local";
    let path = FieldPath::new("spec").child("healthCheckNodePort");
    let given = meta::i64_at(service, &["spec", "healthCheckNodePort"]).and_then(|p| u16::try_from(p).ok()).unwrap_or(0);
    let old = existing.and_then(|e| meta::i64_at(e, &["spec", "healthCheckNodePort"])).and_then(|p| u16::try_from(p).ok()).unwrap_or(0);
    if !needs {
        if given != 0
            && given == old
            && let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut)
        {
            spec.remove("healthCheckNodePort");
        }
        return;
    }
    let port = if given != 0 { given } else { old };
    let port = if port == 0 {
        let used: Vec<u16> = held_ports(service).into_iter().map(|(_, p)| p).collect();
        match pick_port(ranges, |p| !used.contains(&p) && !taken(&keys::node_port("TCP", p))) {
            Some(port) => {
                take(effects, &keys::node_port("TCP", port));
                port
            }
            None => return errors.push(FieldError::internal(&path, "failed to allocate a nodePort: range is full")),
        }
    } else {
        if port != old {
            let key = keys::node_port("TCP", port);
            if taken(&key) {
                return errors.push(FieldError::invalid(&path, port, "provided port is already allocated"));
            }
            take(effects, &key);
        }
        port
    };
    meta::map_at(service, "spec").insert("healthCheckNodePort".to_owned(), port.into());
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

fn puts(op: &trireme_proto::etcd::RequestOp, ip: &str) -> bool {
    use trireme_proto::etcd::request_op::Request;
    let key = format!("/registry-alloc/ip/{ip}");
    matches!(&op.request, Some(Request::RequestPut(put)) if put.key == key.as_bytes())
}

fn pick_ip(ranges: &Ranges, taken: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
    let (first, last) = (ranges.first_ip(), ranges.last_ip());
    let band = static_band(last - first + 1, 16, 256, 16);
    pick(first, last, band, |n| !taken(Ipv4Addr::from(n))).map(Ipv4Addr::from)
}

fn pick_port(ranges: &Ranges, free: impl Fn(u16) -> bool) -> Option<u16> {
    let (low, high) = (u32::from(ranges.node_ports.0), u32::from(ranges.node_ports.1));
    let band = static_band(high - low + 1, 16, 128, 32);
    pick(low, high, band, |n| u16::try_from(n).is_ok_and(&free)).and_then(|n| u16::try_from(n).ok())
}

/// A free number: at random above the band, then in order above it, then in the band.
fn pick(first: u32, last: u32, band: u32, free: impl Fn(u32) -> bool) -> Option<u32> {
    let start = first + band;
    if start <= last {
        for _ in 0..RANDOM_PICKS {
            let n = rand::rng().random_range(start..=last);
            if free(n) {
                return Some(n);
            }
        }
    }
    (start..=last).chain(first..start.min(last + 1)).find(|n| free(*n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_and_exhaustion() {
        assert_eq!((static_band(65534, 16, 256, 16), static_band(254, 16, 256, 16), static_band(14, 16, 256, 16)), (256, 16, 0));
        assert_eq!(static_band(2768, 16, 128, 32), 86);
        let ranges = Ranges { service_cidr: "10.0.0.0/29".parse().unwrap(), node_ports: (30000, 30002) };
        let mut used: HashSet<Ipv4Addr> = HashSet::new();
        while let Some(ip) = pick_ip(&ranges, |ip| used.contains(&ip)) {
            assert!(ranges.holds(ip) && used.insert(ip));
        }
        assert_eq!(used.len(), 6);
        assert_eq!(pick_port(&ranges, |p| p == 30001), Some(30001));
        assert_eq!(pick_port(&ranges, |_| false), None);
    }
}
