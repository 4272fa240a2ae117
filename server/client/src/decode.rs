//! JSON of the API into our types.
//!
//! Go writes a time that was never set as `null`, also where the field is required: the `lastTransitionTime` of a condition that a
//! client wrote without it. Our types want a time there. The object is decoded again with Go's zero time in its place: a Service must not
//! lose its rules for a condition.

use serde::de::DeserializeOwned;
use serde_json::{Error, Value};

/// Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// An object, or a list of objects.
pub(crate) fn from_json<T: DeserializeOwned>(json: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(json).or_else(|error| again(serde_json::from_slice(json), error))
}

/// Decodes JSON text; otherwise the same as [`from_json`].
pub(crate) fn from_text<T: DeserializeOwned>(json: &str) -> serde_json::Result<T> {
    serde_json::from_str(json).or_else(|error| again(serde_json::from_str(json), error))
}

fn again<T: DeserializeOwned>(value: serde_json::Result<Value>, error: Error) -> serde_json::Result<T> {
    let Ok(mut value) = value else { return Err(error) };
    if set_missing_times(&mut value) { serde_json::from_value(value) } else { Err(error) }
}

/// Sets the times of conditions that have none, wherever they are; true if there were any.
fn set_missing_times(value: &mut Value) -> bool {
    let mut is_any = false;
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| is_any |= set_missing_times(item)),
        Value::Object(fields) => {
            for (name, field) in fields {
                if name == "conditions" {
                    field.as_array_mut().into_iter().flatten().for_each(|condition| is_any |= set_missing_time(condition));
                }
                is_any |= set_missing_times(field);
            }
        }
        _ => {}
    }
    is_any
}

fn set_missing_time(condition: &mut Value) -> bool {
    let Some(condition) = condition.as_object_mut() else { return false };
    let time = condition.entry("lastTransitionTime").or_insert(Value::Null);
    let is_missing = time.is_null();
    if is_missing {
        *time = NEVER.into();
    }
    is_missing
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::api::core::v1::Service;
    use serde_json::json;

    use super::*;

    fn service(conditions: Value) -> Value {
        json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "10.43.0.9"}, "status": {"conditions": conditions}})
    }

    #[test]
    fn a_condition_without_its_time_costs_no_object() {
        let plain = json!({"type": "A", "status": "True", "reason": "R", "message": ""});
        let mut unset = plain.clone();
        unset["lastTransitionTime"] = Value::Null;
        let mut set = plain.clone();
        set["lastTransitionTime"] = json!("2026-01-01T00:00:00Z");
        let text = service(json!([plain, unset, set])).to_string();
        let decoded: Service = from_json(text.as_bytes()).unwrap();
        let again = serde_json::to_value(&decoded).unwrap();
        let times: Vec<&str> =
            again["status"]["conditions"].as_array().unwrap().iter().map(|c| c["lastTransitionTime"].as_str().unwrap()).collect();
        assert_eq!(times, [NEVER, NEVER, "2026-01-01T00:00:00Z"]);
        let list = json!({"items": [service(json!([{"type": "A", "status": "True"}]))]}).to_string();
        let items: std::collections::BTreeMap<String, Vec<Service>> = from_json(list.as_bytes()).unwrap();
        assert_eq!(items["items"].len(), 1);
    }

    #[test]
    fn what_is_wrong_otherwise_stays_so() {
        let wrong = json!({"metadata": {"name": 1}, "status": {"conditions": [{"type": "A"}]}}).to_string();
        assert!(from_json::<Service>(wrong.as_bytes()).is_err());
        let error = from_json::<Service>(b"{").unwrap_err();
        assert!(error.to_string().contains("line 1"), "{error}");
    }
}
