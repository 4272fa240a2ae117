//! Validation of changes of a pod: through the main resource, `status`, `ephemeralcontainers` and `resize`.
//!
//! Upstream: `ValidatePodUpdate`, `ValidatePodStatusUpdate`, `ValidatePodEphemeralContainersUpdate`, `ValidatePodResize`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::spec::spec_in_pod;
use super::{difference, qos};
use crate::field::FieldPath;
use crate::names;
use crate::validate::{At, net, same};

const MUTABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// An update of the main resource.
pub(crate) fn update(pod: &At<'_>, old: &At<'_>) {
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
        spec.forbidden(format!("{MUTABLE}\n{}", difference::pod_spec(before.value, &munged)));
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
        value.to_string()
    };
    let kept: BTreeSet<String> = now.items().map(|new| without_seconds(&new)).collect();
    if before.items().any(|old| !kept.contains(&without_seconds(&old))) {
        now.forbidden("existing toleration can not be modified except its tolerationSeconds");
    }
}

fn only_removed_gates(now: &At<'_>, before: &At<'_>) {
    let known: BTreeSet<&str> = before.items().map(|gate| gate.at("name").text()).collect();
    for gate in now.items() {
        let name = gate.at("name").text();
        if !known.contains(name) {
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
    if !before.at("schedulingGates").is_empty() {
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
pub(crate) fn update_status(pod: &At<'_>, old: &At<'_>) {
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
        net::ip(&entry.at("ip").named(entry.path.clone()));
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
pub(crate) fn update_ephemeral(pod: &At<'_>, old: &At<'_>) {
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
pub(crate) fn update_resize(pod: &At<'_>, old: &At<'_>) {
    spec_in_pod(pod);
    let (spec, before) = (pod.at("spec"), old.at("spec"));
    if qos::class(pod.value) != qos::class(old.value) {
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
