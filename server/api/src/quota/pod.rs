//! Pods in quotas. Upstream: `pkg/quota/v1/evaluator/core/pods.go` and `component-helpers/resource`.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::term::Term;
use super::{Amounts, add, amounts, whole};
use crate::kinds::core::pod::{qos, requirements};
use crate::{meta, time};

const COUNT: &str = "count/pods";
const NAMES: [&str; 11] = [
    COUNT,
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
];
/// A quota for one of these demands that every container says what it wants.
const DEMANDED: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
const HUGE_PAGES: &str = "hugepages-";
const REQUESTS: &str = "requests.";

pub(super) fn has(name: &str) -> bool {
    let huge = name.strip_prefix(REQUESTS).unwrap_or(name).starts_with(HUGE_PAGES);
    let extended = name.starts_with(REQUESTS) && name.contains('/') && !name.contains("kubernetes.io/");
    NAMES.contains(&name) || huge || extended
}

pub(super) fn usage(pod: &Value, now: Timestamp) -> Amounts {
    let mut used = Amounts::from([(COUNT.to_owned(), whole(1))]);
    if is_charged(pod, now) {
        used.extend(compute(&total(pod, "requests"), &total(pod, "limits")));
    }
    used
}

/// Pods that are over, and those that should be gone, only count as objects.
fn is_charged(pod: &Value, now: Timestamp) -> bool {
    if matches!(meta::str_at(pod, &["status", "phase"]), "Failed" | "Succeeded") {
        return false;
    }
    expires(pod).is_none_or(|at| now <= at)
}

/// When a pod that is being deleted stops being charged, even if finalizers still hold it.
pub(super) fn expires(pod: &Value) -> Option<Timestamp> {
    let deletion = meta::deletion_timestamp(pod).and_then(time::parse)?;
    let grace = meta::deletion_grace_period_seconds(pod)?;
    deletion.checked_add(SignedDuration::from_secs(grace)).ok()
}

/// Requests and limits, of a pod or of a container, under the names that quotas use.
fn compute(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut used = Amounts::from([("pods".to_owned(), whole(1))]);
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(request) = requests.get(name) {
            used.insert(name.to_owned(), *request);
            used.insert(format!("{REQUESTS}{name}"), *request);
        }
        if let Some(limit) = limits.get(name) {
            used.insert(format!("limits.{name}"), *limit);
        }
    }
    for (name, request) in requests {
        if name.starts_with(HUGE_PAGES) {
            used.insert(name.clone(), *request);
        }
        if name.starts_with(HUGE_PAGES) || requirements::is_extended(name) {
            used.insert(format!("{REQUESTS}{name}"), *request);
        }
    }
    used
}

/// `must specify limits.cpu for: a,b; memory for: a`, if containers leave out what the quota's names demand.
pub(super) fn missing<'a>(pod: &Value, required: impl Iterator<Item = &'a str>) -> Option<String> {
    if sets_resources(pod, "requests") || sets_resources(pod, "limits") {
        return None;
    }
    let required: Vec<&str> = required.filter(|name| DEMANDED.contains(name)).collect();
    let mut lacking: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for container in ["containers", "initContainers"].iter().flat_map(|list| meta::list_at(pod, &["spec", list])) {
        let part = |kind: &str| amounts(meta::get(container, &["resources", kind]).unwrap_or(&Value::Null));
        let said = compute(&part("requests"), &part("limits"));
        for name in required.iter().filter(|name| !said.contains_key(**name)) {
            lacking.entry(name).or_default().push(meta::str_at(container, &["name"]));
        }
    }
    let parts: Vec<String> = lacking
        .into_iter()
        .map(|(name, mut containers)| {
            containers.sort_unstable();
            containers.dedup();
            format!("{name} for: {}", containers.join(","))
        })
        .collect();
    (!parts.is_empty()).then(|| format!("must specify {}", parts.join("; ")))
}

/// Whether the pod as a whole asks for resources.
fn sets_resources(pod: &Value, kind: &str) -> bool {
    meta::get(pod, &["spec", "resources", kind]).and_then(Value::as_object).is_some_and(|list| list.keys().any(|name| of_pods(name)))
}

/// What a pod as a whole may ask for.
fn of_pods(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with(HUGE_PAGES)
}

