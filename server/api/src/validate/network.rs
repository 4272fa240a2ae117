//! networking.k8s.io: NetworkPolicy, Ingress, IngressClass.

use serde_json::Value;

use super::at::{At, same};
use super::service::cidr;
use super::{handler, metadata};
use crate::names;

pub(super) fn network_policy(object: &At<'_>) {
    let spec = object.at("spec");
    metadata::selector(&spec.at("podSelector"));
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.at(direction).items() {
            rule.at("ports").items().for_each(|port| policy_port(&port));
            rule.at(peers).items().for_each(|peer| policy_peer(&peer));
        }
    }
    let types = spec.at("policyTypes");
    if types.len() > 2 {
        types.invalid("may not specify more than two policyTypes");
        return;
    }
    types.items().for_each(|kind| {
        if !matches!(kind.text(), "Ingress" | "Egress") {
            kind.not_supported(&["Ingress", "Egress"]);
        }
    });
}

fn policy_port(port: &At<'_>) {
    port.at("protocol").may_be_one_of(&["TCP", "UDP", "SCTP"]);
    let (start, end) = (port.at("port"), port.at("endPort"));
    match start.value {
        Value::Null => {
            if end.is_set() {
                end.invalid("may not be specified when `port` is not specified");
            }
        }
        Value::Number(number) => {
            handler::port(&start);
            if let Some(last) = end.int() {
                if last < number.as_i64().unwrap_or(0) {
                    end.invalid("must be greater than or equal to `port`");
                }
                end.in_range(1, 65_535);
            }
        }
        _ => {
            if end.is_set() {
                end.invalid("may not be specified when `port` is non-numeric");
            }
            handler::port(&start);
        }
    }
}

fn policy_peer(peer: &At<'_>) {
    let mut count = 0;
    for selector in ["podSelector", "namespaceSelector"] {
        if peer.at(selector).is_set() {
            count += 1;
            metadata::selector(&peer.at(selector));
        }
    }
    let block = peer.at("ipBlock");
    if block.is_set() {
        count += 1;
        ip_block(&block);
    }
    if count == 0 {
        peer.required("must specify a peer");
    } else if count > 1 && block.is_set() {
        peer.forbidden("may not specify both ipBlock and another peer");
    }
}

fn ip_block(block: &At<'_>) {
    let range = block.at("cidr");
    if range.text().is_empty() {
        range.required("");
        return;
    }
    cidr(&range);
    let Ok(whole) = range.text().parse::<ipnet::IpNet>() else { return };
    for except in block.at("except").items() {
        cidr(&except);
        let Ok(part) = except.text().parse::<ipnet::IpNet>() else { continue };
        if !whole.contains(&part.network()) || whole.prefix_len() >= part.prefix_len() {
            except.invalid("must be a strict subset of `cidr`");
        }
    }
}

pub(super) fn ingress(object: &At<'_>, create: bool) {
    let spec = object.at("spec");
    let (rules, backend) = (spec.at("rules"), spec.at("defaultBackend"));
    if rules.len() == 0 && !backend.is_set() {
        spec.invalid_as(rules.value.clone(), "either `defaultBackend` or `rules` must be specified");
    }
    if backend.is_set() {
        ingress_backend(&backend);
    }
    rules.items().for_each(|rule| ingress_rule(&rule));
    for entry in spec.at("tls").items() {
        entry.at("hosts").items().for_each(|host| host_name(&host));
        entry.at("secretName").may_obey(names::is_dns1123_subdomain);
    }
    let class = spec.at("ingressClassName");
    if class.is_set() {
        class.obeys(names::is_dns1123_subdomain);
    }
    const NOTE: &str = "kubernetes.io/ingress.class";
    let note = object.at("metadata").at("annotations").at(NOTE);
    if create && note.is_set() && class.is_set() && note.text() != class.text() {
        note.named(crate::field::FieldPath::new("annotations").child(NOTE))
            .invalid("must match `ingressClassName` when both are specified");
    }
}

fn host_name(host: &At<'_>) {
    if host.text().contains('*') {
        host.obeys(names::is_wildcard_dns1123_subdomain);
    } else {
        host.obeys(names::is_dns1123_subdomain);
    }
}

