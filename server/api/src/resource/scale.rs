//! How many replicas an object has and should have, as its `scale` subresource shows it.

use serde_json::{Value, json};

use crate::meta;
use crate::selector::LabelSelector;

/// The numbers of an object that can be scaled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scaled {
    /// How many are wanted; None where the object does not say.
    pub wanted: Option<i64>,
    /// How many there are.
    pub current: i64,
    /// Which pods they are, as a selector in a query; may be empty.
    pub selector: String,
}

impl Scaled {
    /// Of an object with `spec.replicas`, `status.replicas` and a selector in `spec`.
    pub fn of(object: &Value) -> Scaled {
        let selector = match object.pointer("/spec/selector") {
            Some(selector) if selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some() => {
                LabelSelector::from_object(selector).map(|s| s.to_string()).unwrap_or_default()
            }
            // Replication controllers have a plain map.
            Some(Value::Object(map)) => LabelSelector::from_map(map).to_string(),
            _ => String::new(),
        };
        let current = meta::i64_at(object, &["status", "replicas"]).unwrap_or(0);
        Scaled { wanted: Some(meta::i64_at(object, &["spec", "replicas"]).unwrap_or(0)), current, selector }
    }

    /// Writes how many are wanted into `spec.replicas`.
    pub fn set(object: &mut Value, replicas: i64) {
        meta::map_at(object, "spec").insert("replicas".to_owned(), json!(replicas));
    }
}
