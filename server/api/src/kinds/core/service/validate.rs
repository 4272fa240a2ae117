//! Validation of Services. Upstream: `ValidateService` and `ValidateServiceUpdate`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::kinds::core::pod::handler;
use crate::names;
use crate::validate::{At, metadata, net};

fn headless(spec: &At<'_>) -> bool {
    spec.at("clusterIPs").strings() == ["None"] || (spec.at("clusterIPs").is_empty() && spec.at("clusterIP").text() == "None")
}

/// `type` and `externalIPs` decide whether a Service is reached from outside.
fn external(spec: &At<'_>) -> bool {
    match spec.at("type").text() {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => !spec.at("externalIPs").is_empty(),
        _ => false,
    }
}

/// Whether a load balancer asks each node if it has endpoints.
fn needs_health_check(spec: &At<'_>) -> bool {
    spec.at("type").text() == "LoadBalancer" && spec.at("externalTrafficPolicy").text() == "Local"
}

pub(crate) fn service(object: &At<'_>) {
    let spec = object.at("spec");
    let kind = spec.at("type").text();
    let ports = spec.at("ports");
    if ports.is_empty() && !headless(&spec) && kind != "ExternalName" {
        ports.required("");
    }
    by_type(&spec, kind);
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        service_port(&port, ports.len() > 1, &mut seen);
    }
    metadata::labels(&spec.at("selector"));
    session_affinity(&spec);
    cluster_ips(&spec);
    for address in spec.at("externalIPs").items() {
        if address.text().parse::<IpAddr>().is_err() {
            net::ip(&address);
        } else {
            net::not_special(&address);
        }
    }
    spec.at("type").one_of(&["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    port_numbers(&spec, kind);
    load_balancer(object, &spec, kind);
    traffic_policies(&spec);
}

fn by_type(spec: &At<'_>, kind: &str) {
    match kind {
        "LoadBalancer" | "NodePort" if headless(spec) => {
            let ips = spec.at("clusterIPs");
            ips.named(ips.path.index(0)).invalid_as("None", format!("may not be set to 'None' for {kind} services"));
        }
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if spec.at(field).is_full() {
                    spec.at(field).forbidden("may not be set for ExternalName services");
                }
            }
            let name = spec.at("externalName");
            let bare = name.text().strip_suffix('.').unwrap_or(name.text());
            if bare.is_empty() {
                name.required("");
            } else {
                names::is_dns1123_subdomain(bare).into_iter().for_each(|message| name.invalid_as(bare, message));
            }
        }
        _ => {}
    }
}

fn service_port<'a>(port: &At<'a>, name_required: bool, seen: &mut BTreeSet<&'a str>) {
    let name = port.at("name");
    if name.text().is_empty() {
        if name_required {
            name.required("");
        }
    } else {
        name.obeys(names::is_dns1123_label);
        if !seen.insert(name.text()) {
            name.duplicate();
        }
    }
    let number = port.at("port");
    let value = number.int().unwrap_or(0);
    names::is_port_num(value).into_iter().for_each(|message| number.invalid_as(value, message));
    port.at("protocol").one_of(&["SCTP", "TCP", "UDP"]);
    handler::port(&port.at("targetPort"));
    if port.at("appProtocol").is_set() {
        port.at("appProtocol").obeys(names::is_qualified_name);
    }
}

fn session_affinity(spec: &At<'_>) {
    const MAX_SECS: i64 = 86_400;
    spec.at("sessionAffinity").one_of(&["ClientIP", "None"]);
    let config = spec.at("sessionAffinityConfig");
    match spec.at("sessionAffinity").text() {
        "ClientIP" => {
            let (client, timeout) = (config.at("clientIP"), config.at("clientIP").at("timeoutSeconds"));
            for part in [&config, &client, &timeout] {
                if !part.is_set() {
                    part.required("when session affinity type is ClientIP");
                    return;
                }
            }
            if !(1..=MAX_SECS).contains(&timeout.int().unwrap_or(0)) {
                timeout.invalid(format!("must be greater than 0 and less than {MAX_SECS}"));
            }
        }
        "None" if config.is_set() => config.forbidden("must not be set when session affinity is None"),
        _ => {}
    }
}

fn is_v6(address: &str) -> bool {
    address.contains(':')
}

