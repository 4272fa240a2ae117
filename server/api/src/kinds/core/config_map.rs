//! ConfigMaps, and the rules that Secrets share with them.

use serde_json::{Value, json};

use crate::field::FieldPath;
use crate::names;
use crate::resource::{Cells, Column, Kind};
use crate::validate::{At, same};

/// The most bytes of data in one object.
pub(crate) const MAX_BYTES: usize = 1024 * 1024;

/// Configuration as keys and values.
pub(crate) struct ConfigMap;

impl Kind for ConfigMap {
    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn validate(&self, object: &At<'_>) {
        config_map(object);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        config_map(object);
        immutable(object, old, &["data", "binaryData"]);
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Data|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let count = ["data", "binaryData"].map(|key| cells.at(&[key]).as_object().map_or(0, serde_json::Map::len));
        vec![cells.name(), json!(count[0] + count[1]), cells.age()]
    }
}

fn config_map(object: &At<'_>) {
    let (data, binary) = (object.at("data"), object.at("binaryData"));
    let mut bytes = 0;
    for (key, value) in data.entries() {
        names::is_config_map_key(key).into_iter().for_each(|message| value.invalid_as(key, message));
        if binary.at(key).is_set() {
            value.invalid_as(key, "duplicate of key present in binaryData");
        }
        bytes += value.len();
    }
    for (key, value) in binary.entries() {
        names::is_config_map_key(key).into_iter().for_each(|message| value.invalid_as(key, message));
        bytes += decoded_len(value.text());
    }
    if bytes > MAX_BYTES {
        object.named(FieldPath::new("")).too_long(MAX_BYTES);
    }
}

/// `immutable: true` freezes these fields, and itself.
pub(crate) fn immutable(object: &At<'_>, old: &At<'_>, fields: &[&str]) {
    if !old.at("immutable").flag() {
        return;
    }
    let message = "field is immutable when `immutable` is set";
    if !object.at("immutable").flag() {
        object.at("immutable").forbidden(message);
    }
    for field in fields {
        if !same(object.at(field).value, old.at(field).value) {
            object.at(field).forbidden(message);
        }
    }
}

pub(crate) fn decoded_len(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}
