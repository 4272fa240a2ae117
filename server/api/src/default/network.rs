//! Defaults of Service, Endpoints, EndpointSlice and networking.k8s.io.

use serde_json::{Value, json};

use super::walk::{Lit::*, Row, each, fill, set, text, unset};

pub(super) fn apply(kind: &str, object: &mut Value) {
    match kind {
        "Service" => service(object),
        "Endpoints" => fill(object, &[Row("subsets[].ports[]", "protocol", S("TCP"))]),
        "EndpointSlice" => fill(object, &[Row("ports[]", "name", Empty), Row("ports[]", "protocol", S("TCP"))]),
        "IngressClass" => fill(object, &[Row("spec.parameters", "scope", S("Cluster"))]),
        "NetworkPolicy" => network_policy(object),
        _ => {}
    }
}

fn service(object: &mut Value) {
    fill(
        object,
        &[
            Row("spec", "sessionAffinity", S("None")),
            Row("spec", "type", S("ClusterIP")),
            Row("spec.ports[]", "protocol", S("TCP")),
            Row("status.loadBalancer.ingress[]", "ipMode", S("VIP")),
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

fn network_policy(object: &mut Value) {
    fill(object, &[Row("spec.ingress[].ports[]", "protocol", S("TCP")), Row("spec.egress[].ports[]", "protocol", S("TCP"))]);
    each(object, "spec", &mut |spec| {
        if unset(spec, "policyTypes") {
            let types = if unset(spec, "egress") { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
            spec.insert("policyTypes".to_owned(), types);
        }
    });
}