/// clusterIP, clusterIPs, families and policy agree with each other. The addresses themselves are allocated elsewhere.
pub(crate) fn cluster_ips(spec: &At<'_>) {
    if spec.at("type").text() == "ExternalName" {
        return;
    }
    let (one, all, families) = (spec.at("clusterIP"), spec.at("clusterIPs"), spec.at("ipFamilies"));
    let addresses = all.strings();
    if one.is_full() {
        if addresses.is_empty() {
            all.required("");
        } else if addresses[0] != one.text() {
            all.invalid("first value must match `clusterIP`");
        }
    } else if !addresses.is_empty() {
        all.invalid("must be empty when `clusterIP` is not specified");
    }
    let mut seen = BTreeSet::new();
    for family in families.items() {
        if !matches!(family.text(), "IPv4" | "IPv6") {
            family.not_supported(&["IPv4", "IPv6"]);
        }
        if !seen.insert(family.text()) {
            family.duplicate();
        }
    }
    if spec.at("ipFamilyPolicy").is_set() {
        let policy = spec.at("ipFamilyPolicy");
        if !matches!(policy.text(), "PreferDualStack" | "RequireDualStack" | "SingleStack") {
            policy.not_supported(&["PreferDualStack", "RequireDualStack", "SingleStack"]);
        }
    }
    let mut malformed = false;
    for (index, address) in all.items().enumerate() {
        if index == 0 && address.text() == "None" {
            if addresses.len() > 1 {
                malformed = true;
                all.invalid("'None' must be the first and only value");
            }
            continue;
        }
        if address.text().parse::<IpAddr>().is_err() {
            malformed = true;
            net::ip(&address);
        }
    }
    if addresses.len() > 2 {
        all.invalid("may only hold up to 2 values");
    }
    if malformed {
        return;
    }
    if addresses.len() > 1 && addresses.iter().all(|address| is_v6(address) == is_v6(addresses[0])) {
        all.invalid("may specify no more than one IP for each IP family");
    }
    if headless(spec) {
        return;
    }
    for (index, (address, family)) in all.items().zip(families.strings()).enumerate() {
        if (family == "IPv6") != is_v6(address.text()) {
            address.invalid(format!("expected an {family} value as indicated by `ipFamilies[{index}]`"));
        }
    }
}

fn port_numbers(spec: &At<'_>, kind: &str) {
    let (mut node_ports, mut ports) = (BTreeSet::new(), BTreeSet::new());
    let list: Vec<At<'_>> = spec.at("ports").items().collect();
    let node_port = |port: &At<'_>| port.at("nodePort").int().unwrap_or(0);
    if kind == "ClusterIP" {
        for port in list.iter().filter(|port| node_port(port) != 0) {
            port.at("nodePort").forbidden("may not be used when `type` is 'ClusterIP'");
        }
    }
    for port in list.iter().filter(|port| node_port(port) != 0) {
        if !node_ports.insert((port.at("protocol").text(), node_port(port))) {
            port.at("nodePort").duplicate();
        }
    }
    for port in &list {
        let (protocol, number) = (port.at("protocol").text(), port.at("port").int().unwrap_or(0));
        if !ports.insert((protocol, number)) {
            // Upstream shows its own struct with only these two fields set.
            let mut error = FieldError::duplicate(&port.path, Value::Null);
            error.bad_value = crate::field::BadValue::Omitted;
            error.detail = format!(
                "{{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{number},\"TargetPort\":0,\"NodePort\":0}}",
                json!(protocol)
            );
            port.errors.push(error);
        }
    }
}

fn load_balancer(object: &At<'_>, spec: &At<'_>, kind: &str) {
    let only = "may only be used when `type` is 'LoadBalancer'";
    let ranges = spec.at("loadBalancerSourceRanges").named(spec.path.child("LoadBalancerSourceRanges"));
    if !ranges.is_empty() {
        if kind != "LoadBalancer" {
            ranges.forbidden(only);
        }
        ranges.items().for_each(|range| net::cidr(&range));
    } else {
        const KEY: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
        let annotations = object.at("metadata").at("annotations");
        let note = annotations.at(KEY).named(annotations.path.key(KEY));
        if note.is_set() && kind != "LoadBalancer" {
            note.forbidden(only);
        }
    }
    let allocate = spec.at("allocateLoadBalancerNodePorts");
    if allocate.is_set() && kind != "LoadBalancer" {
        allocate.forbidden(only);
    }
    if kind == "LoadBalancer" && !allocate.is_set() {
        allocate.named(crate::field::FieldPath::new("allocateLoadBalancerNodePorts")).required("");
    }
    let class = spec.at("loadBalancerClass");
    if class.is_set() {
        if kind == "LoadBalancer" {
            class.obeys(names::is_qualified_name);
        } else {
            class.forbidden(only);
        }
    }
}

