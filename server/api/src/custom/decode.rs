//! Decodes custom objects from clients or the store into objects that fit their schema: pruned, with typed metadata.
//!
//! Upstream: `schemaCoercingDecoder` in `apiextensions-apiserver/pkg/apiserver/customresource_handler.go`.

use serde_json::Value;

use super::embedded::{self, Malformed};
use super::structural::Structural;
use super::{defaults, prune};
use crate::gvk::GroupVersionKind;
use crate::schema::{Conformed, ContentType, Decoded, FieldValidation, conform_open_value, decode_untyped};
use crate::status::Status;

/// Decodes a body as an object of the kind `expected`.
pub fn decode(
    body: &[u8],
    content_type: ContentType,
    expected: &GroupVersionKind,
    validation: FieldValidation,
    schema: &Structural,
) -> Result<Decoded, Status> {
    decode_untyped(body, content_type, expected, validation, |object| conform(object, schema))
}

/// Makes an object fit its schema; what was dropped is reported.
pub fn conform(object: Value, schema: &Structural) -> Result<Conformed, String> {
    let Conformed { mut object, mut problems } = conform_open_value(object)?;
    let unknown = |path: String| format!("unknown field {}", crate::field::quote(&path));
    problems.extend(prune::prune(&mut object, schema).into_iter().map(unknown));
    prune::prune_nulls(&mut object, Some(schema));
    let dropped = embedded::conform(&mut object, schema, Malformed::Refuse).map_err(|error| error.to_string())?;
    problems.extend(dropped.into_iter().map(unknown));
    Ok(Conformed { object, problems })
}

/// Adapts a stored object to the current schema: fields that the schema no longer names are dropped, and new defaults are set.
pub fn restore(object: &mut Value, schema: &Structural) {
    if let Some(metadata) = object.get_mut("metadata")
        && crate::schema::conform_metadata(metadata.clone(), "metadata").is_err()
    {
        embedded::drop_malformed(metadata);
    }
    prune::prune(object, schema);
    prune::prune_nulls(object, Some(schema));
    // With malformed parts dropped, nothing is refused.
    let _ = embedded::conform(object, schema, Malformed::Drop);
    defaults::fill(object, schema);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Structural {
        Structural::parse(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "string", "default": "x"}, "list": {"type": "array", "items": {"type": "object"}}}}}}))
        .unwrap()
    }

    #[test]
    fn unknown_and_duplicate_fields_are_reported_in_upstreams_order() {
        let gvk = GroupVersionKind::new("example.com", "v1", "Foo");
        let body = br#"{"apiVersion":"example.com/v1","kind":"Foo","metadata":{"name":"n","unknownMeta":1},"zz":1,
            "spec":{"a":"1","a":"2","b":1,"list":[{"x":1,"x":2}]}}"#;
        let problems = [
            r#"duplicate field "spec.a""#,
            r#"duplicate field "spec.list[0].x""#,
            r#"unknown field "metadata.unknownMeta""#,
            r#"unknown field "spec.b""#,
            r#"unknown field "spec.list[0].x""#,
            r#"unknown field "zz""#,
        ];
        let decoded = decode(body, ContentType::Json, &gvk, FieldValidation::Warn, &schema()).unwrap();
        assert_eq!(decoded.warnings, problems);
        assert_eq!(decoded.object["spec"], json!({"a": "2", "list": [{}]}));
        let strict = decode(body, ContentType::Json, &gvk, FieldValidation::Strict, &schema()).unwrap_err();
        let message = format!("Foo in version \"v1\" cannot be handled as a Foo: strict decoding error: {}", problems.join(", "));
        assert_eq!((strict.code(), strict.message), (400, message));
        let other = br#"{"apiVersion":"example.com/v2","kind":"Foo"}"#;
        assert_eq!(decode(other, ContentType::Json, &gvk, FieldValidation::Warn, &schema()).unwrap_err().code(), 400);
    }

    #[test]
    fn what_is_stored_is_shown_as_the_schema_has_it_now() {
        let mut object = json!({"metadata": {"name": "n", "labels": {"a": 1}}, "spec": {"old": 1}, "gone": 1});
        restore(&mut object, &schema());
        assert_eq!(object, json!({"metadata": {"name": "n"}, "spec": {"a": "x"}}));
    }
}
