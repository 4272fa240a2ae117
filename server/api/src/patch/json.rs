//! JSON patch, RFC 6902.

use serde_json::Value;

use super::{JSON_PATCH_MAX_OPERATIONS, PatchError};

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
    for operation in operations {
        if absent_as_tested(original, operation) {
            continue;
        }
        let operation: json_patch::PatchOperation =
            serde_json::from_value(operation.clone()).map_err(|e| PatchError::Inapplicable(e.to_string()))?;
        json_patch::patch(original, std::slice::from_ref(&operation)).map_err(|e| PatchError::Inapplicable(e.to_string()))?;
    }
    Ok(())
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
}