fn traffic_policies(spec: &At<'_>) {
    let policy = spec.at("externalTrafficPolicy");
    if external(spec) {
        policy.one_of(&["Cluster", "Local"]);
    } else if policy.is_full() {
        policy.invalid("may only be set for externally-accessible services");
    }
    let check = spec.at("healthCheckNodePort");
    let number = check.int().unwrap_or(0);
    if needs_health_check(spec) {
        if number != 0 {
            check.in_range(1, 65_535);
        }
    } else if number != 0 {
        check.invalid("may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'");
    }
    let internal = spec.at("internalTrafficPolicy");
    if internal.is_set() {
        internal.may_be_one_of(&["Cluster", "Local"]);
    } else if spec.at("type").text() != "ExternalName" {
        internal.required("");
    }
    spec.at("trafficDistribution").may_be_one_of(&["PreferClose", "PreferSameNode", "PreferSameZone"]);
}

/// What may not change: the primary address and family, the class of a load balancer.
pub(crate) fn service_update(object: &At<'_>, old: &At<'_>) {
    let (spec, before) = (object.at("spec"), old.at("spec"));
    let external_name = |spec: &At<'_>| spec.at("type").text() == "ExternalName";
    if !external_name(&spec) && !external_name(&before) {
        let both_headless = headless(&spec) && headless(&before);
        if !both_headless {
            kept(&spec, &before, "clusterIPs", "primary clusterIP can not be unset", "secondary clusterIP");
        }
        if !headless(&spec) && !headless(&before) {
            kept(&spec, &before, "ipFamilies", "primary ipFamily can not be unset", "secondary ipFamily");
        }
    }
    let balanced = |spec: &At<'_>| spec.at("type").text() == "LoadBalancer";
    if balanced(&spec) && balanced(&before) && spec.at("loadBalancerClass").value != before.at("loadBalancerClass").value {
        spec.at("loadBalancerClass").invalid_as(spec.at("loadBalancerClass").value.clone(), "may not change once set");
    }
    if needs_health_check(&spec)
        && needs_health_check(&before)
        && spec.at("healthCheckNodePort").value != before.at("healthCheckNodePort").value
    {
        spec.at("healthCheckNodePort").forbidden("field is immutable");
    }
    service(object);
}

fn kept(spec: &At<'_>, before: &At<'_>, field: &str, unset: &str, secondary: &str) {
    let (now, then) = (spec.at(field), before.at(field));
    let (new, old) = (now.strings(), then.strings());
    let changed = |index: usize| now.named(now.path.index(index)).invalid_as(now.value.clone(), "may not change once set");
    if new.len() == old.len() {
        for index in (0..old.len()).filter(|index| old[*index] != new[*index]) {
            changed(if field == "ipFamilies" { 0 } else { index });
        }
        return;
    }
    if old.len() > new.len() {
        if new.is_empty() {
            now.named(now.path.index(0)).invalid_as(now.value.clone(), unset);
        }
        if new.len() == 1 && spec.at("ipFamilyPolicy").text() != "SingleStack" {
            spec.at("ipFamilyPolicy").invalid_as(
                spec.at("ipFamilyPolicy").value.clone(),
                format!("must be set to 'SingleStack' when releasing the {secondary}"),
            );
        }
    }
    if !old.is_empty() && !new.is_empty() && old[0] != new[0] {
        changed(0);
    }
}

/// `status.loadBalancer`.
pub(crate) fn load_balancer_status(object: &At<'_>) {
    let ingress = object.at("status").at("loadBalancer").at("ingress");
    if !ingress.is_empty() && object.at("spec").at("type").text() != "LoadBalancer" {
        ingress.forbidden("may only be used when `spec.type` is 'LoadBalancer'");
        return;
    }
    for point in ingress.items() {
        let (address, mode, host) = (point.at("ip"), point.at("ipMode"), point.at("hostname"));
        if address.is_full() {
            net::ip(&address);
            if !mode.is_set() {
                mode.required("must be specified when `ip` is set");
            }
        } else if mode.is_set() {
            mode.forbidden("may not be specified when `ip` is not set");
        }
        mode.may_be_one_of(&["Proxy", "VIP"]);
        host.may_obey(names::is_dns1123_subdomain);
        if host.text().parse::<IpAddr>().is_ok() {
            host.invalid("must be a DNS name, not an IP address");
        }
    }
}
