//! StatefulSets.

use serde_json::{Value, json};

use crate::default::{Lit::*, Set, fill};
use crate::field::FieldPath;
use crate::kinds::core::persistent_volume_claim::claim;
use crate::kinds::core::pod;
use crate::kinds::text::containers;
use crate::kinds::workload::{self, always_template, at_most_all, int_or_percent, rolling_update, selector_matches, template_matches};
use crate::meta;
use crate::names;
use crate::resource::{Cells, Column, Kind};
use crate::validate::{At, Errors, NameRule, same};

/// The fields that upstream's encoder always writes.
const ALWAYS: &[Set] = &[
    Set("", "spec", Obj),
    Set("spec", "selector", Null),
    Set("spec", "template", Obj),
    Set("spec", "serviceName", Empty),
    Set("spec", "updateStrategy", Obj),
    Set("", "status", Obj),
    Set("status", "replicas", I(0)),
    Set("status", "availableReplicas", I(0)),
    Set("spec.volumeClaimTemplates[]", "metadata", Obj),
    Set("spec.volumeClaimTemplates[]", "spec", Obj),
    Set("spec.volumeClaimTemplates[].spec", "resources", Obj),
    Set("spec.volumeClaimTemplates[]", "status", Obj),
];

/// Upstream: `SetDefaults_StatefulSet`.
const DEFAULTS: &[Set] = &[
    Set("spec", "podManagementPolicy", S("OrderedReady")),
    Set("spec.updateStrategy", "type", S("RollingUpdate")),
    Set("spec", "persistentVolumeClaimRetentionPolicy", Obj),
    Set("spec.persistentVolumeClaimRetentionPolicy", "whenDeleted", S("Retain")),
    Set("spec.persistentVolumeClaimRetentionPolicy", "whenScaled", S("Retain")),
    Set("spec", "replicas", I(1)),
    Set("spec", "revisionHistoryLimit", I(10)),
    Set("spec.volumeClaimTemplates[]", "apiVersion", S("v1")),
    Set("spec.volumeClaimTemplates[]", "kind", S("PersistentVolumeClaim")),
    Set("spec.volumeClaimTemplates[].spec", "volumeMode", S("Filesystem")),
    Set("spec.volumeClaimTemplates[].status", "phase", S("Pending")),
];

/// Pods with names and storage of their own.
pub(crate) struct StatefulSet;

impl Kind for StatefulSet {
    fn unconditional_update(&self) -> bool {
        true
    }

    fn missing_behaviour(&self) -> &'static str {
        pod::MISSING
    }

    fn name_rule(&self) -> NameRule {
        names::is_dns1123_label
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, ALWAYS);
        pod::default::template(object, "spec.template");
        fill(object, DEFAULTS);
        rolling_update(object, "spec.updateStrategy", &[("partition", json!(0))]);
    }

    fn validate_create(&self, object: &At<'_>) {
        let spec = object.at("spec");
        stateful_set(&spec);
        for template in spec.at("volumeClaimTemplates").items() {
            claim::spec(&template.at("spec"));
        }
        spec.at("serviceName").may_obey(names::is_dns1123_label);
        completed(&spec, &|spec| {
            template_matches(spec);
            always_template(spec, "StatefulSet");
        });
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        let spec = object.at("spec");
        stateful_set(&spec);
        completed(&spec, &template_matches);
        // Who has a template that was valid once can still scale and delete.
        let errors = Errors::default();
        completed(&At::new(old.at("spec").value, FieldPath::root(), &errors), &|spec| always_template(spec, "StatefulSet"));
        if errors.take().is_empty() {
            completed(&spec, &|spec| always_template(spec, "StatefulSet"));
        }
        stateful_set_update(object, old);
    }

    fn validate_status(&self, object: &At<'_>, old: &At<'_>) {
        status(&object.at("status"));
        workload::collisions(object, old);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = pod::warnings::template(object, old, "spec.template");
        if meta::i64_at(object, &["spec", "revisionHistoryLimit"]).is_some_and(|limit| limit < 0) {
            warnings.push(
                "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".to_owned(),
            );
        }
        warnings
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Ready|Age|+Containers|+Images")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let ready = format!("{}/{}", cells.int(&["status", "readyReplicas"]), cells.int(&["spec", "replicas"]));
        let mut row = vec![cells.name(), json!(ready), cells.age()];
        row.extend(containers(cells.list(&["spec", "template", "spec", "containers"])));
        row
    }
}

