//! ConversionReview: the request to the conversion webhook of a definition, and the parts of its answer that are accepted.
//!
//! Owns the protocol (`apiextensions.k8s.io/v1` and `v1beta1`) and the rule that a webhook changes nothing of the metadata but labels and
//! annotations. Must not do I/O.
//!
//! Upstream: `apiextensions-apiserver/pkg/apiserver/conversion/webhook_converter.go`.
//!
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/#webhook-conversion>

use serde_json::{Map, Value, json};

use crate::field::{FieldPath, aggregate};
use crate::gvk::GroupVersionKind;
use crate::meta;
use crate::validate::{At, Errors, metadata};

/// The webhook that a definition names (`spec.conversion.webhook`).
#[derive(Clone, Debug, PartialEq)]
pub struct ConversionWebhook {
    /// Its `clientConfig`.
    pub client_config: Value,
    /// The version of the review that it is sent: the first of its `conversionReviewVersions` that is known here.
    pub review_version: Option<&'static str>,
}

impl ConversionWebhook {
    /// The webhook of a `spec.conversion`; None: it names none.
    pub fn of(conversion: &Value) -> Option<ConversionWebhook> {
        if conversion["strategy"] != "Webhook" {
            return None;
        }
        let known = |version: &Value| ["v1", "v1beta1"].into_iter().find(|known| version == known);
        let review_version = meta::list_at(conversion, &["webhook", "conversionReviewVersions"]).iter().find_map(known);
        Some(ConversionWebhook { client_config: conversion["webhook"]["clientConfig"].clone(), review_version })
    }
}

/// The question: `objects` in the version `desired`.
pub fn question(objects: &[&Value], desired: &str, review_version: &str, uid: &str) -> Value {
    json!({
        "kind": "ConversionReview",
        "apiVersion": format!("apiextensions.k8s.io/{review_version}"),
        "request": {"uid": uid, "desiredAPIVersion": desired, "objects": objects},
    })
}

/// The objects of an answer.
///
/// # Errors
/// It is no answer to the question `uid`, or says that the webhook has failed.
pub fn answered(answer: &[u8], review_version: &str, uid: &str) -> Result<Vec<Value>, String> {
    let mut answer: Value = crate::schema::parse_json(answer).map_err(|error| format!("invalid response body: {error}"))?;
    let wanted = format!("apiextensions.k8s.io/{review_version}");
    let (version, kind) = (meta::api_version(&answer), meta::kind(&answer));
    // The old version was lenient about what the answer calls itself.
    if review_version == "v1" && (version != wanted || kind != "ConversionReview") {
        return Err(format!("expected webhook response of {wanted}, Kind=ConversionReview, got {version}, Kind={kind}"));
    }
    let response = answer.get_mut("response").filter(|response| response.is_object()).ok_or("no response provided")?;
    let given = meta::str_at(response, &["uid"]);
    if review_version == "v1" && given != uid {
        return Err(format!("expected response.uid={uid:?}, got {given:?}"));
    }
    let status = meta::str_at(response, &["result", "status"]);
    if status != "Success" {
        let message = meta::str_at(response, &["result", "message"]);
        return Err(if message.is_empty() { format!("response.result.status was '{status}', not 'Success'") } else { message.to_owned() });
    }
    match response["convertedObjects"].take() {
        Value::Array(objects) => Ok(objects),
        _ => Ok(Vec::new()),
    }
}

/// Checks an object that a webhook converted, and restores the metadata that a conversion must not change.
///
/// # Errors
/// Why the object is refused.
pub fn accept(original: &Value, mut converted: Value, to: &GroupVersionKind) -> Result<Value, String> {
    if !converted.is_object() {
        return Err(format!("{} is no object", type_name(&converted)));
    }
    let (wanted, given) = (to.api_version(), meta::api_version(&converted));
    if given != wanted {
        return Err(format!("invalid groupVersion (expected {wanted}, received {given})"));
    }
    let (wanted, given) = (meta::kind(original), meta::kind(&converted));
    if given != wanted {
        return Err(format!("invalid kind (expected {wanted}, received {given})"));
    }
    type Read = fn(&Value) -> &str;
    let same: [(&str, Read); 3] = [("name", meta::name), ("namespace", meta::namespace), ("UID", meta::uid)];
    for (what, read) in same {
        if read(original) != read(&converted) {
            return Err(format!("must have the same {what}: {} != {}", read(original), read(&converted)));
        }
    }
    let metadata = restored(original, &converted)?;
    if let Some(object) = converted.as_object_mut() {
        object.insert("metadata".to_owned(), Value::Object(metadata));
    }
    Ok(converted)
}

