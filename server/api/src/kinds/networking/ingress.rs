//! Ingresses.

use serde_json::{Value, json};

use crate::default::{Lit::Obj, Set, fill};
use crate::kinds::text::{NONE, ingress_points, or, plain, some};
use crate::meta;
use crate::names;
use crate::resource::{Cells, Column, Kind};
use crate::validate::At;

/// HTTP from outside to services.
pub(crate) struct Ingress;

impl Kind for Ingress {
    fn unconditional_update(&self) -> bool {
        true
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj), Set("", "status", Obj), Set("status", "loadBalancer", Obj)]);
    }

    fn validate_create(&self, object: &At<'_>) {
        ingress(object, true);
    }

    fn validate_update(&self, object: &At<'_>, _old: &At<'_>) {
        ingress(object, false);
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Class|Hosts|Address|Ports|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let note = meta::annotation(cells.object, "kubernetes.io/ingress.class").unwrap_or(NONE);
        let rules = cells.list(&["spec", "rules"]);
        let hosts: Vec<String> = rules.iter().map(|rule| plain(&rule["host"])).filter(|host| !host.is_empty()).collect();
        let ports = if cells.list(&["spec", "tls"]).is_empty() { "80" } else { "80, 443" };
        vec![
            cells.name(),
            cells.text_or(&["spec", "ingressClassName"], note),
            json!(or(some(&hosts, 3, ","), "*")),
            json!(ingress_points(cells).join(",")),
            json!(ports),
            cells.age(),
        ]
    }
}

fn ingress(object: &At<'_>, create: bool) {
    let spec = object.at("spec");
    let (rules, backend) = (spec.at("rules"), spec.at("defaultBackend"));
    if rules.is_empty() && !backend.is_set() {
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
    if paths.is_empty() {
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