/// Everything but the template.
fn stateful_set(spec: &At<'_>) {
    match spec.at("podManagementPolicy").text() {
        "" => spec.at("podManagementPolicy").required(""),
        "OrderedReady" | "Parallel" => {}
        _ => spec.at("podManagementPolicy").invalid("must be 'OrderedReady' or 'Parallel'"),
    }
    let strategy = spec.at("updateStrategy");
    let rolling = strategy.at("rollingUpdate");
    match strategy.at("type").text() {
        "" => strategy.required(""),
        "OnDelete" => {
            if rolling.is_set() {
                rolling.invalid("only allowed for updateStrategy 'RollingUpdate'");
            }
        }
        "RollingUpdate" => {
            rolling.at("partition").non_negative();
            if rolling.at("maxUnavailable").is_set() {
                int_or_percent(&rolling.at("maxUnavailable"));
                at_most_all(&rolling.at("maxUnavailable"));
            }
        }
        _ => strategy.invalid("must be 'RollingUpdate' or 'OnDelete'"),
    }
    let retention = spec.at("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        retention.at(field).may_be_one_of(&["Delete", "Retain"]);
    }
    spec.at("replicas").non_negative();
    spec.at("minReadySeconds").non_negative();
    spec.at("ordinals").at("start").non_negative();
    selector_matches(spec, "statefulset");
}

/// Checks the spec with its template as the controller completes it: with a volume for each claim, and with names of its own.
fn completed(spec: &At<'_>, check: &dyn Fn(&At<'_>)) {
    let mut whole = spec.value.clone();
    let claims: Vec<&str> = spec.at("volumeClaimTemplates").items().map(|claim| claim.at("metadata").at("name").text()).collect();
    if let Some(pod) = whole.pointer_mut("/template/spec").and_then(Value::as_object_mut) {
        pod.remove("hostname");
        pod.remove("subdomain");
        if !claims.is_empty() {
            let own = claims.iter().map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
            let given = pod.get("volumes").and_then(Value::as_array).cloned().unwrap_or_default();
            let rest = given.into_iter().filter(|volume| !claims.iter().any(|name| volume["name"] == *name));
            let volumes: Vec<Value> = own.chain(rest).collect();
            pod.insert("volumes".to_owned(), json!(volumes));
        }
    }
    check(&At::new(&whole, spec.path.clone(), spec.errors));
}

/// Counters are not negative, and parts are not more than the whole.
fn status(status: &At<'_>) {
    const PARTS: [&str; 4] = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    for counter in ["replicas"].iter().chain(&PARTS).chain(&["observedGeneration", "collisionCount"]) {
        status.at(counter).non_negative();
    }
    let count = |name: &str| status.at(name).int().unwrap_or(0);
    for part in PARTS {
        if count(part) > count("replicas") {
            status.at(part).invalid("cannot be greater than status.replicas");
        }
    }
    if count("availableReplicas") > count("readyReplicas") {
        status.at("availableReplicas").invalid("cannot be greater than status.readyReplicas");
    }
}

/// A StatefulSet changes only in these; the rest of its spec is its identity.
fn stateful_set_update(object: &At<'_>, old: &At<'_>) {
    const MUTABLE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let strip = |spec: &Value| {
        let mut spec = spec.clone();
        if let Some(map) = spec.as_object_mut() {
            MUTABLE.iter().for_each(|key| {
                map.remove(*key);
            });
        }
        spec
    };
    let spec = object.at("spec");
    if !same(&strip(spec.value), &strip(old.at("spec").value)) {
        spec.forbidden(
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
             'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        );
    }
}
