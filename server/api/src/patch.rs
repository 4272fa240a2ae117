//! The three patches of the Kubernetes API: JSON patch (RFC 6902), merge patch (RFC 7386) and strategic merge patch.
//!
//! Server-side apply has rules of its own and isn't here. Patches work on whole objects; the caller decodes the result
//! again, so that unknown fields, types and validation are judged as for an update.

mod json;
mod strategic;

use serde_json::Value;

use crate::field::{FieldError, FieldErrors, FieldPath};
use crate::gvk::{GroupKind, GroupVersionKind};
use crate::schema::{self, Decoded, FieldValidation};
use crate::status::Status;

pub use json::json_patch;
pub use strategic::strategic_merge_patch;

/// Most operations in a JSON patch.
pub const JSON_PATCH_MAX_OPERATIONS: usize = 10_000;

/// Why a patch doesn't apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch is no patch at all: 400.
    #[error("{0}")]
    Malformed(String),
    /// A JSON patch that is right but doesn't fit the object (a failed test, an absent path): 422.
    #[error("{0}")]
    Inapplicable(String),
    /// More operations than allowed: 413.
    #[error("The allowed maximum operations in a JSON patch is {JSON_PATCH_MAX_OPERATIONS}, got {0}")]
    TooManyOperations(usize),
    /// A strategic merge patch that contradicts the schema. Upstream has no reason for it and answers 500.
    #[error("{0}")]
    Unmergeable(String),
}

// === impl PatchError ===

impl PatchError {
    /// What the client gets.
    pub fn to_status(&self) -> Status {
        match self {
            Self::Malformed(message) => Status::bad_request(message.as_str()),
            // Upstream says no more than this about the operation that failed.
            Self::Inapplicable(_) => Status::generic_invalid("the server rejected our request due to an error in our request"),
            Self::TooManyOperations(_) => Status::request_entity_too_large(&self.to_string()),
            Self::Unmergeable(message) => Status::failure(500, "", message.as_str()),
        }
    }
}

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
    let text = patched.to_string();
    let conformed = schema::conform_value(patched, ty).map_err(|e| invalid(&text, &e))?;
    let warnings = validation.judge(conformed.problems).map_err(|e| invalid(&text, &e))?;
    let mut object = conformed.object;
    crate::meta::set_gvk(&mut object, gvk);
    Ok(Decoded { object, warnings })
}

/// Applies a merge patch (RFC 7386): null removes, objects merge, everything else replaces. At the top it must be an object.
pub fn merge_patch(original: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if !patch.is_object() {
        return Err(not_a_map("error decoding patch: ", patch));
    }
    json_patch::merge(original, patch);
    Ok(())
}

fn not_a_map(prefix: &str, patch: &Value) -> PatchError {
    let word = schema::type_word(patch);
    PatchError::Malformed(format!("{prefix}json: cannot unmarshal {word} into Go value of type map[string]interface {{}}"))
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
