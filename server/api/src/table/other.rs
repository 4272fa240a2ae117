//! Rows of the remaining groups.

use serde_json::{Value, json};

use super::Cells;
use super::core::ingress_points;
use super::text::{NONE, UNSET, condition, or, plain, selector, some, strings};
use crate::meta;

/// Appends the cells after the name; nothing for kinds that show only their age.
pub(super) fn row(group: &str, plural: &str, cells: &Cells<'_>, row: &mut Vec<Value>) {
    match (group, plural) {
        ("rbac.authorization.k8s.io", "roles" | "clusterroles")
        | ("apiextensions.k8s.io", _)
        | ("storage.k8s.io", "csistoragecapacities") => row.push(cells.created_at()),
        ("rbac.authorization.k8s.io", _) => row.extend(binding(cells)),
        ("networking.k8s.io", _) => network(plural, cells, row),
        ("storage.k8s.io", _) => storage(plural, cells, row),
        ("admissionregistration.k8s.io", _) => admission(plural, cells, row),
        ("flowcontrol.apiserver.k8s.io", _) => flow_control(plural, cells, row),
        ("resource.k8s.io", _) => resource(plural, cells, row),
        ("policy", "poddisruptionbudgets") => row.extend([
            json!(or(plain(cells.at(&["spec", "minAvailable"])), "N/A")),
            json!(or(plain(cells.at(&["spec", "maxUnavailable"])), "N/A")),
            json!(cells.int(&["status", "disruptionsAllowed"])),
            cells.age(),
        ]),
        ("certificates.k8s.io", "certificatesigningrequests") => row.extend(signing_request(cells)),
        ("coordination.k8s.io", "leases") => {
            row.extend([json!(cells.text(&["spec", "holderIdentity"])), cells.age()]);
        }
        ("scheduling.k8s.io", "priorityclasses") => row.extend([
            json!(cells.int(&["value"])),
            json!(cells.at(&["globalDefault"]) == &Value::Bool(true)),
            cells.age(),
            json!(cells.text(&["preemptionPolicy"])),
        ]),
        ("node.k8s.io", "runtimeclasses") => row.extend([json!(cells.text(&["handler"])), cells.age()]),
        ("discovery.k8s.io", "endpointslices") => row.extend(endpoint_slice(cells)),
        ("apiregistration.k8s.io", "apiservices") => row.extend(api_service(cells)),
        _ => {}
    }
}

