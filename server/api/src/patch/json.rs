//! JSON patch, RFC 6902, bounded in operations, copies, nesting and work.
//!
//! An operation can double an object (`copy` into itself) or wrap it once more (`move`), so each is bounded before it is
//! applied. Upstream: `jsonPatcher` in `apiserver/pkg/endpoints/handlers/patch.go`.

use serde_json::Value;

use super::error::{JSON_PATCH_MAX_COPY_BYTES, JSON_PATCH_MAX_OPERATIONS, PatchError};
use crate::schema::MAX_DEPTH;

/// Most values that the checks of one patch may visit.
const MAX_VISITS: usize = 20_000_000;

/// Applies a JSON patch. On an error the original is of no more use.
pub fn json_patch(original: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let Some(operations) = patch.as_array() else {
        let word = crate::schema::type_word(patch);
        return Err(PatchError::Malformed(format!(
            "error decoding patch: json: cannot unmarshal {word} into Go value of type []interface {{}}"
        )));
    };
    if operations.len() > JSON_PATCH_MAX_OPERATIONS {
        return Err(PatchError::TooManyOperations(operations.len()));
    }
    let mut bounds = Bounds::default();
    for operation in operations {
        if absent_as_tested(original, operation) {
            continue;
        }
        bounds.check(original, operation)?;
        let operation: json_patch::PatchOperation =
            serde_json::from_value(operation.clone()).map_err(|e| PatchError::Inapplicable(e.to_string()))?;
        // The object is of no more use after an error, so nothing has to be undone.
        json_patch::patch_unsafe(original, std::slice::from_ref(&operation)).map_err(|e| PatchError::Inapplicable(e.to_string()))?;
    }
    Ok(())
}

/// What the operations of one patch have used up.
#[derive(Default)]
struct Bounds {
    copied_bytes: usize,
    visits: usize,
}

impl Bounds {
    /// Refuses an operation whose result would be too deep or too large.
    fn check(&mut self, original: &Value, operation: &Value) -> Result<(), PatchError> {
        let text = |key: &str| operation.get(key).and_then(Value::as_str).unwrap_or_default();
        let kind = text("op");
        let value = match kind {
            "add" | "replace" => operation.get("value"),
            "copy" | "move" => original.pointer(text("from")),
            _ => None,
        };
        let Some(value) = value else { return Ok(()) };
        let (depth, bytes) = self.measure(value)?;
        if text("path").matches('/').count() + depth > MAX_DEPTH {
            return Err(PatchError::Inapplicable("the object would be nested too deeply".to_owned()));
        }
        if kind == "copy" {
            self.copied_bytes = self.copied_bytes.saturating_add(bytes);
            if self.copied_bytes > JSON_PATCH_MAX_COPY_BYTES {
                return Err(PatchError::CopiesTooLarge(self.copied_bytes));
            }
        }
        Ok(())
    }

    /// The nesting of a value, and about how many bytes it has as JSON.
    fn measure(&mut self, value: &Value) -> Result<(usize, usize), PatchError> {
        self.visits += 1;
        if self.visits > MAX_VISITS {
            return Err(PatchError::TooExpensive);
        }
        let (mut depth, mut bytes) = (0, 2);
        match value {
            Value::Null | Value::Bool(_) => bytes = 4,
            Value::Number(_) => bytes = 20,
            Value::String(text) => bytes += text.len(),
            Value::Array(items) => {
                for item in items {
                    let (inner, size) = self.measure(item)?;
                    (depth, bytes) = (depth.max(inner + 1), bytes + size + 1);
                }
                depth = depth.max(1);
            }
            Value::Object(map) => {
                for (key, item) in map {
                    let (inner, size) = self.measure(item)?;
                    (depth, bytes) = (depth.max(inner + 1), bytes + size + key.len() + 4);
                }
                depth = depth.max(1);
            }
        }
        Ok((depth, bytes))
    }
}

