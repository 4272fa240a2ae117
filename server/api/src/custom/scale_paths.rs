//! Where the replicas of a custom resource stand (`subresources.scale`).
//!
//! Upstream: `ScaleREST` and `ValidateScale*` in `apiextensions-apiserver/pkg/registry/customresource`.

use serde_json::{Map, Value};

use crate::resource::Scaled;
use crate::validate::At;

/// The paths of a version.
#[derive(Clone, Debug)]
pub struct ScalePaths {
    spec: String,
    status: String,
    selector: String,
}

impl ScalePaths {
    /// The paths that `subresources.scale` names.
    pub fn of(scale: &Value) -> ScalePaths {
        let text = |key: &str| scale[key].as_str().unwrap_or_default().to_owned();
        ScalePaths { spec: text("specReplicasPath"), status: text("statusReplicasPath"), selector: text("labelSelectorPath") }
    }

    /// The numbers of an object.
    pub fn scaled(&self, object: &Value) -> Result<Scaled, String> {
        let wanted = number(object, &self.spec)?;
        if wanted.is_none() {
            return Err(format!("the spec replicas field {} does not exist", crate::field::quote(&self.spec)));
        }
        let selector = match at(object, &self.selector) {
            _ if self.selector.is_empty() => String::new(),
            None => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => return Err(mistyped(&self.selector, other, "string")),
        };
        Ok(Scaled { wanted, current: number(object, &self.status)?.unwrap_or(0), selector })
    }

    /// The path to how many replicas are wanted.
    pub fn replicas(&self) -> impl Iterator<Item = &str> {
        keys(&self.spec)
    }

    /// Sets how many replicas are wanted.
    pub fn set(&self, object: &mut Value, replicas: i64) {
        let mut value = object;
        let mut keys = keys(&self.spec).peekable();
        while let Some(key) = keys.next() {
            if !value.is_object() {
                *value = Value::Object(Map::new());
            }
            let Some(map) = value.as_object_mut() else { return };
            let last = keys.peek().is_none();
            value = map.entry(key).or_insert(Value::Null);
            if last {
                *value = Value::from(replicas);
            }
        }
    }

    /// Checks the numbers of an object; of its status alone with `status_only`.
    pub fn check(&self, object: &At<'_>, status_only: bool) {
        if !status_only {
            check_number(object, &self.spec);
        }
        check_number(object, &self.status);
        if !self.selector.is_empty()
            && let Some(value) = at(object.value, &self.selector).filter(|value| !value.is_string())
        {
            let error = mistyped(&self.selector, value, "string");
            object.named(crate::field::FieldPath::new(&self.selector)).invalid_as("", error);
        }
    }
}

fn check_number(object: &At<'_>, path: &str) {
    let place = object.named(crate::field::FieldPath::new(path));
    match number(object.value, path) {
        Err(error) => place.invalid_as(0, error),
        Ok(Some(number)) if number < 0 => place.invalid_as(number, "should be a non-negative integer"),
        Ok(Some(number)) if number > i64::from(i32::MAX) => {
            place.invalid_as(number, format!("should be less than or equal to {}", i32::MAX));
        }
        Ok(_) => {}
    }
}

fn keys(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('.').unwrap_or(path).split('.')
}

fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    keys(path).try_fold(object, |value, key| value.get(key))
}

fn number(object: &Value, path: &str) -> Result<Option<i64>, String> {
    match at(object, path) {
        None => Ok(None),
        Some(value) => value.as_i64().map(Some).ok_or_else(|| mistyped(path, value, "int64")),
    }
}

fn mistyped(path: &str, value: &Value, wanted: &str) -> String {
    format!("{path} accessor error: {value} is of the type {}, expected {wanted}", crate::schema::type_word(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::Errors;
    use serde_json::json;

    #[test]
    fn replicas_are_where_the_paths_say() {
        let paths =
            ScalePaths::of(&json!({"specReplicasPath": ".spec.a.n", "statusReplicasPath": ".status.n", "labelSelectorPath": ".status.s"}));
        let mut object = json!({"spec": {"a": {"n": 3}}, "status": {"n": 2, "s": "a=b"}});
        assert_eq!(paths.scaled(&object), Ok(Scaled { wanted: Some(3), current: 2, selector: "a=b".to_owned() }));
        paths.set(&mut object, 5);
        assert_eq!(object["spec"]["a"]["n"], 5);
        let mut empty = json!({});
        assert_eq!(paths.scaled(&empty).unwrap_err(), "the spec replicas field \".spec.a.n\" does not exist");
        paths.set(&mut empty, 1);
        assert_eq!(empty, json!({"spec": {"a": {"n": 1}}}));
        let errors = Errors::default();
        paths.check(&At::root(&json!({"spec": {"a": {"n": -1}}, "status": {"n": "x", "s": 1}}), &errors), false);
        let texts: Vec<String> = errors.take().iter().map(ToString::to_string).collect();
        assert_eq!(texts[0], ".spec.a.n: Invalid value: -1: should be a non-negative integer");
        assert_eq!(texts.len(), 3, "{texts:?}");
    }
}
