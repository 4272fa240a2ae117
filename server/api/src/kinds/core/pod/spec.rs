//! Validation of a pod spec, in a Pod and in a template. Upstream: `ValidatePodSpec` and its callers.

use serde_json::json;

use super::container::{self, Pod};
use super::{requirements, scheduling, security, volume};
use crate::names;
use crate::validate::{At, Errors, metadata, net};

/// A new pod.
pub(crate) fn create(pod: &At<'_>) {
    spec_in_pod(pod);
    let spec = pod.at("spec");
    if !spec.at("ephemeralContainers").is_empty() {
        spec.at("ephemeralContainers").forbidden("cannot be set on create");
    }
    if spec.at("nodeName").is_full() && !spec.at("schedulingGates").is_empty() {
        spec.at("nodeName").forbidden("cannot be set until all schedulingGates have been cleared");
    }
}

pub(crate) fn spec_in_pod(pod: &At<'_>) {
    let (meta, spec) = (pod.at("metadata"), pod.at("spec"));
    annotations(&meta.at("annotations"), &spec);
    check_spec(&spec, Some(meta.at("name").text()));
    if spec.at("serviceAccountName").text().is_empty() {
        for volume in spec.at("volumes").items() {
            for source in volume.at("projected").at("sources").items() {
                if source.at("serviceAccountToken").is_set() {
                    source.at("serviceAccountToken").forbidden("must not be specified when serviceAccountName is not set");
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        spec.at(list).items().for_each(|container| container::image_padding(&container));
    }
}

fn annotations(annotations: &At<'_>, spec: &At<'_>) {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    for (key, value) in annotations.entries() {
        if key == MIRROR && spec.at("nodeName").text().is_empty() {
            value.invalid("must set spec.nodeName if mirror pod annotation is set");
        }
        if key == COST && !is_deletion_cost(value.text()) {
            value.invalid("must be a 32bit integer");
        }
    }
}

/// As Go prints it: no plus sign, no leading zeros.
fn is_deletion_cost(text: &str) -> bool {
    text.parse::<i32>().is_ok_and(|cost| cost.to_string() == text)
}

/// A pod template at `template`.
pub(crate) fn template(template: &At<'_>) {
    metadata::labels(&template.at("metadata").at("labels").named(template.path.child("labels")));
    let notes = template.at("metadata").at("annotations").named(template.path.child("annotations"));
    metadata::annotations(&notes);
    annotations(&notes, &template.at("spec"));
    check_spec(&template.at("spec"), None);
    if !template.at("spec").at("ephemeralContainers").is_empty() {
        template.at("spec").at("ephemeralContainers").forbidden("ephemeral containers not allowed in pod template");
    }
}

fn check_spec(spec: &At<'_>, pod_name: Option<&str>) {
    if !spec.at("terminationGracePeriodSeconds").is_set() {
        spec.at("terminationGracePeriodSeconds").required("");
    }
    let context = Pod {
        volumes: volume::check(&spec.at("volumes"), pod_name),
        claims: spec.at("resourceClaims").items().map(|claim| claim.at("name").text()).collect(),
        grace_period_secs: spec.at("terminationGracePeriodSeconds").int(),
        restart_policy: spec.at("restartPolicy").text(),
        host_users: spec.at("hostUsers").value.as_bool().unwrap_or(true),
    };
    resource_claims(&spec.at("resourceClaims"));
    container::regular(&spec.at("containers"), &context);
    container::init(&spec.at("initContainers"), &spec.at("containers"), &context);
    container::ephemeral(&spec.at("ephemeralContainers"), spec, &context);
    if spec.at("resources").is_set() {
        requirements::pod(&spec.at("resources"));
    }
    host_network_ports(spec, pod_name.is_some());
    spec.at("restartPolicy").one_of(&["Always", "OnFailure", "Never"]);
    spec.at("dnsPolicy").one_of(&["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    metadata::labels(&spec.at("nodeSelector"));
    security::pod(&spec.at("securityContext"), spec);
    scheduling::affinity(&spec.at("affinity"));
    dns_config(&spec.at("dnsConfig"), spec.at("dnsPolicy").text());
    for gate in spec.at("readinessGates").items() {
        gate.at("conditionType").obeys(names::is_qualified_name);
    }
    scheduling_gates(&spec.at("schedulingGates"));
    scheduling::spread(&spec.at("topologySpreadConstraints"));
    host_users(spec);
    small_fields(spec);
}

fn small_fields(spec: &At<'_>) {
    spec.at("serviceAccountName").may_obey(names::is_dns1123_subdomain);
    spec.at("nodeName").may_obey(names::is_dns1123_subdomain);
    spec.at("activeDeadlineSeconds").in_range(1, i64::from(i32::MAX));
    spec.at("hostname").may_obey(names::is_dns1123_label);
    spec.at("subdomain").may_obey(names::is_dns1123_label);
    scheduling::tolerations(&spec.at("tolerations"));
    for alias in spec.at("hostAliases").items() {
        net::ip(&alias.at("ip"));
        alias.at("hostnames").items().for_each(|name| name.obeys(names::is_dns1123_subdomain));
    }
    spec.at("priorityClassName").may_obey(names::is_dns1123_subdomain);
    if spec.at("runtimeClassName").is_set() {
        spec.at("runtimeClassName").obeys(names::is_dns1123_subdomain);
    }
    if spec.at("preemptionPolicy").is_set() {
        spec.at("preemptionPolicy").one_of(&["PreemptLowerPriority", "Never"]);
    }
    if spec.at("overhead").is_set() {
        let limits = json!({"limits": spec.at("overhead").value});
        let errors = Errors::default();
        requirements::container(&At::new(&limits, spec.path.child("overhead"), &errors), None);
        errors.take().into_iter().for_each(|error| spec.errors.push(error));
    }
    let os = spec.at("os");
    if os.is_set() {
        if os.at("name").text().is_empty() {
            os.at("name").required("cannot be empty");
        } else if !matches!(os.at("name").text(), "linux" | "windows") {
            os.at("name").named(os.path.clone()).not_supported(&["linux", "windows"]);
        }
    }
}

fn resource_claims(claims: &At<'_>) {
    let mut seen = std::collections::BTreeSet::new();
    for claim in claims.items() {
        let name = claim.at("name");
        if name.text().is_empty() {
            name.required("");
        } else if !seen.insert(name.text()) {
            name.duplicate();
        } else {
            name.obeys(names::is_dns1123_label);
        }
        let (direct, template) = (claim.at("resourceClaimName"), claim.at("resourceClaimTemplateName"));
        match (direct.is_set(), template.is_set()) {
            (true, true) => {
                claim.invalid("at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified");
            }
            (false, false) => claim.invalid("must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"),
            _ => {}
        }
        direct.may_obey(names::is_dns1123_subdomain);
        template.may_obey(names::is_dns1123_subdomain);
    }
}

fn host_network_ports(spec: &At<'_>, in_pod: bool) {
    if !spec.at("hostNetwork").flag() {
        return;
    }
    for container in spec.at("containers").items() {
        for port in container.at("ports").items() {
            let host = port.at("hostPort").int().unwrap_or(0);
            if (in_pod || host != 0) && host != port.at("containerPort").int().unwrap_or(0) {
                port.at("hostPort").invalid_as(host, "must match `containerPort` when `hostNetwork` is true");
            }
        }
    }
}

fn dns_config(config: &At<'_>, policy: &str) {
    if policy == "None" {
        if !config.is_set() {
            config.required("must provide `dnsConfig` when `dnsPolicy` is None");
            return;
        }
        if config.at("nameservers").is_empty() {
            config.at("nameservers").required("must provide at least one DNS nameserver when `dnsPolicy` is None");
            return;
        }
    }
    let (servers, searches) = (config.at("nameservers"), config.at("searches"));
    if servers.len() > 3 {
        servers.invalid("must not have more than 3 nameservers");
    }
    servers.items().for_each(|server| net::ip(&server));
    if searches.len() > 32 {
        searches.invalid("must not have more than 32 search paths");
    }
    if searches.strings().join(" ").len() > 2048 {
        searches.invalid("must not have more than 2048 characters (including spaces) in the search list");
    }
    for search in searches.items().filter(|search| search.text() != ".") {
        let bare = search.text().strip_suffix('.').unwrap_or(search.text());
        // An underscore is fine in a search domain.
        for message in names::is_dns1123_subdomain(&bare.replace('_', "a")) {
            search.invalid_as(bare, message);
        }
    }
    for option in config.at("options").items() {
        if option.at("name").text().is_empty() {
            option.required("must not be empty");
        }
    }
}

fn scheduling_gates(gates: &At<'_>) {
    let mut seen = std::collections::BTreeSet::new();
    for gate in gates.items() {
        let name = gate.at("name").named(gate.path.clone());
        name.obeys(names::is_qualified_name);
        if !seen.insert(name.text()) {
            name.duplicate();
        }
    }
}

fn host_users(spec: &At<'_>) {
    if spec.at("hostUsers").value.as_bool().unwrap_or(true) {
        return;
    }
    for (field, path) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.at(field).flag() {
            spec.at(field).named(spec.path.child(path)).forbidden("when `pod.Spec.HostUsers` is false");
        }
    }
}
