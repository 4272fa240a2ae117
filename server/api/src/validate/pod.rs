//! Pods: a new one, a template, an update, a status update, ephemeral containers, a resize.
//!
//! Upstream: ValidatePodSpec and its callers in `pkg/apis/core/validation`.

use serde_json::{Value, json};

use super::at::{At, Errors, same};
use super::container::{self, Pod};
use super::{metadata, requirements, scheduling, security, volume};
use crate::field::FieldPath;
use crate::names;

const MUTABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// A new pod.
pub(super) fn create(pod: &At<'_>) {
    spec_in_pod(pod);
    let spec = pod.at("spec");
    if spec.at("ephemeralContainers").len() > 0 {
        spec.at("ephemeralContainers").forbidden("cannot be set on create");
    }
    if spec.at("nodeName").is_full() && spec.at("schedulingGates").len() > 0 {
        spec.at("nodeName").forbidden("cannot be set until all schedulingGates have been cleared");
    }
}

fn spec_in_pod(pod: &At<'_>) {
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
pub(super) fn template(template: &At<'_>) {
    metadata::labels(&template.at("metadata").at("labels").named(template.path.child("labels")));
    let notes = template.at("metadata").at("annotations").named(template.path.child("annotations"));
    metadata::annotations(&notes);
    annotations(&notes, &template.at("spec"));
    check_spec(&template.at("spec"), None);
    if template.at("spec").at("ephemeralContainers").len() > 0 {
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
        ip(&alias.at("ip"));
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

/// "must be a valid IP address".
pub(super) fn ip(address: &At<'_>) {
    if address.text().parse::<std::net::IpAddr>().is_err() {
        address.invalid_as(address.text(), "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
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
        if config.at("nameservers").len() == 0 {
            config.at("nameservers").required("must provide at least one DNS nameserver when `dnsPolicy` is None");
            return;
        }
    }
    let (servers, searches) = (config.at("nameservers"), config.at("searches"));
    if servers.len() > 3 {
        servers.invalid("must not have more than 3 nameservers");
    }
    servers.items().for_each(|server| ip(&server));
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

// === updates ===

/// An update of the main resource.
pub(super) fn update(pod: &At<'_>, old: &At<'_>) {
    spec_in_pod(pod);
    mirror_annotation(pod, old);
    let (spec, before) = (pod.at("spec"), old.at("spec"));
    for list in ["containers", "initContainers"] {
        if spec.at(list).len() != before.at(list).len() {
            spec.at(list).forbidden("pod updates may not add or remove containers");
            return;
        }
    }
    if !active_deadline(&spec, &before) {
        return;
    }
    only_added_tolerations(&spec.at("tolerations"), &before.at("tolerations"));
    only_removed_gates(&spec.at("schedulingGates"), &before.at("schedulingGates"));
    let munged = munge(&spec, &before);
    if !same(&munged, before.value) {
        spec.forbidden(format!("{MUTABLE}\n{}", super::diff::pod_spec(before.value, &munged)));
    }
}

fn mirror_annotation(pod: &At<'_>, old: &At<'_>) {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    let now = pod.at("metadata").at("annotations").at(MIRROR);
    let then = old.at("metadata").at("annotations").at(MIRROR);
    let path = now.named(pod.at("metadata").at("annotations").path.key(MIRROR));
    match (then.is_set(), now.is_set()) {
        (true, _) if then.value != now.value => path.forbidden("may not remove or update mirror pod annotation"),
        (false, true) => path.forbidden("may not add mirror pod annotation"),
        _ => {}
    }
}

/// From nothing to a deadline, or to an earlier one. False ends the update's validation, as upstream.
fn active_deadline(spec: &At<'_>, before: &At<'_>) -> bool {
    let now = spec.at("activeDeadlineSeconds");
    let then = before.at("activeDeadlineSeconds").int();
    match (now.int(), then) {
        (Some(seconds), _) if !(0..=i64::from(i32::MAX)).contains(&seconds) => {
            now.in_range(0, i64::from(i32::MAX));
            false
        }
        (Some(seconds), Some(previous)) if previous < seconds => {
            now.invalid("must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            now.invalid_as(Value::Null, "must not update from a positive integer to nil value");
            true
        }
        _ => true,
    }
}

fn only_added_tolerations(now: &At<'_>, before: &At<'_>) {
    let without_seconds = |toleration: &At<'_>| {
        let mut value = toleration.value.clone();
        if let Some(map) = value.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        value
    };
    for old in before.items() {
        if !now.items().any(|new| without_seconds(&new) == without_seconds(&old)) {
            now.forbidden("existing toleration can not be modified except its tolerationSeconds");
            return;
        }
    }
}

fn only_removed_gates(now: &At<'_>, before: &At<'_>) {
    for gate in now.items() {
        let name = gate.at("name").text();
        if !before.items().any(|old| old.at("name").text() == name) {
            gate.at("name").forbidden(format!("only deletion is allowed, but found new scheduling gate '{name}'"));
        }
    }
}

/// The new spec with everything that may change put back: what then differs may not.
fn munge(spec: &At<'_>, before: &At<'_>) -> Value {
    let mut munged = spec.value.clone();
    let Some(map) = munged.as_object_mut() else { return munged };
    let mut restore = |key: &str| match before.value.get(key) {
        Some(value) => map.insert(key.to_owned(), value.clone()),
        None => map.remove(key),
    };
    for key in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        restore(key);
    }
    let grace = |at: &At<'_>| at.at("terminationGracePeriodSeconds").int();
    if grace(before).is_some_and(|seconds| seconds < 0) && grace(spec) == Some(1) {
        restore("terminationGracePeriodSeconds");
    }
    if before.at("schedulingGates").len() > 0 {
        gated(spec, before);
        restore("nodeSelector");
        if same(&without_node_affinity(spec.at("affinity").value), &without_node_affinity(before.at("affinity").value)) {
            restore("affinity");
        }
    }
    for list in ["containers", "initContainers"] {
        let Some(Value::Array(containers)) = map.get_mut(list) else { continue };
        for (container, old) in containers.iter_mut().zip(before.at(list).items()) {
            if let Some(container) = container.as_object_mut() {
                container.insert("image".to_owned(), old.at("image").value.clone());
            }
        }
    }
    munged
}

fn without_node_affinity(affinity: &Value) -> Value {
    let mut affinity = affinity.clone();
    if let Some(map) = affinity.as_object_mut() {
        map.remove("nodeAffinity");
    }
    affinity
}

/// A gated pod may narrow where it runs.
fn gated(spec: &At<'_>, before: &At<'_>) {
    let selector = spec.at("nodeSelector");
    for (key, value) in before.at("nodeSelector").entries() {
        if selector.at(key).value != value.value {
            selector.invalid("only additions to spec.nodeSelector are allowed (no mutations or deletions)");
            break;
        }
    }
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let terms = |at: &At<'_>| at.at("affinity").at("nodeAffinity").at(REQUIRED).at("nodeSelectorTerms").value.clone();
    let path = FieldPath::new("spec.affinity.nodeAffinity").child(REQUIRED).child("nodeSelectorTerms");
    let (now, then) = (terms(spec), terms(before));
    let (Some(then), now) = (then.as_array(), now.as_array().cloned().unwrap_or_default()) else { return };
    if then.is_empty() {
        return;
    }
    if then.len() != now.len() {
        spec.named(path).invalid_as(now, "no additions/deletions to non-empty NodeSelectorTerms list are allowed");
        return;
    }
    for (index, (new, old)) in now.iter().zip(then).enumerate() {
        let grows = |field: &str| {
            let list = |term: &Value| term.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
            list(new).starts_with(&list(old))
        };
        if !grows("matchExpressions") || !grows("matchFields") {
            spec.named(path.index(index)).invalid_as(new.clone(), "only additions are allowed (no mutations or deletions)");
        }
    }
}

/// An update of the status subresource.
pub(super) fn update_status(pod: &At<'_>, old: &At<'_>) {
    const SYSTEM: [&str; 3] = ["PodScheduled", "Ready", "Initialized"];
    mirror_annotation(pod, old);
    let status = pod.at("status");
    for condition in status.at("conditions").items() {
        if !SYSTEM.contains(&condition.at("type").text()) {
            let index = condition.path.as_str().trim_start_matches("status.conditions").to_owned();
            let path = FieldPath::new(&format!("metadata.conditions{index}")).child("Type");
            condition.at("type").named(path).obeys(names::is_qualified_name);
        }
    }
    if status.at("nominatedNodeName").value != old.at("status").at("nominatedNodeName").value {
        status.at("nominatedNodeName").may_obey(names::is_dns1123_subdomain);
    }
    status.at("qosClass").immutable(&old.at("status").at("qosClass"));
    let policy = old.at("spec").at("restartPolicy").text();
    for (list, policy) in [("containerStatuses", policy), ("initContainerStatuses", policy), ("ephemeralContainerStatuses", "Never")] {
        no_resurrection(&status.at(list), &old.at("status").at(list), &old.at("spec"), policy);
    }
    for entry in status.at("podIPs").items().chain(status.at("hostIPs").items()) {
        ip(&entry.at("ip").named(entry.path.clone()));
    }
    let host = status.at("hostIPs").items().next();
    if let Some(first) = host
        && first.at("ip").text() != status.at("hostIP").text()
    {
        first.at("ip").invalid("must be equal to `hostIP`");
    }
}

/// A terminated container that must not restart stays terminated.
fn no_resurrection(now: &At<'_>, before: &At<'_>, spec: &At<'_>, policy: &str) {
    if policy == "Always" {
        return;
    }
    for old in before.items() {
        let ended = old.at("state").at("terminated");
        if !ended.is_set() || (policy == "OnFailure" && ended.at("exitCode").int().unwrap_or(0) != 0) {
            continue;
        }
        let name = old.at("name").text();
        let declared = ["initContainers", "containers"]
            .iter()
            .flat_map(|list| spec.at(list).items().collect::<Vec<_>>())
            .find(|container| container.at("name").text() == name);
        if declared.is_some_and(|container| container.at("restartPolicy").is_full() || container.at("restartPolicyRules").is_full()) {
            continue;
        }
        if now.items().any(|new| new.at("name").text() == name && !new.at("state").at("terminated").is_set()) {
            let index = &old.path.as_str()[old.path.as_str().rfind('[').unwrap_or(0)..];
            let path = FieldPath::new(&format!("{}{index}", now.path)).child("state");
            now.named(path).forbidden("may not be transitioned to non-terminated state");
        }
    }
}

/// An update of the `ephemeralcontainers` subresource.
pub(super) fn update_ephemeral(pod: &At<'_>, old: &At<'_>) {
    spec_in_pod(pod);
    if old.at("metadata").at("annotations").at("kubernetes.io/config.mirror").is_set() {
        pod.forbidden("static pods do not support ephemeral containers");
        return;
    }
    let list = pod.at("spec").at("ephemeralContainers");
    for before in old.at("spec").at("ephemeralContainers").items() {
        let name = before.at("name").text();
        match list.items().find(|container| container.at("name").text() == name) {
            None => list.forbidden(format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(now) if !same(now.value, before.value) => {
                list.forbidden(format!("existing ephemeral containers {name:?} may not be changed\n"));
            }
            Some(_) => {}
        }
    }
}

/// An update of the `resize` subresource: only cpu and memory of containers may change.
pub(super) fn update_resize(pod: &At<'_>, old: &At<'_>) {
    spec_in_pod(pod);
    let (spec, before) = (pod.at("spec"), old.at("spec"));
    if crate::strategy::qos_class(pod.value) != crate::strategy::qos_class(old.value) {
        spec.invalid_as(pod.at("status").at("qosClass").text(), "Pod QOS Class may not change as a result of resizing");
    }
    for list in ["initContainers", "containers"] {
        for (now, then) in spec.at(list).items().zip(before.at(list).items()) {
            if list == "initContainers" && then.at("restartPolicy").text() != "Always" {
                continue;
            }
            for kind in ["requests", "limits"] {
                let kept = now.at("resources").at(kind);
                let gone = then.at("resources").at(kind).entries().any(|(name, _)| !kept.at(name).is_set());
                if gone {
                    kept.forbidden(format!("resource {kind} cannot be removed"));
                }
            }
        }
    }
    let strip = |spec: &Value| {
        let mut spec = spec.clone();
        for list in ["initContainers", "containers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                for kind in ["requests", "limits"] {
                    if let Some(map) = container.pointer_mut(&format!("/resources/{kind}")).and_then(Value::as_object_mut) {
                        map.remove("cpu");
                        map.remove("memory");
                    }
                }
            }
        }
        spec
    };
    if !same(&strip(spec.value), &strip(before.value)) {
        spec.forbidden("only cpu and memory resources are mutable");
    }
}
