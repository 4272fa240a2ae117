//! PriorityClasses.

use serde_json::{Value, json};

use crate::default::{Lit::S, Set, fill};
use crate::resource::{Cells, Column, Kind};
use crate::validate::At;

const SYSTEM_PRIORITY_MAX_USER: i64 = 1_000_000_000;

/// How much pods matter.
pub(crate) struct PriorityClass;

impl Kind for PriorityClass {
    fn has_status(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "preemptionPolicy", S("PreemptLowerPriority"))]);
    }

    fn validate(&self, object: &At<'_>) {
        priority_class(object);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        priority_class(object);
        priority_class_update(object, old);
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Value:i|Global-Default:b|Age|PreemptionPolicy")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        vec![
            cells.name(),
            json!(cells.int(&["value"])),
            cells.flag(&["globalDefault"]),
            cells.age(),
            json!(cells.text(&["preemptionPolicy"])),
        ]
    }
}

fn priority_class(object: &At<'_>) {
    let name = object.at("metadata").at("name");
    let value = object.at("value").int().unwrap_or(0);
    if name.text().starts_with("system-") {
        if let Some(error) = system_error(name.text(), value, object.at("globalDefault").flag()) {
            name.forbidden(format!("priority class names with 'system-' prefix are reserved for system use only. error: {error}"));
        }
    } else if value > SYSTEM_PRIORITY_MAX_USER {
        object.at("value").forbidden(format!("maximum allowed value of a user defined priority is {SYSTEM_PRIORITY_MAX_USER}"));
    }
    if object.at("preemptionPolicy").is_set() {
        object.at("preemptionPolicy").one_of(&["PreemptLowerPriority", "Never"]);
    }
}

/// What is wrong with a class whose name is the system's.
fn system_error(name: &str, value: i64, global_default: bool) -> Option<String> {
    let known = crate::bootstrap::priority_classes();
    let Some(class) = known.iter().find(|class| class["metadata"]["name"] == *name) else {
        return Some(format!("{name} is not a known system priority class"));
    };
    if class["value"] != json!(value) {
        return Some(format!("value of {name} PriorityClass must be {}", class["value"]));
    }
    global_default.then(|| format!("globalDefault of {name} PriorityClass must be false"))
}

fn priority_class_update(object: &At<'_>, old: &At<'_>) {
    if object.at("value").int().unwrap_or(0) != old.at("value").int().unwrap_or(0) {
        object.at("value").forbidden("may not be changed in an update.");
    }
    object.at("preemptionPolicy").immutable(&old.at("preemptionPolicy"));
}

#[cfg(test)]
mod tests {
    use super::system_error;

    #[test]
    fn the_systems_names_belong_to_the_systems_classes() {
        let cases = [
            ("system-node-critical", 2_000_001_000, false, None),
            ("system-node-critical", 5, false, Some("value of system-node-critical PriorityClass must be 2000001000")),
            ("system-node-critical", 2_000_001_000, true, Some("globalDefault of system-node-critical PriorityClass must be false")),
            ("system-mine", 5, false, Some("system-mine is not a known system priority class")),
        ];
        for (name, value, global_default, expected) in cases {
            assert_eq!(system_error(name, value, global_default).as_deref(), expected);
        }
    }
}