fn ingress_rule(rule: &At<'_>) {
    let host = rule.at("host");
    if host.is_full() {
        if host.text().parse::<std::net::IpAddr>().is_ok() {
            host.invalid("must be a DNS name, not an IP address");
        }
        host_name(&host);
    }
    let http = rule.at("http");
    if !http.is_set() {
        return;
    }
    let paths = http.at("paths");
    if paths.len() == 0 {
        paths.required("");
    }
    paths.items().for_each(|path| ingress_path(&path));
}

fn ingress_path(entry: &At<'_>) {
    let (path, kind) = (entry.at("path"), entry.at("pathType"));
    if !kind.is_set() {
        kind.required("pathType must be specified");
        return;
    }
    match kind.text() {
        "Exact" | "Prefix" => {
            if path.text().starts_with('/') {
                for bad in ["//", "/./", "/../", "%2f", "%2F"] {
                    if path.text().contains(bad) {
                        path.invalid(format!("must not contain '{bad}'"));
                    }
                }
                for bad in ["/..", "/."] {
                    if path.text().ends_with(bad) {
                        path.invalid(format!("cannot end with '{bad}'"));
                    }
                }
            } else {
                path.invalid_as(path.text(), "must be an absolute path");
            }
        }
        "ImplementationSpecific" => {
            if path.is_full() && !path.text().starts_with('/') {
                path.invalid("must be an absolute path");
            }
        }
        _ => kind.not_supported(&["Exact", "ImplementationSpecific", "Prefix"]),
    }
    ingress_backend(&entry.at("backend"));
}

fn ingress_backend(backend: &At<'_>) {
    let (service, resource) = (backend.at("service"), backend.at("resource"));
    match (service.is_set(), resource.is_set()) {
        (true, true) => backend.invalid_as("", "cannot set both resource and service backends"),
        (false, true) => {
            for field in ["kind", "name"] {
                if resource.at(field).text().is_empty() {
                    resource.at(field).required("");
                }
            }
            resource.at("apiGroup").may_obey(names::is_dns1123_subdomain);
        }
        (true, false) => {
            if service.at("name").text().is_empty() {
                service.at("name").required("");
            } else {
                service.at("name").obeys(names::is_dns1123_label);
            }
            let (name, number) = (service.at("port").at("name"), service.at("port").at("number"));
            let has_number = number.int().unwrap_or(0) != 0;
            if name.is_full() && has_number {
                backend.invalid_as(service.at("port").value.clone(), "cannot set both port name & port number");
            } else if name.is_full() {
                name.obeys(names::is_port_name);
            } else if has_number {
                number.in_range(1, 65_535);
            } else {
                backend.required("port name or number is required");
            }
        }
        (false, false) => backend.required("resource or service backend is required"),
    }
}

pub(super) fn ingress_class(object: &At<'_>) {
    const MAX_BYTES: usize = 250;
    let spec = object.at("spec");
    let controller = spec.at("controller");
    if controller.len() > MAX_BYTES {
        controller.too_long(MAX_BYTES);
    }
    match controller.text().split_once('/') {
        _ if controller.text().is_empty() => controller.required(""),
        Some((host, path)) if !host.is_empty() && !path.is_empty() => {
            names::is_dns1123_subdomain(host).into_iter().for_each(|message| controller.invalid_as(host, message));
        }
        _ => controller.invalid("must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
    let parameters = spec.at("parameters");
    if !parameters.is_set() {
        return;
    }
    for field in ["kind", "name"] {
        parameters.at(field).must_obey(names::is_path_segment_name);
    }
    parameters.at("apiGroup").may_obey(names::is_dns1123_subdomain);
    parameters.at("scope").one_of(&["Cluster", "Namespace"]);
    let namespace = parameters.at("namespace");
    match parameters.at("scope").text() {
        "Namespace" if !namespace.is_set() => namespace.required("`parameters.scope` is set to 'Namespace'"),
        "Namespace" => namespace.must_obey(names::is_dns1123_label),
        "Cluster" if namespace.is_set() => namespace.forbidden("`parameters.scope` is set to 'Cluster'"),
        _ => {}
    }
}

pub(super) fn ingress_class_update(object: &At<'_>, old: &At<'_>) {
    let (now, then) = (object.at("spec").at("controller"), old.at("spec").at("controller"));
    if !same(now.value, then.value) {
        now.invalid("field is immutable");
    }
}
