//! The node ports of a Service, the one of its health check included.

use std::collections::HashMap;

use serde_json::Value;
use trireme_api::field::{FieldError, FieldErrors, FieldPath};
use trireme_api::meta;

use super::ranges::Ranges;
use crate::storage::keys;

/// Transport protocols of Services.
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
const TAKEN: &str = "provided port is already allocated";
const FULL: &str = "failed to allocate a nodePort: range is full";

/// The node ports that a Service holds, each with its protocol.
pub(super) fn held(service: &Value) -> Vec<(String, u16)> {
    let mut held: Vec<(String, u16)> = Vec::new();
    let entries = meta::list_at(service, &["spec", "ports"]);
    let named = entries.iter().map(|entry| (protocol(entry).to_owned(), node_port(entry)));
    let health = ("TCP".to_owned(), number(meta::get(service, &["spec", "healthCheckNodePort"])));
    for port in named.chain([health]) {
        if port.1 != 0 && !held.contains(&port) {
            held.push(port);
        }
    }
    held
}

/// The numbers of those ports.
pub(super) fn numbers(service: &Value) -> Vec<u16> {
    let mut numbers: Vec<u16> = held(service).into_iter().map(|(_, port)| port).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// All keys under which a number may be held.
pub(super) fn keys(port: u16) -> [String; 3] {
    PROTOCOLS.map(|protocol| keys::node_port(protocol, port))
}

/// Gives the Service the node ports that its type asks for, and checks those that it names.
pub(super) fn settle(
    ranges: &Ranges,
    service: &mut Value,
    existing: Option<&Value>,
    taken: &impl Fn(&str) -> bool,
    errors: &mut FieldErrors,
) {
    let mut own = Own { ranges, taken, old: existing.map(numbers).unwrap_or_default(), new: Vec::new() };
    if let Some(existing) = existing {
        carry_over(service, existing);
    }
    let (possible, wanted) = (needs_node_ports(service), has_node_ports(service));
    // A port number that is given to one protocol is given to the others of the same port, too.
    let mut by_port: HashMap<i64, u16> = HashMap::new();
    let on_create = existing.is_none();
    let entries = service.pointer_mut("/spec/ports").and_then(Value::as_array_mut);
    let mut none = Vec::new();
    let entries = entries.unwrap_or(&mut none);
    let requested: Vec<(i64, u16)> = entries.iter().map(|entry| (port_of(entry), node_port(entry))).collect();
    for (index, entry) in entries.iter_mut().enumerate() {
        let path = FieldPath::new("spec").child("ports").index(index).child("nodePort");
        let given = node_port(entry);
        // Where the type has no node ports, validation refuses one that is named.
        if !possible || (given == 0 && !wanted) {
            continue;
        }
        let port = port_of(entry);
        let shared = if on_create { by_port.get(&port).copied() } else { None };
        let asked = match (given, shared) {
            (0, Some(shared)) => shared,
            (0, None) if on_create => requested.iter().find(|(p, n)| *p == port && *n != 0).map_or(0, |(_, n)| *n),
            (given, _) => given,
        };
        let number = match asked {
            0 => own.pick(),
            number if shared == Some(number) => Ok(number),
            number => own.claim(number, on_create && by_port.values().any(|n| *n == number)),
        };
        match number {
            Ok(number) => {
                by_port.entry(port).or_insert(number);
                if let Some(entry) = entry.as_object_mut() {
                    entry.insert("nodePort".to_owned(), number.into());
                }
            }
            Err(why) if asked == 0 => errors.push(FieldError::internal(&path, why)),
            Err(why) => errors.push(FieldError::invalid(&path, asked, why)),
        }
    }
    settle_health_port(service, existing, &mut own, errors);
}

/// Numbers during one allocation: whose they are, and which are free.
struct Own<'a, F> {
    ranges: &'a Ranges,
    taken: &'a F,
    old: Vec<u16>,
    new: Vec<u16>,
}

