//! Objects within objects (`x-kubernetes-embedded-resource`): their type and metadata are those of any object.
//!
//! Upstream: `apiextensions-apiserver/pkg/apiserver/schema/objectmeta`.

use serde_json::{Map, Value};

use super::structural::Structural;
use crate::field::{FieldError, FieldErrors, FieldPath};
use crate::gvk::GroupVersion;
use crate::names;
use crate::schema::conform_metadata;
use crate::validate::{At, Errors, metadata};

/// How to handle invalid type and metadata of an embedded object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The object is refused.
    Refuse,
    /// They are dropped: the object is stored already.
    Drop,
}

/// Makes type and metadata of all embedded objects fit. The paths of fields that metadata does not have come out sorted.
pub fn conform(object: &mut Value, schema: &Structural, malformed: Malformed) -> Result<Vec<String>, FieldError> {
    let mut dropped = Vec::new();
    walk(object, schema, &FieldPath::root(), malformed, &mut dropped)?;
    dropped.sort();
    Ok(dropped)
}

fn walk(
    value: &mut Value,
    schema: &Structural,
    path: &FieldPath,
    malformed: Malformed,
    dropped: &mut Vec<String>,
) -> Result<(), FieldError> {
    match value {
        Value::Object(map) => {
            if schema.is_embedded {
                meta_of(map, path, malformed, dropped)?;
            }
            for (key, inner) in map.iter_mut() {
                if let Some(property) = schema.properties.get(key) {
                    walk(inner, property, &path.child(key), malformed, dropped)?;
                } else if let Some(values) = schema.values() {
                    walk(inner, values, &path.key(key), malformed, dropped)?;
                }
            }
        }
        Value::Array(items) => {
            let Some(inner) = schema.items.as_deref() else { return Ok(()) };
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, inner, &path.index(index), malformed, dropped)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn meta_of(map: &mut Map<String, Value>, path: &FieldPath, malformed: Malformed, dropped: &mut Vec<String>) -> Result<(), FieldError> {
    for key in ["apiVersion", "kind"] {
        match map.get(key) {
            None | Some(Value::String(_)) => {}
            Some(_) if malformed == Malformed::Drop => {
                map.remove(key);
            }
            Some(other) => return Err(FieldError::invalid(&path.child(key), other.clone(), "must be a string")),
        }
    }
    let Some(given) = map.get_mut("metadata") else { return Ok(()) };
    let place = path.child("metadata");
    match conform_metadata(given.clone(), place.as_str()) {
        Ok(conformed) => {
            *given = conformed.object;
            dropped.extend(
                conformed
                    .problems
                    .iter()
                    .filter_map(|problem| Some(problem.strip_prefix("unknown field \"")?.strip_suffix('"')?.to_owned())),
            );
            Ok(())
        }
        Err(error) if malformed == Malformed::Refuse => Err(FieldError::invalid(&place, given.clone(), error)),
        Err(_) => {
            drop_malformed(given);
            Ok(())
        }
    }
}

/// Keeps the fields of metadata that fit, one by one.
pub fn drop_malformed(metadata: &mut Value) {
    let Some(map) = metadata.as_object() else {
        *metadata = Value::Object(Map::new());
        return;
    };
    let fits = |key: &String, value: &Value| {
        let single = Value::Object(Map::from_iter([(key.clone(), value.clone())]));
        conform_metadata(single, "").ok().map(|conformed| conformed.object)
    };
    let kept = map.iter().filter_map(|(key, value)| fits(key, value)).filter_map(|single| match single {
        Value::Object(single) => single.into_iter().next(),
        _ => None,
    });
    *metadata = Value::Object(kept.collect());
}

/// Judges type and metadata of all embedded objects; with `root`, those of the object itself too.
pub fn check(object: &Value, schema: &Structural, root: bool) -> FieldErrors {
    let errors = Errors::default();
    judge(&At::root(object, &errors), schema, root);
    errors.take()
}

fn judge(at: &At<'_>, schema: &Structural, is_object: bool) {
    match at.value {
        Value::Object(map) => {
            if is_object || schema.is_embedded {
                judge_meta(at);
            }
            for (key, inner) in map {
                let inner = |path| At::new(inner, path, at.errors);
                if let Some(property) = schema.properties.get(key) {
                    judge(&inner(at.path.child(key)), property, false);
                } else if let Some(values) = schema.values() {
                    judge(&inner(at.path.key(key)), values, false);
                }
            }
        }
        Value::Array(_) => {
            let Some(inner) = schema.items.as_deref() else { return };
            at.items().for_each(|item| judge(&item, inner, false));
        }
        _ => {}
    }
}

fn judge_meta(at: &At<'_>) {
    let (version, kind, meta) = (at.at("apiVersion"), at.at("kind"), at.at("metadata"));
    for field in [&version, &kind] {
        match field.value {
            Value::Null => field.required(""),
            Value::String(text) if text.is_empty() => field.invalid("must not be empty"),
            Value::String(_) => {}
            _ => field.invalid("must be a string"),
        }
    }
    if GroupVersion::parse(version.text()).is_none() {
        version.invalid(format!("unexpected GroupVersion string: {}", version.text()));
    }
    if !kind.text().is_empty() {
        let messages = names::is_dns1035_label(&kind.text().to_lowercase());
        if !messages.is_empty() {
            kind.invalid(format!("may have mixed case, but should otherwise match: {}", messages.join(",")));
        }
    }
    if !meta.is_set() {
        return;
    }
    if let Err(error) = conform_metadata(meta.value.clone(), "metadata") {
        meta.invalid(error);
        return;
    }
    // It may have no name yet.
    let mut named = meta.value.clone();
    if meta.at("name").text().is_empty()
        && let Some(map) = named.as_object_mut()
    {
        map.insert("name".to_owned(), Value::from("unnamed"));
    }
    let named = At::new(&named, meta.path.clone(), meta.errors);
    metadata::create(&named, named.at("namespace").is_full(), names::is_path_segment_name, true);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Structural {
        Structural::parse(&json!({"type": "object", "properties": {"template": {"type": "object",
            "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}}))
        .unwrap()
    }

    #[test]
    fn metadata_is_typed_and_unknown_fields_are_named() {
        let mut object = json!({"template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "unknownSubMeta": 1}, "x": 1}});
        let dropped = conform(&mut object, &schema(), Malformed::Refuse).unwrap();
        assert_eq!(dropped, ["template.metadata.unknownSubMeta"]);
        assert_eq!(object["template"]["metadata"], json!({"name": "a"}));
        let mut wrong = json!({"template": {"metadata": {"labels": {"a": 1}, "name": "b"}, "kind": 5}});
        assert_eq!(
            conform(&mut wrong, &schema(), Malformed::Refuse).unwrap_err().to_string(),
            "template.kind: Invalid value: 5: must be a string"
        );
        wrong["template"]["kind"] = json!("Pod");
        let error = conform(&mut wrong, &schema(), Malformed::Refuse).unwrap_err();
        assert!(error.detail.contains("cannot unmarshal number into Go struct field ObjectMeta.labels of type string"), "{error}");
        conform(&mut wrong, &schema(), Malformed::Drop).unwrap();
        assert_eq!(wrong, json!({"template": {"metadata": {"name": "b"}, "kind": "Pod"}}));
    }

    #[test]
    fn an_embedded_object_has_a_type_and_sound_metadata() {
        let texts = |object: Value| check(&object, &schema(), false).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(texts(json!({"template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"a": "b"}}}})).is_empty());
        assert_eq!(
            texts(json!({"template": {"apiVersion": "a/b/c", "metadata": {"name": "a/b"}}})),
            [
                "template.kind: Required value",
                "template.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
                "template.metadata.name: Invalid value: \"a/b\": may not contain '/'"
            ]
        );
    }
}
