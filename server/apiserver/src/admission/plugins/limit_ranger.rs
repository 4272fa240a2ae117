//! LimitRanger: containers get a namespace's default requests and limits, and what is beyond its bounds is refused.
//!
//! Answers to <https://kubernetes.io/docs/concepts/policy/limit-range/>.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::{Map, Value, json};
use trireme_api::meta;
use trireme_api::quantity::Quantity;

use crate::admission::effects::Effects;
use crate::admission::forbid;
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::error::Answer;
use crate::storage::lookup::{LookedUp, ObjectReader};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// Beyond this, amounts are compared in whole units (upstream's `resource.MaxMilliValue`).
const MILLI_MAX: i64 = i64::MAX / 1000;
const POD_LEVEL: [&str; 2] = ["cpu", "memory"];

/// Amounts by resource.
type Amounts = BTreeMap<String, Quantity>;

/// The plugin.
pub struct LimitRanger {
    reader: Arc<dyn ObjectReader>,
}

impl LimitRanger {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> LimitRanger {
        LimitRanger { reader: environment.reader.clone() }
    }

    fn ranges(&self, request: &AdmissionRequest) -> Vec<LookedUp> {
        self.reader.list("", "limitranges", Some(&request.namespace))
    }

    fn judge(&self, request: &AdmissionRequest) -> Answer<()> {
        let Some(object) = request.object() else { return Ok(()) };
        let claim = request.resource.resource == "persistentvolumeclaims";
        for range in self.ranges(request) {
            let mut complaints = Vec::new();
            for limit in meta::list_at(&range.object, &["spec", "limits"]) {
                match meta::str_at(limit, &["type"]) {
                    "PersistentVolumeClaim" if claim => judge_claim(limit, object, &mut complaints),
                    "Container" if !claim => judge_containers(limit, object, &mut complaints),
                    "Pod" if !claim => judge_pod(limit, object, &mut complaints),
                    _ => {}
                }
            }
            if !complaints.is_empty() {
                return Err(forbid(request, &aggregate(complaints)));
            }
        }
        Ok(())
    }
}

impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Admit, Phase::Validate]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        let being_deleted = request.old_object.as_ref().is_some_and(|old| meta::deletion_timestamp(old).is_some());
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        !being_deleted
            && ((request.operation == Operation::Create && request.is_on("", "pods", ""))
                || (request.operation == Operation::Update && request.is_on("", "pods", "resize"))
                || (writes && request.is_on("", "persistentvolumeclaims", "")))
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        if request.resource.resource == "pods" {
            for range in self.ranges(request) {
                if let Some(pod) = request.object_mut() {
                    fill_in(pod, &range.object);
                }
            }
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(std::future::ready(self.judge(request)))
    }
}

// === defaults ===

