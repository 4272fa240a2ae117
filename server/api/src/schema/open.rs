//! Decoding of objects whose kind has no types in the tables. `metadata` is typed here; the caller checks the other fields.

use serde_json::Value;

use super::conform::{Conformed, conform_at};
use super::decode::{ContentType, Decoded, FieldValidation, given_kind, read, told_as_yaml, unrecognized};
use super::go_json::Node;
use super::tables::{TypeId, type_of};
use crate::field::quote;
use crate::gvk::GroupVersionKind;
use crate::meta;
use crate::status::Status;

/// More problems than this are not reported, as upstream.
const PROBLEMS_MAX: usize = 100;

/// Decodes a body as an object of the kind `expected`. Beside its metadata, everything is kept as it comes.
pub fn decode_open(
    body: &[u8],
    content_type: ContentType,
    expected: &GroupVersionKind,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    decode_untyped(body, content_type, expected, validation, conform_open_value)
}

/// Decodes a body as an object of the kind `expected`; `conform` makes it fit what is known of it. Duplicate fields are reported
/// wherever they stand.
pub fn decode_untyped(
    body: &[u8],
    content_type: ContentType,
    expected: &GroupVersionKind,
    validation: FieldValidation,
    conform: impl FnOnce(Value) -> Result<Conformed, String>,
) -> Result<Decoded, Status> {
    if content_type == ContentType::Protobuf {
        return Err(Status::unsupported_media_type(&["application/json", "application/yaml"]));
    }
    let node = read(body, content_type).map_err(|e| unrecognized(body, expected, &e))?;
    let given = given_kind(&node, expected).map_err(|e| unrecognized(body, expected, &e))?;
    let refuse = |error: &str| {
        Status::bad_request(format!(
            "{} in version {} cannot be handled as a {}: {error}",
            given.kind,
            quote(&given.version),
            expected.kind
        ))
    };
    if given != *expected {
        return Err(Status::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({})",
            given.api_version(),
            expected.api_version()
        )));
    }
    let (node, doubled) = told_as_yaml(node, body, content_type);
    let mut problems = Vec::from_iter(doubled);
    duplicates(&node, &mut String::new(), &mut problems);
    let conformed = conform(node.into_value()).map_err(|e| refuse(&e))?;
    problems.extend(conformed.problems);
    let warnings = validation.judge(problems).map_err(|e| refuse(&e))?;
    let mut object = conformed.object;
    meta::set_gvk(&mut object, expected);
    Ok(Decoded { object, warnings })
}

/// Makes the metadata of an object fit its type.
pub fn conform_open_value(mut object: Value) -> Result<Conformed, String> {
    let Value::Object(map) = &mut object else {
        let word = super::type_word(&object);
        return Err(format!("json: cannot unmarshal {word} into Go value of type map[string]interface {{}}"));
    };
    let mut problems = Vec::new();
    if let Some(metadata) = map.get_mut("metadata") {
        let conformed = conform_metadata(metadata.take(), "metadata")?;
        *metadata = conformed.object;
        problems = conformed.problems;
    }
    Ok(Conformed { object, problems })
}

/// Makes the metadata of an object fit its type. Fields that the type does not have are dropped, and named by their path from `path`.
pub fn conform_metadata(metadata: Value, path: &str) -> Result<Conformed, String> {
    conform_at(Node::from_value(metadata), metadata_type()?, path)
}

fn metadata_type() -> Result<TypeId, String> {
    // Every kind has the same metadata; this one is always in the tables.
    type_of("", "v1", "ConfigMap")
        .and_then(|ty| ty.field("metadata"))
        .map(|field| field.type_id())
        .ok_or_else(|| "the tables hold no ObjectMeta".to_owned())
}

fn duplicates(node: &Node, path: &mut String, problems: &mut Vec<String>) {
    let len = path.len();
    match node {
        Node::Object(pairs) => {
            let mut seen = std::collections::HashSet::with_capacity(pairs.len());
            let mut reported = std::collections::HashSet::new();
            for (key, inner) in pairs {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
                if !seen.insert(key) && reported.insert(key) && problems.len() < PROBLEMS_MAX {
                    problems.push(format!("duplicate field {}", quote(path)));
                }
                duplicates(inner, path, problems);
                path.truncate(len);
            }
        }
        Node::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                duplicates(item, path, problems);
                path.truncate(len);
            }
        }
        _ => {}
    }
}
