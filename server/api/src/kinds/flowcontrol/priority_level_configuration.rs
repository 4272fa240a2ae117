//! PriorityLevelConfigurations.

use serde_json::{Value, json};

use crate::default::{Lit::*, Set, each, fill, set, text};
use crate::kinds::text::NONE;
use crate::resource::{Cells, Column, Kind, carry};
use crate::time::Timestamp;

const PRIORITY_LEVEL: &[Set] = &[
    Set("spec.exempt", "nominalConcurrencyShares", I(0)),
    Set("spec.exempt", "lendablePercent", I(0)),
    Set("spec.limited", "nominalConcurrencyShares", I(30)),
    Set("spec.limited", "lendablePercent", I(0)),
    Set("spec.limited.limitResponse.queuing", "queues", Z(64)),
    Set("spec.limited.limitResponse.queuing", "handSize", Z(8)),
    Set("spec.limited.limitResponse.queuing", "queueLengthLimit", Z(50)),
];

/// How many requests of a priority run at once.
pub(crate) struct PriorityLevelConfiguration;

impl Kind for PriorityLevelConfiguration {
    fn unconditional_update(&self) -> bool {
        true
    }

    fn missing_behaviour(&self) -> &'static str {
        "shares, queues and hand sizes; the mandatory objects"
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj), Set("", "status", Obj)]);
        priority_level(object);
    }

    fn prepare_for_status_update(&self, object: &mut Value, old: &Value, _now: Timestamp) {
        carry(object, old, "metadata");
    }

    fn kept_by_status(&self) -> &'static [&'static str] {
        &["metadata", "spec"]
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Type|NominalConcurrencyShares|Queues|HandSize|QueueLengthLimit|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let section = if cells.text(&["spec", "type"]) == "Exempt" { "exempt" } else { "limited" };
        let number = |path: &[&str]| match cells.at(path) {
            Value::Null => json!(NONE),
            number => number.clone(),
        };
        let queuing = ["spec", "limited", "limitResponse", "queuing"];
        let queue = |field: &str| number(&[&queuing[..], &[field]].concat());
        vec![
            cells.name(),
            json!(cells.text(&["spec", "type"])),
            number(&["spec", section, "nominalConcurrencyShares"]),
            queue("queues"),
            queue("handSize"),
            queue("queueLengthLimit"),
            cells.age(),
        ]
    }
}

/// The mandatory exempt level has its section even if the client left it out.
fn priority_level(object: &mut Value) {
    each(object, "spec", &mut |spec| {
        if text(spec, "type") == "Exempt" {
            set(spec, "exempt", Obj);
        }
    });
    fill(object, PRIORITY_LEVEL);
}
