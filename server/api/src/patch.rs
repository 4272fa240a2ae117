//! The three patches of the Kubernetes API: JSON patch (RFC 6902), merge patch (RFC 7386) and strategic merge patch.
//!
//! Server-side apply has rules of its own: [`crate::apply`]. Patches work on whole objects; the caller decodes the result
//! again, so that unknown fields, types and validation are judged as for an update.

mod configuration;
mod error;
mod json;
mod strategic;

use serde_json::Value;

use crate::field::{FieldError, FieldErrors, FieldPath};
use crate::gvk::{GroupKind, GroupVersionKind};
use crate::schema::{self, Conformed, Decoded, FieldValidation};
use crate::status::Status;

pub use configuration::merge_configuration;
pub use error::{JSON_PATCH_MAX_COPY_BYTES, JSON_PATCH_MAX_OPERATIONS, PATCH_RESULT_MAX_BYTES, PatchError};
pub use json::json_patch;
pub use strategic::strategic_merge_patch;

/// 422 for a patch whose result doesn't decode: `"" is invalid: patch: Invalid value: ...`.
pub fn invalid(patch: &str, detail: &str) -> Status {
    let errors: FieldErrors = vec![FieldError::invalid(&FieldPath::new("patch"), patch, detail)];
    Status::invalid(&GroupKind::new("", ""), "", &errors)
}

/// Judges what a patch made of an object: decodes it as kind `gvk`, with upstream's 422 where it doesn't fit.
pub fn decode_result(patched: Value, gvk: &GroupVersionKind, validation: FieldValidation) -> Result<Decoded, Status> {
    let Some(ty) = schema::type_of(&gvk.group, &gvk.version, &gvk.kind) else {
        return Err(Status::internal(format!("no schema for {gvk}")));
    };
    decode_untyped_result(patched, gvk, validation, |patched| schema::conform_value(patched, ty))
}

/// As [`decode_result`], for an object whose types are not in the tables; `conform` makes it fit what is known of it.
pub fn decode_untyped_result(
    patched: Value,
    gvk: &GroupVersionKind,
    validation: FieldValidation,
    conform: impl FnOnce(Value) -> Result<Conformed, String>,
) -> Result<Decoded, Status> {
    if depth(&patched) > schema::MAX_DEPTH {
        return Err(Status::generic_invalid("the patched object is nested too deeply"));
    }
    let text = patched.to_string();
    if text.len() > PATCH_RESULT_MAX_BYTES {
        return Err(PatchError::ResultTooLarge.to_status());
    }
    let conformed = conform(patched).map_err(|e| invalid(&text, &e))?;
    let warnings = validation.judge(conformed.problems).map_err(|e| invalid(&text, &e))?;
    let mut object = conformed.object;
    crate::meta::set_gvk(&mut object, gvk);
    Ok(Decoded { object, warnings })
}

/// How many maps and lists are inside of one another.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

/// Applies a merge patch (RFC 7386): null removes, objects merge, everything else replaces. At the top it must be an object.
pub fn merge_patch(original: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if !patch.is_object() {
        return Err(error::not_a_map("error decoding patch: ", patch));
    }
    json_patch::merge(original, patch);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn merge_patches_as_the_rfc() {
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": "foo"}), json!({"b": {"c": null}}), json!({"a": "foo", "b": {}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
        ];
        for (mut original, patch, want) in cases {
            merge_patch(&mut original, &patch).expect("applies");
            assert_eq!(original, want, "{patch}");
        }
        let error = merge_patch(&mut json!({}), &json!([1])).expect_err("no object");
        let message = "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}";
        assert_eq!((error.to_status().code(), error.to_string().as_str()), (400, message));
    }

    #[test]
    fn results_are_judged() {
        let gvk = GroupVersionKind::new("", "v1", "ConfigMap");
        let decode = |object: Value, validation| decode_result(object, &gvk, validation).map_err(|s| (s.code(), s.message));
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "nope": 1});
        assert_eq!(decode(object.clone(), FieldValidation::Warn).map(|d| d.warnings), Ok(vec![r#"unknown field "nope""#.to_owned()]));
        let strict = decode(object, FieldValidation::Strict).expect_err("unknown field");
        let message = r#" "" is invalid: patch: Invalid value: "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"nope\":1}": strict decoding error: unknown field "nope""#;
        assert_eq!(strict, (422, message.to_owned()));
        let wrong = decode(json!({"data": {"a": 1}}), FieldValidation::Warn).expect_err("wrong type");
        assert!(wrong.1.ends_with("json: cannot unmarshal number into Go struct field ConfigMap.data of type string"), "{}", wrong.1);
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<bool>().prop_map(Value::from), any::<i32>().prop_map(Value::from), "[a-c]{0,3}".prop_map(Value::from)];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn merging_twice_changes_nothing_more(original in json_value(), patch in json_value()) {
            prop_assume!(patch.is_object());
            let mut once = original;
            merge_patch(&mut once, &patch).expect("applies");
            let mut twice = once.clone();
            merge_patch(&mut twice, &patch).expect("applies");
            prop_assert_eq!(once, twice);
        }
    }
}
