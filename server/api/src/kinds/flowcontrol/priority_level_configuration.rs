//! PriorityLevelConfigurations. Upstream: `pkg/apis/flowcontrol/validation`.

use serde_json::{Value, json};

use crate::bootstrap;
use crate::default::{Lit::*, Set, each, fill, set, text};
use crate::kinds::text::NONE;
use crate::meta;
use crate::resource::{Cells, Column, Kind, carry};
use crate::time::Timestamp;
use crate::validate::{At, same};

/// The most queues of a level.
const QUEUES_MAX: i64 = 10_000_000;
/// The bits of a flow's hash that deal its queues.
const HASH_BITS: u32 = 60;
const EXEMPT: &str = "exempt";

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

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj), Set("", "status", Obj)]);
        priority_level(object);
    }

    fn prepare_for_status_update(&self, object: &mut Value, old: &Value, _now: Timestamp) {
        carry(object, old, "metadata");
    }

    fn validate(&self, object: &At<'_>) {
        let name = object.at("metadata").at("name");
        spec(&object.at("spec"), name.text());
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

fn spec(spec: &At<'_>, name: &str) {
    let kind = spec.at("type");
    if (name == EXEMPT) != (kind.text() == "Exempt") {
        kind.invalid_as(kind.text(), "type must be 'Exempt' if and only if name is 'exempt'");
    }
    let (exempt, limited) = (spec.at("exempt"), spec.at("limited"));
    match kind.text() {
        "Exempt" => {
            if limited.is_set() {
                limited.forbidden("must be nil if the type is not Limited");
            }
            if exempt.is_set() { shares(&exempt) } else { exempt.required("must not be empty") }
        }
        "Limited" => {
            if exempt.is_set() {
                exempt.forbidden("must be nil if the type is not Exempt");
            }
            if limited.is_set() { limited_level(&limited) } else { limited.required("must not be empty") }
        }
        _ => kind.not_supported(&["Exempt", "Limited"]),
    }
    mandatory(spec, name);
}

/// The mandatory levels are as they are, but for the shares of the exempt one.
fn mandatory(spec: &At<'_>, name: &str) {
    if !matches!(name, EXEMPT | "catch-all") {
        return;
    }
    let Some(mut fixed) = bootstrap::priority_levels().into_iter().find(|one| meta::name(one) == name) else { return };
    let rest = if name == EXEMPT {
        fixed["spec"][EXEMPT] = spec.at(EXEMPT).value.clone();
        " except the 'spec.exempt' field"
    } else {
        ""
    };
    if !same(&fixed["spec"], spec.value) {
        spec.invalid(format!("spec of '{name}'{rest} must equal the fixed value"));
    }
}

fn shares(level: &At<'_>) {
    let (shares, lendable) = (level.at("nominalConcurrencyShares"), level.at("lendablePercent"));
    if shares.int().is_some_and(|number| number < 0) {
        shares.invalid("must be a non-negative integer");
    }
    if lendable.int().is_some_and(|percent| !(0..=100).contains(&percent)) {
        lendable.invalid("must be between 0 and 100, inclusive");
    }
}

fn limited_level(level: &At<'_>) {
    shares(level);
    let borrowing = level.at("borrowingLimitPercent");
    if borrowing.int().is_some_and(|percent| percent < 0) {
        borrowing.invalid("if specified, must be a non-negative integer");
    }
    let response = level.at("limitResponse");
    let queuing = response.at("queuing");
    match response.at("type").text() {
        "Reject" if queuing.is_set() => queuing.forbidden("must be nil if limited.limitResponse.type is not Limited"),
        "Reject" => {}
        "Queue" if queuing.is_set() => queues(&queuing),
        "Queue" => queuing.required("must not be empty if limited.limitResponse.type is Limited"),
        _ => response.at("type").not_supported(&["Queue", "Reject"]),
    }
}

fn queues(queuing: &At<'_>) {
    let number = |key: &str| queuing.at(key).int().unwrap_or(0);
    if number("queueLengthLimit") <= 0 {
        queuing.at("queueLengthLimit").invalid_as(number("queueLengthLimit"), "must be positive");
    }
    let (queues, hand) = (number("queues"), number("handSize"));
    if queues <= 0 {
        queuing.at("queues").invalid_as(queues, "must be positive");
    } else if queues > QUEUES_MAX {
        queuing.at("queues").invalid(format!("must not be greater than {QUEUES_MAX}"));
    }
    if hand <= 0 {
        queuing.at("handSize").invalid_as(hand, "must be positive");
    } else if hand > queues {
        queuing.at("handSize").invalid(format!("should not be greater than queues ({queues})"));
    } else if entropy_bits(queues, hand) > HASH_BITS {
        queuing
            .at("handSize")
            .invalid(format!("required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"));
    }
}

/// The bits that tell all hands apart; more than [`HASH_BITS`] where they are too many.
fn entropy_bits(queues: i64, hand: i64) -> u32 {
    let mut hands = 1_u128;
    for dealt in 0..hand {
        hands = hands.saturating_mul(u128::try_from(queues - dealt).unwrap_or(1));
        if hands > 1 << HASH_BITS {
            return HASH_BITS + 1;
        }
    }
    // The logarithm, rounded up.
    128 - (hands - 1).leading_zeros()
}