/// Upstream's library goes beyond the RFC: a test for null also holds where there is nothing.
fn absent_as_tested(original: &Value, operation: &Value) -> bool {
    operation["op"] == "test"
        && operation.get("value").is_none_or(Value::is_null)
        && operation["path"].as_str().is_some_and(|path| original.pointer(path).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn operations_apply_in_order() {
        let mut object = json!({"a": {"b": [1, 2]}, "x/y": "z"});
        let patch = json!([
            {"op": "test", "path": "/a/b/0", "value": 1},
            {"op": "test", "path": "/absent", "value": null},
            {"op": "add", "path": "/a/b/-", "value": 3},
            {"op": "remove", "path": "/a/b/0"},
            {"op": "replace", "path": "/x~1y", "value": "w"},
            {"op": "copy", "from": "/a/b", "path": "/c"},
            {"op": "move", "from": "/a", "path": "/d"},
        ]);
        json_patch(&mut object, &patch).expect("applies");
        assert_eq!(object, json!({"c": [2, 3], "d": {"b": [2, 3]}, "x/y": "w"}));
    }

    #[test]
    fn errors_have_upstreams_codes() {
        let code = |patch: Value| {
            let error = json_patch(&mut json!({"a": 1}), &patch).expect_err("doesn't apply");
            (error.to_status().code(), error.to_status().message)
        };
        let rejected = (422, "the server rejected our request due to an error in our request".to_owned());
        assert_eq!(code(json!([{"op": "test", "path": "/a", "value": 2}])), rejected);
        assert_eq!(code(json!([{"op": "remove", "path": "/b"}])), rejected);
        assert_eq!(code(json!([{"op": "nope", "path": "/b"}])), rejected);
        assert_eq!(code(json!({})).0, 400);
        let many: Vec<Value> = (0..10_001).map(|_| json!({"op": "add", "path": "/a", "value": 1})).collect();
        let message = "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001";
        assert_eq!(code(many.into()), (413, message.to_owned()));
    }

    #[test]
    fn security_06_copies_are_bounded_in_sum() {
        let doubling: Vec<Value> = (0..40).map(|i| json!({"op": "copy", "from": "/metadata", "path": format!("/metadata/x{i}")})).collect();
        let mut object = json!({"metadata": {"name": "a".repeat(100)}});
        let error = json_patch(&mut object, &doubling.into()).expect_err("doubles forty times");
        assert!(matches!(error, PatchError::CopiesTooLarge(_)), "{error}");
        assert_eq!(error.to_status().code(), 413);
        assert!(object.to_string().len() < 2 * JSON_PATCH_MAX_COPY_BYTES);
    }

    #[test]
    fn security_06_nesting_is_bounded() {
        let wrap = |i: usize| {
            [
                json!({"op": "add", "path": format!("/w{i}"), "value": {}}),
                json!({"op": "move", "from": format!("/w{}", i - 1), "path": format!("/w{i}/x")}),
            ]
        };
        let mut patch = vec![json!({"op": "add", "path": "/w0", "value": {}})];
        patch.extend((1..4000).flat_map(wrap));
        let error = json_patch(&mut json!({}), &patch.into()).expect_err("wraps thousands of times");
        assert_eq!(error.to_status().code(), 422);
        let deep = format!("{}1{}", "[".repeat(119), "]".repeat(119));
        let deep: Value = serde_json::from_str(&deep).expect("JSON");
        let add = |path: &str| json_patch(&mut json!({"a": {}}), &json!([{"op": "add", "path": path, "value": deep}]));
        assert!(add("/b").is_ok() && add("/a/b").is_err());
    }

    #[test]
    fn security_06_work_is_bounded() {
        let items: Vec<Value> = (0..100_000).map(Value::from).collect();
        let moves: Vec<Value> =
            (0..1000).map(|i| json!({"op": "move", "from": format!("/m{i}"), "path": format!("/m{}", i + 1)})).collect();
        let error = json_patch(&mut json!({"m0": items}), &moves.into()).expect_err("visits a hundred million values");
        assert_eq!((error.to_status().code(), error), (413, PatchError::TooExpensive));
    }
}