fn binding(cells: &Cells<'_>) -> Vec<Value> {
    let role = cells.at(&["roleRef"]);
    let subjects = |kind: &str| {
        let names: Vec<String> = cells
            .list(&["subjects"])
            .iter()
            .filter(|subject| subject["kind"] == kind)
            .map(|subject| match (kind, subject["namespace"].as_str()) {
                ("ServiceAccount", Some(namespace)) => format!("{namespace}/{}", plain(&subject["name"])),
                ("ServiceAccount", None) => format!("/{}", plain(&subject["name"])),
                _ => plain(&subject["name"]),
            })
            .collect();
        json!(names.join(", "))
    };
    vec![
        json!(format!("{}/{}", plain(&role["kind"]), plain(&role["name"]))),
        cells.age(),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

fn network(plural: &str, cells: &Cells<'_>, row: &mut Vec<Value>) {
    match plural {
        "ingresses" => {
            let note = meta::annotation(cells.object, "kubernetes.io/ingress.class").unwrap_or(NONE);
            let rules = cells.list(&["spec", "rules"]);
            let hosts: Vec<String> = rules.iter().map(|rule| plain(&rule["host"])).filter(|host| !host.is_empty()).collect();
            let ports = if cells.list(&["spec", "tls"]).is_empty() { "80" } else { "80, 443" };
            row.extend([
                cells.text_or(&["spec", "ingressClassName"], note),
                json!(or(some(&hosts, 3, ","), "*")),
                json!(ingress_points(cells).join(",")),
                json!(ports),
                cells.age(),
            ]);
        }
        "ingressclasses" => {
            let parameters = cells.at(&["spec", "parameters"]);
            let shown = match (parameters.is_object(), plain(&parameters["apiGroup"])) {
                (false, _) => NONE.to_owned(),
                (true, group) if group.is_empty() => {
                    format!("{}/{}", plain(&parameters["kind"]), plain(&parameters["name"]))
                }
                (true, group) => format!("{}.{group}/{}", plain(&parameters["kind"]), plain(&parameters["name"])),
            };
            row.extend([json!(cells.text(&["spec", "controller"])), json!(shown), cells.age()]);
        }
        "networkpolicies" => row.extend([json!(selector(cells.at(&["spec", "podSelector"]))), cells.age()]),
        "servicecidrs" => row.extend([json!(strings(cells.at(&["spec", "cidrs"])).join(",")), cells.age()]),
        "ipaddresses" => {
            let parent = cells.at(&["spec", "parentRef"]);
            let mut name = plain(&parent["resource"]).to_lowercase();
            for (separator, key) in [(".", "group"), ("/", "namespace"), ("/", "name")] {
                let part = plain(&parent[key]);
                if !part.is_empty() {
                    name.push_str(separator);
                    name.push_str(&part);
                }
            }
            row.push(json!(or(name, NONE)));
        }
        _ => {}
    }
}

/// The name of a class, marked if it is the default one.
fn class_name(cells: &Cells<'_>, annotations: &[&str]) -> Value {
    let default = annotations.iter().any(|key| meta::annotation(cells.object, key) == Some("true"));
    json!(format!("{}{}", meta::name(cells.object), if default { " (default)" } else { "" }))
}

fn storage(plural: &str, cells: &Cells<'_>, row: &mut Vec<Value>) {
    let flag = |path: &[&str]| json!(cells.at(path) == &Value::Bool(true));
    match plural {
        "storageclasses" => {
            row[0] =
                class_name(cells, &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"]);
            row.extend([
                json!(cells.text(&["provisioner"])),
                cells.text_or(&["reclaimPolicy"], "Delete"),
                cells.text_or(&["volumeBindingMode"], "Immediate"),
                flag(&["allowVolumeExpansion"]),
                cells.age(),
            ]);
        }
        "volumeattributesclasses" => {
            row[0] = class_name(cells, &["storage.alpha.kubernetes.io/is-default-class"]);
            row.extend([json!(cells.text(&["driverName"])), cells.age()]);
        }
        "csidrivers" => {
            let audiences: Vec<String> = cells.list(&["spec", "tokenRequests"]).iter().map(|request| plain(&request["audience"])).collect();
            let tokens = if cells.at(&["spec", "tokenRequests"]).is_null() { UNSET.to_owned() } else { audiences.join(",") };
            row.extend([
                json!(cells.at(&["spec", "attachRequired"]) != &Value::Bool(false)),
                flag(&["spec", "podInfoOnMount"]),
                flag(&["spec", "storageCapacity"]),
                json!(tokens),
                flag(&["spec", "requiresRepublish"]),
                json!(or(strings(cells.at(&["spec", "volumeLifecycleModes"])).join(","), NONE)),
                cells.age(),
            ]);
        }
        "csinodes" => row.extend([json!(cells.list(&["spec", "drivers"]).len()), cells.age()]),
        "volumeattachments" => row.extend([
            json!(cells.text(&["spec", "attacher"])),
            json!(cells.text(&["spec", "source", "persistentVolumeName"])),
            json!(cells.text(&["spec", "nodeName"])),
            flag(&["status", "attached"]),
            cells.age(),
        ]),
        _ => {}
    }
}

fn admission(plural: &str, cells: &Cells<'_>, row: &mut Vec<Value>) {
    match plural {
        "mutatingwebhookconfigurations" | "validatingwebhookconfigurations" => {
            row.extend([json!(cells.list(&["webhooks"]).len()), cells.age()]);
        }
        "validatingadmissionpolicies" | "mutatingadmissionpolicies" => {
            let list = if plural.starts_with("validating") { "validations" } else { "mutations" };
            let kind = cells.at(&["spec", "paramKind"]);
            let kind = match kind.is_object() {
                true => format!("{}/{}", plain(&kind["apiVersion"]), plain(&kind["kind"])),
                false => UNSET.to_owned(),
            };
            row.extend([json!(cells.list(&["spec", list]).len()), json!(kind), cells.age()]);
        }
        _ => {
            let parameter = cells.at(&["spec", "paramRef"]);
            let shown = match (plain(&parameter["name"]), plain(&parameter["namespace"])) {
                _ if !parameter.is_object() => UNSET.to_owned(),
                (name, _) if name.is_empty() => selector(&parameter["selector"]),
                (name, namespace) if namespace.is_empty() => format!("*/{name}"),
                (name, namespace) => format!("{namespace}/{name}"),
            };
            row.extend([json!(cells.text(&["spec", "policyName"])), json!(shown), cells.age()]);
        }
    }
}

fn flow_control(plural: &str, cells: &Cells<'_>, row: &mut Vec<Value>) {
    if plural == "flowschemas" {
        let dangling = condition(cells.object, "Dangling").and_then(|condition| condition["status"].as_str());
        row.extend([
            json!(cells.text(&["spec", "priorityLevelConfiguration", "name"])),
            json!(cells.int(&["spec", "matchingPrecedence"])),
            cells.text_or(&["spec", "distinguisherMethod", "type"], NONE),
            cells.age(),
            json!(dangling.unwrap_or("?")),
        ]);
        return;
    }
    let section = if cells.text(&["spec", "type"]) == "Exempt" { "exempt" } else { "limited" };
    let number = |path: &[&str]| match cells.at(path) {
        Value::Null => json!(NONE),
        number => number.clone(),
    };
    let queuing = ["spec", "limited", "limitResponse", "queuing"];
    let queue = |field: &str| number(&[&queuing[..], &[field]].concat());
    row.extend([
        json!(cells.text(&["spec", "type"])),
        number(&["spec", section, "nominalConcurrencyShares"]),
        queue("queues"),
        queue("handSize"),
        queue("queueLengthLimit"),
        cells.age(),
    ]);
}

fn resource(plural: &str, cells: &Cells<'_>, row: &mut Vec<Value>) {
    match plural {
        "resourceclaims" => {
            let mut states = Vec::new();
            if meta::deletion_timestamp(cells.object).is_some() {
                states.push("deleted");
            }
            if cells.at(&["status", "allocation"]).is_object() {
                states.push("allocated");
                if !cells.list(&["status", "reservedFor"]).is_empty() {
                    states.push("reserved");
                }
            } else if states.is_empty() {
                states.push("pending");
            }
            row.extend([json!(states.join(",")), cells.age()]);
        }
        "resourceslices" => row.extend([
            json!(cells.text(&["spec", "nodeName"])),
            json!(cells.text(&["spec", "driver"])),
            json!(cells.text(&["spec", "pool", "name"])),
            cells.age(),
        ]),
        _ => {}
    }
}

fn signing_request(cells: &Cells<'_>) -> Vec<Value> {
    let is = |kind: &str| condition(cells.object, kind).is_some();
    let mut status = if is("Denied") {
        "Denied"
    } else if is("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if is("Failed") {
        status.push_str(",Failed");
    }
    if !cells.text(&["status", "certificate"]).is_empty() {
        status.push_str(",Issued");
    }
    let wanted = cells.at(&["spec", "expirationSeconds"]).as_u64();
    let duration = wanted.map_or_else(|| NONE.to_owned(), |secs| crate::time::human_duration(std::time::Duration::from_secs(secs)));
    vec![
        cells.age(),
        cells.text_or(&["spec", "signerName"], NONE),
        json!(cells.text(&["spec", "username"])),
        json!(duration),
        json!(status),
    ]
}

fn endpoint_slice(cells: &Cells<'_>) -> Vec<Value> {
    let ports: Vec<String> = cells
        .list(&["ports"])
        .iter()
        .map(|port| match (port["port"].as_i64(), port["name"].as_str()) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.to_owned(),
            (None, None) => "*".to_owned(),
        })
        .collect();
    let addresses: Vec<String> = cells.list(&["endpoints"]).iter().flat_map(|endpoint| strings(&endpoint["addresses"])).collect();
    vec![
        json!(cells.text(&["addressType"])),
        json!(or(some(&ports, 3, ","), UNSET)),
        json!(or(some(&addresses, 3, ","), UNSET)),
        cells.age(),
    ]
}

fn api_service(cells: &Cells<'_>) -> Vec<Value> {
    let service = cells.at(&["spec", "service"]);
    let service = match service.is_object() {
        true => format!("{}/{}", plain(&service["namespace"]), plain(&service["name"])),
        false => "Local".to_owned(),
    };
    let available = match condition(cells.object, "Available") {
        None => "Unknown".to_owned(),
        Some(condition) if condition["status"] == "True" => "True".to_owned(),
        Some(condition) => format!("{} ({})", plain(&condition["status"]), plain(&condition["reason"])),
    };
    vec![json!(service), json!(available), cells.age()]
}
