//! Services in quotas. Upstream: `pkg/quota/v1/evaluator/core/services.go`.

use serde_json::Value;

use super::{Amounts, whole};
use crate::meta;

const NAMES: [&str; 4] = ["count/services", "services", "services.nodeports", "services.loadbalancers"];

pub(super) fn has(name: &str) -> bool {
    NAMES.contains(&name)
}

pub(super) fn usage(service: &Value) -> Amounts {
    let ports = meta::list_at(service, &["spec", "ports"]);
    let with_node_port = || ports.iter().filter(|port| meta::i64_at(port, &["nodePort"]).unwrap_or(0) != 0).count();
    // Ports of nodes may not be allocated yet: what counts is that they will be.
    let (node_ports, balancers) = match meta::str_at(service, &["spec", "type"]) {
        "NodePort" => (ports.len(), 0),
        "LoadBalancer" if service.pointer("/spec/allocateLoadBalancerNodePorts") == Some(&Value::Bool(false)) => (with_node_port(), 1),
        "LoadBalancer" => (ports.len(), 1),
        _ => (0, 0),
    };
    let node_ports = i64::try_from(node_ports).unwrap_or(i64::MAX);
    NAMES.into_iter().zip([1, 1, node_ports, balancers]).map(|(name, number)| (name.to_owned(), whole(number))).collect()
}