impl<F: Fn(&str) -> bool> Own<'_, F> {
    fn is_free(&self, port: u16) -> bool {
        !self.new.contains(&port) && !self.old.contains(&port) && !keys(port).iter().any(|key| (self.taken)(key))
    }

    /// A free number.
    fn pick(&mut self) -> Result<u16, String> {
        let port = self.ranges.pick_port(|port| self.is_free(port)).ok_or(FULL)?;
        self.new.push(port);
        Ok(port)
    }

    /// A number that the client names.
    fn claim(&mut self, port: u16, given_to_another_port: bool) -> Result<u16, String> {
        if given_to_another_port {
            return Err(TAKEN.to_owned());
        }
        if self.old.contains(&port) || self.new.contains(&port) {
            return Ok(port);
        }
        let (low, high) = self.ranges.node_ports;
        if !(low..=high).contains(&port) {
            return Err(format!("provided port is not in the valid range. The range of valid ports is {low}-{high}"));
        }
        if !self.is_free(port) {
            return Err(TAKEN.to_owned());
        }
        self.new.push(port);
        Ok(port)
    }
}

/// Keeps the node ports that a client omits: ports are matched by their names. A Service of a type without node ports loses them.
fn carry_over(service: &mut Value, existing: &Value) {
    let (had, has) = (needs_node_ports(existing), needs_node_ports(service));
    let old = meta::list_at(existing, &["spec", "ports"]);
    let kept: Vec<u16> = {
        let new: Vec<u16> = meta::list_at(service, &["spec", "ports"]).iter().map(node_port).collect();
        old.iter().map(node_port).filter(|n| *n != 0 && new.contains(n)).collect()
    };
    for entry in service.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let given = node_port(entry);
        let name = entry.get("name").and_then(Value::as_str).unwrap_or_default();
        if has && had && given == 0 {
            let same = old.iter().find(|o| o.get("name").and_then(Value::as_str).unwrap_or_default() == name).map_or(0, node_port);
            if same != 0
                && !kept.contains(&same)
                && let Some(entry) = entry.as_object_mut()
            {
                entry.insert("nodePort".to_owned(), same.into());
            }
        } else if had && !has && given != 0 {
            let unchanged = old.iter().any(|o| node_port(o) == given && protocol(o) == protocol(entry));
            if unchanged && let Some(entry) = entry.as_object_mut() {
                entry.remove("nodePort");
            }
        }
    }
}

/// `externalTrafficPolicy: Local` on a load balancer needs a port for its health checks.
fn settle_health_port<F: Fn(&str) -> bool>(service: &mut Value, existing: Option<&Value>, own: &mut Own<'_, F>, errors: &mut FieldErrors) {
    let path = FieldPath::new("spec").child("healthCheckNodePort");
    let of = |service: &Value| number(meta::get(service, &["spec", "healthCheckNodePort"]));
    let (given, old) = (of(service), existing.map_or(0, of));
    let needs = super::service_type(service) == "LoadBalancer" && meta::str_at(service, &["spec", "externalTrafficPolicy"]) == "Local";
    if !needs {
        if given != 0
            && given == old
            && let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut)
        {
            spec.remove("healthCheckNodePort");
        }
        return;
    }
    let asked = if given != 0 { given } else { old };
    let number = if asked == 0 {
        own.pick()
    } else {
        let used_by_a_port = meta::list_at(service, &["spec", "ports"]).iter().any(|entry| node_port(entry) == asked);
        own.claim(asked, used_by_a_port)
    };
    match number {
        Ok(number) => {
            meta::map_at(service, "spec").insert("healthCheckNodePort".to_owned(), number.into());
        }
        Err(why) if asked == 0 => errors.push(FieldError::internal(&path, why)),
        Err(why) => errors.push(FieldError::invalid(&path, asked, why)),
    }
}

/// Types that can have node ports.
fn needs_node_ports(service: &Value) -> bool {
    matches!(super::service_type(service), "NodePort" | "LoadBalancer")
}

/// Whether ports that name no node port get one.
fn has_node_ports(service: &Value) -> bool {
    match super::service_type(service) {
        "NodePort" => true,
        "LoadBalancer" => meta::get(service, &["spec", "allocateLoadBalancerNodePorts"]) != Some(&Value::Bool(false)),
        _ => false,
    }
}

fn number(value: Option<&Value>) -> u16 {
    value.and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok()).unwrap_or(0)
}

fn node_port(entry: &Value) -> u16 {
    number(entry.get("nodePort"))
}

fn port_of(entry: &Value) -> i64 {
    entry.get("port").and_then(Value::as_i64).unwrap_or(0)
}

fn protocol(entry: &Value) -> &str {
    entry.get("protocol").and_then(Value::as_str).filter(|text| !text.is_empty()).unwrap_or("TCP")
}
