//! Repairing the default roles and bindings: what is missing is added, what was added stays.
//!
//! Pure. Answers to <https://kubernetes.io/docs/reference/access-authn-authz/rbac/#auto-reconciliation>.

use serde_json::{Map, Value, json};
use trireme_api::meta;

use super::Repair;
use trireme_apiserver::authz::{covers, rule::PolicyRule};

/// `"false"` here, and the object is left alone.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

fn is_protected(actual: &Value) -> bool {
    meta::annotation(actual, AUTOUPDATE) == Some("false")
}

/// Adds the wanted labels and annotations that are missing. True if there were any.
fn merge_metadata(wanted: &Value, repaired: &mut Value) -> bool {
    let mut changed = false;
    for field in ["labels", "annotations"] {
        let Some(entries) = meta::get(wanted, &["metadata", field]).and_then(Value::as_object) else {
            continue;
        };
        let present = meta::map_at(meta_value(repaired), field);
        for (key, value) in entries {
            if !present.contains_key(key) {
                present.insert(key.clone(), value.clone());
                changed = true;
            }
        }
    }
    changed
}

fn meta_value(object: &mut Value) -> &mut Value {
    if !object["metadata"].is_object() {
        object["metadata"] = Value::Object(Map::new());
    }
    &mut object["metadata"]
}

/// Repairs a Role or ClusterRole.
pub fn role(wanted: &Value, actual: &Value) -> Repair {
    if is_protected(actual) {
        return Repair::Nothing;
    }
    let mut repaired = actual.clone();
    let mut changed = merge_metadata(wanted, &mut repaired);
    let held = PolicyRule::list(actual);
    let lacking = covers::missing(&held, &PolicyRule::list(wanted));
    if !lacking.is_empty() {
        let mut rules = meta::list_at(actual, &["rules"]).to_vec();
        rules.extend(lacking.iter().map(PolicyRule::to_value));
        repaired["rules"] = Value::from(rules);
        changed = true;
    }
    let selectors = |role: &Value| meta::list_at(role, &["aggregationRule", "clusterRoleSelectors"]).to_vec();
    let mut present = selectors(actual);
    let missing: Vec<_> = selectors(wanted).into_iter().filter(|selector| !present.contains(selector)).collect();
    if !missing.is_empty() {
        present.extend(missing);
        repaired["aggregationRule"] = json!({"clusterRoleSelectors": present});
        changed = true;
    }
    if changed { Repair::Update(repaired) } else { Repair::Nothing }
}

/// Repairs a RoleBinding or ClusterRoleBinding.
pub fn binding(wanted: &Value, actual: &Value) -> Repair {
    if is_protected(actual) {
        return Repair::Nothing;
    }
    let part = |object: &Value, field: &str| meta::str_at(object, &["roleRef", field]).to_owned();
    if ["kind", "name"].iter().any(|field| part(wanted, field) != part(actual, field)) {
        return Repair::Recreate;
    }
    let mut repaired = actual.clone();
    let mut changed = merge_metadata(wanted, &mut repaired);
    let same = |left: &Value, right: &Value| {
        ["kind", "name", "namespace"].iter().all(|field| meta::str_at(left, &[field]) == meta::str_at(right, &[field]))
    };
    let mut subjects = meta::list_at(actual, &["subjects"]).to_vec();
    for subject in meta::list_at(wanted, &["subjects"]) {
        if !subjects.iter().any(|present| same(present, subject)) {
            subjects.push(subject.clone());
            changed = true;
        }
    }
    if changed {
        repaired["subjects"] = Value::from(subjects);
        Repair::Update(repaired)
    } else {
        Repair::Nothing
    }
}