/// The metadata of the original object, with the labels and annotations of the converted one.
fn restored(original: &Value, converted: &Value) -> Result<Map<String, Value>, String> {
    let given = match converted.get("metadata") {
        None => return Err("missing metadata in converted object".to_owned()),
        Some(Value::Object(given)) => given,
        Some(other) => return Err(format!("invalid metadata of type {} in converted object", type_name(other))),
    };
    let mut metadata = meta::metadata(original).cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        match given.get(field) {
            None | Some(Value::Null) => {
                metadata.remove(field);
            }
            Some(new @ Value::Object(texts)) => {
                if let Some((key, other)) = texts.iter().find(|(_, text)| !text.is_string()) {
                    return Err(format!("metadata.{field}[{key}] must be a string, but is {} in converted object", type_name(other)));
                }
                if metadata.get(field) != Some(new) {
                    check(field, new)?;
                }
                metadata.insert(field.to_owned(), new.clone());
            }
            Some(other) => return Err(format!("invalid metadata.{field} of type {} in converted object", type_name(other))),
        }
    }
    Ok(metadata)
}

fn check(field: &str, texts: &Value) -> Result<(), String> {
    let errors = Errors::default();
    let at = At::new(texts, FieldPath::new("metadata").child(field), &errors);
    if field == "labels" {
        metadata::labels(&at)
    } else {
        metadata::annotations(&at)
    }
    aggregate(&errors.take()).map_or(Ok(()), Err)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to() -> GroupVersionKind {
        GroupVersionKind::new("example.com", "v2", "Foo")
    }

    #[test]
    fn a_webhook_is_read_with_the_first_version_that_is_known() {
        let conversion = json!({"strategy": "Webhook", "webhook": {"clientConfig": {"url": "https://x"}, "conversionReviewVersions": ["v9", "v1beta1", "v1"]}});
        let webhook = ConversionWebhook::of(&conversion).unwrap();
        assert_eq!((webhook.review_version, &webhook.client_config["url"]), (Some("v1beta1"), &json!("https://x")));
        assert_eq!(ConversionWebhook::of(&json!({"strategy": "None"})), None);
    }

    #[test]
    fn answers_are_verified() {
        let answer = |response: Value| {
            json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": response}).to_string().into_bytes()
        };
        let good = json!({"uid": "u", "result": {"status": "Success"}, "convertedObjects": [{"a": 1}]});
        assert_eq!(answered(&answer(good.clone()), "v1", "u").unwrap(), [json!({"a": 1})]);
        for (bad, why) in [
            (b"no".to_vec(), "invalid response body"),
            (b"{}".to_vec(), "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got , Kind="),
            (answer(Value::Null), "no response provided"),
            (answer(json!({"uid": "x", "result": {"status": "Success"}})), r#"expected response.uid="u", got "x""#),
            (answer(json!({"uid": "u"})), "response.result.status was '', not 'Success'"),
            (answer(json!({"uid": "u", "result": {"status": "Failure", "message": "out of ideas"}})), "out of ideas"),
        ] {
            let error = answered(&bad, "v1", "u").unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let lenient = json!({"response": good}).to_string().into_bytes();
        assert_eq!(answered(&lenient, "v1beta1", "other").unwrap().len(), 1);
    }

    #[test]
    fn only_labels_and_annotations_of_the_metadata_change() {
        let original = json!({"apiVersion": "example.com/v1", "kind": "Foo", "a": 1,
            "metadata": {"name": "n", "namespace": "ns", "uid": "u", "resourceVersion": "5", "labels": {"x": "y"}, "annotations": {"p": "q"}}});
        let converted = json!({"apiVersion": "example.com/v2", "kind": "Foo", "b": 1,
            "metadata": {"name": "n", "namespace": "ns", "uid": "u", "resourceVersion": "6", "generation": 7, "labels": {"new": "l"}}});
        let taken = accept(&original, converted.clone(), &to()).unwrap();
        assert_eq!(
            taken,
            json!({"apiVersion": "example.com/v2", "kind": "Foo", "b": 1,
                "metadata": {"name": "n", "namespace": "ns", "uid": "u", "resourceVersion": "5", "labels": {"new": "l"}}})
        );
        let refused = |path: &str, value: Value| {
            let mut wrong = converted.clone();
            let (parent, key) = path.rsplit_once('/').unwrap();
            wrong.pointer_mut(parent).unwrap()[key] = value;
            accept(&original, wrong, &to()).unwrap_err()
        };
        for (path, value, why) in [
            ("/apiVersion", json!("example.com/v3"), "invalid groupVersion (expected example.com/v2, received example.com/v3)"),
            ("/kind", json!("Bar"), "invalid kind (expected Foo, received Bar)"),
            ("/metadata/name", json!("m"), "must have the same name: n != m"),
            ("/metadata/namespace", json!("m"), "must have the same namespace: ns != m"),
            ("/metadata/uid", json!("m"), "must have the same UID: u != m"),
            ("/metadata/labels", json!(5), "invalid metadata.labels of type number in converted object"),
            ("/metadata/labels", json!({"a": 1}), "metadata.labels[a] must be a string, but is number in converted object"),
            ("/metadata/labels", json!({"a b": "c"}), "metadata.labels: Invalid value: \"a b\""),
            ("/metadata", json!("x"), "must have the same name: n != "),
        ] {
            let error = refused(path, value);
            assert!(error.contains(why), "{path}: {error}");
        }
        assert!(accept(&original, json!(5), &to()).unwrap_err().contains("number is no object"));
    }
}
