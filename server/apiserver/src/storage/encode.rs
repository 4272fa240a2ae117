//! Writing objects as JSON: kind, apiVersion and metadata first, as upstream does, and so that the place of the
//! resourceVersion in a stored payload can be found without parsing it.

use serde_json::{Map, Value};

/// The members that come first, in order.
const FIRST: [&str; 3] = ["kind", "apiVersion", "metadata"];

/// An object's JSON.
pub fn object_json(value: &Value) -> Vec<u8> {
    let Value::Object(map) = value else { return json(value) };
    let mut out = Vec::with_capacity(1024);
    out.push(b'{');
    for key in FIRST {
        if let Some(member) = map.get(key) {
            push_member(&mut out, key, member);
        }
    }
    for (key, member) in map {
        if !FIRST.contains(&key.as_str()) {
            push_member(&mut out, key, member);
        }
    }
    out.push(b'}');
    out
}

/// The payload to store: the object under its storage type, without resourceVersion.
pub fn payload(object: &Value, api_version: &str, kind: &str) -> Vec<u8> {
    let empty = Map::new();
    let map = object.as_object().unwrap_or(&empty);
    let mut out = Vec::with_capacity(1024);
    out.push(b'{');
    push_member(&mut out, "kind", &Value::from(kind));
    push_member(&mut out, "apiVersion", &Value::from(api_version));
    out.extend_from_slice(b",\"metadata\":{");
    let mut first = true;
    for (key, member) in map.get("metadata").and_then(Value::as_object).unwrap_or(&empty) {
        if matches!(key.as_str(), "resourceVersion" | "selfLink") {
            continue;
        }
        if !first {
            out.push(b',');
        }
        first = false;
        out.extend(json(&Value::from(key.as_str())));
        out.push(b':');
        out.extend(json(member));
    }
    out.push(b'}');
    for (key, member) in map {
        if !FIRST.contains(&key.as_str()) {
            push_member(&mut out, key, member);
        }
    }
    out.push(b'}');
    out
}

fn push_member(out: &mut Vec<u8>, key: &str, member: &Value) {
    if out.len() > 1 {
        out.push(b',');
    }
    out.extend(json(&Value::from(key)));
    out.push(b':');
    out.extend(json(member));
}

fn json(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("invariant: a JSON value has string keys")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn order_and_resource_version() {
        let object = json!({"apiVersion": "x", "data": {"a": "b"}, "kind": "y", "metadata": {"name": "n", "resourceVersion": "5"}});
        assert_eq!(
            payload(&object, "v1", "ConfigMap"),
            br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"n"},"data":{"a":"b"}}"#
        );
        assert_eq!(
            object_json(&object),
            br#"{"kind":"y","apiVersion":"x","metadata":{"name":"n","resourceVersion":"5"},"data":{"a":"b"}}"#
        );
    }
}
