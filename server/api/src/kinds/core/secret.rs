//! Secrets: encrypted before they are stored.

use base64::Engine as _;
use serde_json::{Value, json};

use super::config_map::{MAX_BYTES, decoded_len, immutable};
use crate::default::{Lit::S, Set, fill, object as child};
use crate::names;
use crate::resource::{Cells, Column, Kind, SelectableField};
use crate::validate::At;

/// Confidential data as keys and values.
pub(crate) struct Secret;

impl Kind for Secret {
    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn is_sealed(&self) -> bool {
        true
    }

    fn default(&self, _version: &str, object: &mut Value) {
        default(object);
    }

    fn validate(&self, object: &At<'_>) {
        secret(object);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        secret(object);
        object.at("type").immutable(&old.at("type"));
        immutable(object, old, &["data"]);
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Type|Data|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let count = cells.at(&["data"]).as_object().map_or(0, serde_json::Map::len);
        vec![cells.name(), json!(cells.text(&["type"])), json!(count), cells.age()]
    }

    fn selectable_fields(&self) -> Vec<SelectableField> {
        vec![SelectableField::new("type")]
    }
}

/// `stringData` is a way to write `data`; it never comes back.
fn default(object: &mut Value) {
    fill(object, &[Set("", "type", S("Opaque"))]);
    let Value::Object(map) = object else { return };
    let Some(plain) = map.remove("stringData") else { return };
    let Value::Object(plain) = plain else { return };
    if plain.is_empty() {
        return;
    }
    let Some(data) = child(map, "data") else { return };
    for (key, value) in plain {
        let encoded = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default());
        data.insert(key, json!(encoded));
    }
}

fn secret(object: &At<'_>) {
    let data = object.at("data");
    let mut bytes = 0;
    for (key, value) in data.entries() {
        names::is_config_map_key(key).into_iter().for_each(|message| value.invalid_as(key, message));
        bytes += decoded_len(value.text());
    }
    if bytes > MAX_BYTES {
        data.too_long(MAX_BYTES);
    }
    let has = |key: &str| data.at(key).is_set();
    let required = |key: &str| data.named(data.path.key(key)).required("");
    match object.at("type").text() {
        "kubernetes.io/service-account-token" => {
            let notes = object.at("metadata").at("annotations");
            const KEY: &str = "kubernetes.io/service-account.name";
            if notes.at(KEY).text().is_empty() {
                notes.named(notes.path.key(KEY)).required("");
            }
        }
        "kubernetes.io/dockercfg" => json_key(&data, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => json_key(&data, ".dockerconfigjson"),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            required("username");
            required("password");
        }
        "kubernetes.io/ssh-auth" if !data.at("ssh-privatekey").is_full() => required("ssh-privatekey"),
        "kubernetes.io/tls" => ["tls.crt", "tls.key"].iter().filter(|key| !has(key)).for_each(|key| required(key)),
        _ => {}
    }
}

/// Checks that the key exists and holds a JSON object. Errors never contain the value.
fn json_key(data: &At<'_>, key: &str) {
    let value = data.at(key).named(data.path.key(key));
    if !value.is_set() {
        value.required("");
        return;
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(value.text()).unwrap_or_default();
    let message = match serde_json::from_slice::<Value>(&bytes) {
        Ok(Value::Object(_) | Value::Null) => return,
        Ok(_) => "json: cannot unmarshal into Go value of type map[string]interface {}".to_owned(),
        Err(_) if bytes.is_empty() => "unexpected end of JSON input".to_owned(),
        Err(error) if error.is_eof() => "unexpected end of JSON input".to_owned(),
        Err(_) => "invalid character in JSON input".to_owned(),
    };
    value.invalid_as("<secret contents redacted>", message);
}