fn fill_in(pod: &mut Value, range: &Value) {
    let (mut requests, mut limits) = (Map::new(), Map::new());
    for limit in meta::list_at(range, &["spec", "limits"]).iter().filter(|limit| limit["type"] == "Container") {
        let map = |key: &str| limit.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
        requests.extend(map("defaultRequest"));
        limits.extend(map("default"));
    }
    let mut notes = Vec::new();
    for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter(|container| container.is_object()) {
            let name = meta::str_at(container, &["name"]).to_owned();
            let added_limits = merge(container, "limits", &limits);
            let added_requests = merge(container, "requests", &requests);
            for (added, kind) in [(added_requests, "request"), (added_limits, "limit")] {
                if !added.is_empty() {
                    notes.push(format!("{} {kind} for {what} {name}", added.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        meta::set_annotation(pod, ANNOTATION, &format!("LimitRanger plugin set: {}", notes.join("; ")));
    }
}

/// Adds what is missing; gives the names of what was added.
fn merge(container: &mut Value, key: &str, defaults: &Map<String, Value>) -> Vec<String> {
    if defaults.is_empty() {
        return Vec::new();
    }
    let resources = meta::map_at(container, "resources");
    let own = resources.entry(key.to_owned()).or_insert_with(|| json!({}));
    if !own.is_object() {
        *own = json!({});
    }
    let mut added = Vec::new();
    for (name, amount) in defaults {
        if own.get(name).is_none() {
            own[name] = amount.clone();
            added.push(name.clone());
        }
    }
    added.sort();
    added
}

// === bounds ===

fn judge_claim(limit: &Value, claim: &Value, complaints: &mut Vec<String>) {
    let requests = amounts(meta::get(claim, &["spec", "resources", "requests"]));
    let kind = "PersistentVolumeClaim";
    for (name, least) in amounts(limit.get("min")) {
        complaints.extend(below(kind, &name, least, &requests, &Amounts::new()));
    }
    for (name, most) in amounts(limit.get("max")) {
        match requests.get(&name) {
            None => complaints.push(format!("maximum {name} usage per {kind} is {most}.  No request is specified")),
            Some(request) if exceeds(request, &most) => {
                complaints.push(format!("maximum {name} usage per {kind} is {most}, but request is {request}"));
            }
            Some(_) => {}
        }
    }
}

fn judge_containers(limit: &Value, pod: &Value, complaints: &mut Vec<String>) {
    for list in ["containers", "initContainers"] {
        for container in meta::list_at(pod, &["spec", list]) {
            let of = |key: &str| amounts(meta::get(container, &["resources", key]));
            judge_amounts("Container", limit, &of("requests"), &of("limits"), complaints);
        }
    }
}

fn judge_pod(limit: &Value, pod: &Value, complaints: &mut Vec<String>) {
    judge_amounts("Pod", limit, &of_pod(pod, "requests"), &of_pod(pod, "limits"), complaints);
}

fn judge_amounts(kind: &str, limit: &Value, requests: &Amounts, limits: &Amounts, complaints: &mut Vec<String>) {
    for (name, least) in amounts(limit.get("min")) {
        complaints.extend(below(kind, &name, least, requests, limits));
    }
    for (name, most) in amounts(limit.get("max")) {
        complaints.extend(above(kind, &name, most, requests, limits));
    }
    for (name, ratio) in amounts(limit.get("maxLimitRequestRatio")) {
        complaints.extend(out_of_ratio(kind, &name, ratio, requests, limits));
    }
}

fn below(kind: &str, name: &str, least: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let text = format!("minimum {name} usage per {kind} is {least}");
    match (requests.get(name), limits.get(name)) {
        (None, _) => Some(format!("{text}.  No request is specified")),
        (Some(request), _) if exceeds(&least, request) => Some(format!("{text}, but request is {request}")),
        (_, Some(limit)) if exceeds(&least, limit) => Some(format!("{text}, but limit is {limit}")),
        _ => None,
    }
}

fn above(kind: &str, name: &str, most: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let text = format!("maximum {name} usage per {kind} is {most}");
    match (requests.get(name), limits.get(name)) {
        (_, None) => Some(format!("{text}.  No limit is specified")),
        (_, Some(limit)) if exceeds(limit, &most) => Some(format!("{text}, but limit is {limit}")),
        (Some(request), _) if exceeds(request, &most) => Some(format!("{text}, but request is {request}")),
        _ => None,
    }
}

#[allow(clippy::cast_precision_loss)]
fn out_of_ratio(kind: &str, name: &str, ratio: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let text = format!("{name} max limit to request ratio per {kind} is {ratio}");
    let Some(request) = requests.get(name).filter(|amount| !amount.is_zero()) else {
        return Some(format!("{text}, but no request is specified or request is 0"));
    };
    let Some(limit) = limits.get(name).filter(|amount| !amount.is_zero()) else {
        return Some(format!("{text}, but no limit is specified or limit is 0"));
    };
    let observed = limit.as_f64() / request.as_f64();
    (observed > ratio.as_f64()).then(|| format!("{text}, but provided ratio is {observed:.6}"))
}

/// Whether `left` is more than `right`, at a precision that both have.
fn exceeds(left: &Quantity, right: &Quantity) -> bool {
    if left.value() <= MILLI_MAX && right.value() <= MILLI_MAX {
        left.milli_value() > right.milli_value()
    } else {
        left.value() > right.value()
    }
}

fn amounts(value: Option<&Value>) -> Amounts {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(name, amount)| Some((name.clone(), trireme_api::quantity::from_json(amount).ok()?))).collect()
}

/// What a pod asks for: its containers together, or its largest init container, sidecars counted all along; amounts of the
/// pod's own replace those.
fn of_pod(pod: &Value, key: &str) -> Amounts {
    let of = |container: &Value| amounts(meta::get(container, &["resources", key]));
    let mut total = Amounts::new();
    for container in meta::list_at(pod, &["spec", "containers"]) {
        add(&mut total, &of(container));
    }
    let (mut sidecars, mut largest) = (Amounts::new(), Amounts::new());
    for container in meta::list_at(pod, &["spec", "initContainers"]) {
        let own = of(container);
        if meta::str_at(container, &["restartPolicy"]) == "Always" {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            raise(&mut largest, &sidecars);
        } else {
            let mut with_sidecars = own;
            add(&mut with_sidecars, &sidecars);
            raise(&mut largest, &with_sidecars);
        }
    }
    raise(&mut total, &largest);
    for (name, amount) in amounts(meta::get(pod, &["spec", "resources", key])) {
        if POD_LEVEL.contains(&name.as_str()) || name.starts_with("hugepages-") {
            total.insert(name, amount);
        }
    }
    total
}

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = total.get(name).map_or(*amount, |own| own.plus(amount));
        total.insert(name.clone(), sum);
    }
}

fn raise(total: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        if total.get(name).is_none_or(|own| amount > own) {
            total.insert(name.clone(), *amount);
        }
    }
}