/// All requests or limits of a pod: its containers together, at least what each init container needs while it runs, and the overhead.
fn total(pod: &Value, kind: &str) -> Amounts {
    let statuses = |list: &str| meta::list_at(pod, &["status", list]);
    let mut sum = Amounts::new();
    for container in meta::list_at(pod, &["spec", "containers"]) {
        add(&mut sum, &effective(pod, container, statuses("containerStatuses"), kind));
    }
    let (mut sidecars, mut starting) = (Amounts::new(), Amounts::new());
    for container in meta::list_at(pod, &["spec", "initContainers"]) {
        if meta::str_at(container, &["restartPolicy"]) == "Always" {
            let own = effective(pod, container, statuses("initContainerStatuses"), kind);
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            most(&mut starting, &sidecars);
        } else {
            let mut own = amounts(meta::get(container, &["resources", kind]).unwrap_or(&Value::Null));
            add(&mut own, &sidecars);
            most(&mut starting, &own);
        }
    }
    most(&mut sum, &starting);
    let whole_pod = amounts(meta::get(pod, &["spec", "resources", kind]).unwrap_or(&Value::Null));
    sum.extend(whole_pod.into_iter().filter(|(name, _)| of_pods(name)));
    let overhead = amounts(meta::get(pod, &["spec", "overhead"]).unwrap_or(&Value::Null));
    if kind == "requests" {
        add(&mut sum, &overhead);
    } else {
        // Without a limit there is none on the overhead either.
        let limited = overhead.into_iter().filter(|(name, _)| sum.get(name).is_some_and(|limit| !limit.is_zero())).collect();
        add(&mut sum, &limited);
    }
    sum
}

/// What a container holds or is about to hold while its resources are changed in place.
fn effective(pod: &Value, container: &Value, statuses: &[Value], kind: &str) -> Amounts {
    let mut wanted = amounts(meta::get(container, &["resources", kind]).unwrap_or(&Value::Null));
    let name = meta::str_at(container, &["name"]);
    let Some(status) = statuses.iter().find(|status| meta::str_at(status, &["name"]) == name && status.get("resources").is_some()) else {
        return wanted;
    };
    let pending = meta::list_at(pod, &["status", "conditions"]).iter().find(|c| meta::str_at(c, &["type"]) == "PodResizePending");
    if pending.is_some_and(|condition| meta::str_at(condition, &["reason"]) == "Infeasible") {
        wanted.clear();
    }
    most(&mut wanted, &amounts(meta::get(status, &["resources", kind]).unwrap_or(&Value::Null)));
    if kind == "requests" {
        most(&mut wanted, &amounts(status.get("allocatedResources").unwrap_or(&Value::Null)));
    }
    wanted
}

/// The larger of each.
fn most(into: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let larger = into.get(name).map_or(*amount, |have| *have.max(amount));
        into.insert(name.clone(), larger);
    }
}

pub(super) fn is_in_scope(pod: &Value, term: &Term) -> bool {
    match term.scope.as_str() {
        "Terminating" => is_terminating(pod),
        "NotTerminating" => !is_terminating(pod),
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "PriorityClass" => term.selects(Some(meta::str_at(pod, &["spec", "priorityClassName"])).filter(|name| !name.is_empty())),
        "CrossNamespacePodAffinity" => looks_into_other_namespaces(pod),
        _ => false,
    }
}

/// Whether it has an end: the word of quotas for `activeDeadlineSeconds`.
pub(super) fn is_terminating(pod: &Value) -> bool {
    meta::i64_at(pod, &["spec", "activeDeadlineSeconds"]).is_some_and(|secs| secs >= 0)
}

fn is_best_effort(pod: &Value) -> bool {
    match meta::str_at(pod, &["status", "qosClass"]) {
        "" => qos::class(pod) == "BestEffort",
        class => class == "BestEffort",
    }
}

fn looks_into_other_namespaces(pod: &Value) -> bool {
    let elsewhere = |term: &Value| {
        !meta::list_at(term, &["namespaces"]).is_empty() || term.get("namespaceSelector").is_some_and(|selector| !selector.is_null())
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let list = |when: &str| meta::list_at(pod, &["spec", "affinity", kind, when]);
        let required = list("requiredDuringSchedulingIgnoredDuringExecution").iter();
        let preferred = list("preferredDuringSchedulingIgnoredDuringExecution").iter().filter_map(|term| term.get("podAffinityTerm"));
        required.chain(preferred).any(elsewhere)
    })
}