/// As upstream's aggregated errors read.
fn aggregate(mut complaints: Vec<String>) -> String {
    complaints.dedup();
    match complaints.as_slice() {
        [one] => one.clone(),
        _ => format!("[{}]", complaints.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(limit: Value) -> Value {
        json!({"spec": {"limits": [limit]}})
    }

    #[test]
    fn defaults_are_filled_in_and_noted() {
        let mut pod = json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}, {"name": "b"}]}});
        fill_in(
            &mut pod,
            &range(json!({"type": "Container", "default": {"cpu": "2"}, "defaultRequest": {"cpu": "100m", "memory": "1Mi"}})),
        );
        let resources = |index: usize| pod["spec"]["containers"][index]["resources"].clone();
        assert_eq!(resources(0), json!({"requests": {"cpu": "1", "memory": "1Mi"}, "limits": {"cpu": "2"}}));
        assert_eq!(resources(1), json!({"requests": {"cpu": "100m", "memory": "1Mi"}, "limits": {"cpu": "2"}}));
        let note = "LimitRanger plugin set: memory request for container a; cpu limit for container a; cpu, memory request for container b; \
                    cpu limit for container b";
        assert_eq!(meta::annotation(&pod, ANNOTATION), Some(note));
    }

    #[test]
    fn bounds_are_those_of_upstream() {
        let pod = |requests: Value, limits: Value| json!({"spec": {"containers": [{"name": "a", "resources": {"requests": requests, "limits": limits}}]}});
        let judged = |kind: &str, limit: Value, pod: &Value| {
            let mut complaints = Vec::new();
            match kind {
                "Pod" => judge_pod(&limit, pod, &mut complaints),
                _ => judge_containers(&limit, pod, &mut complaints),
            }
            complaints
        };
        let small = pod(json!({"cpu": "50m"}), json!({"cpu": "100m"}));
        assert_eq!(
            judged("Container", json!({"min": {"cpu": "75m"}}), &small),
            ["minimum cpu usage per Container is 75m, but request is 50m"]
        );
        assert!(judged("Container", json!({"min": {"cpu": "50m"}, "max": {"cpu": "100m"}}), &small).is_empty());
        assert_eq!(
            judged("Pod", json!({"max": {"memory": "1Gi"}}), &small),
            ["maximum memory usage per Pod is 1Gi.  No limit is specified"]
        );
        assert_eq!(
            judged("Container", json!({"maxLimitRequestRatio": {"cpu": "1500m"}}), &small),
            ["cpu max limit to request ratio per Container is 1500m, but provided ratio is 2.000000"]
        );
    }
}
