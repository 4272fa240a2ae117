//! The status of an autoscaler, as it is written.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Map, Value, json};

/// What is known so far.
pub(super) struct Status {
    now: Timestamp,
    fields: Map<String, Value>,
    conditions: Vec<HorizontalPodAutoscalerCondition>,
    metrics: Vec<Value>,
}

// === impl Status ===

impl Status {
    /// Begins with what an autoscaler has.
    pub(super) fn of(autoscaler: &HorizontalPodAutoscaler, now: Timestamp) -> Status {
        let old = autoscaler.status.clone().unwrap_or_default();
        let mut fields = Map::new();
        fields.insert("currentReplicas".to_owned(), json!(old.current_replicas.unwrap_or(0)));
        fields.insert("desiredReplicas".to_owned(), json!(old.desired_replicas));
        if let Some(last) = &old.last_scale_time {
            fields.insert("lastScaleTime".to_owned(), json!(last));
        }
        if let Some(generation) = autoscaler.metadata.generation {
            fields.insert("observedGeneration".to_owned(), json!(generation));
        }
        Status { now, fields, conditions: old.conditions.unwrap_or_default(), metrics: Vec::new() }
    }

    /// The time of this evaluation.
    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// Sets a condition. Its time is that of the last change of its status.
    pub(super) fn set(&mut self, kind: &str, is_true: bool, reason: &str, message: impl Into<String>) {
        let status = if is_true { "True" } else { "False" };
        let known = self.conditions.iter_mut().find(|condition| condition.type_ == kind);
        let (reason, message) = (Some(reason.to_owned()), Some(message.into()));
        match known {
            Some(condition) => {
                if condition.status != status {
                    condition.last_transition_time = Some(Time(self.now));
                }
                status.clone_into(&mut condition.status);
                (condition.reason, condition.message) = (reason, message);
            }
            None => self.conditions.push(HorizontalPodAutoscalerCondition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                last_transition_time: Some(Time(self.now)),
                reason,
                message,
            }),
        }
    }

    /// What a metric is at.
    pub(super) fn add_metric(&mut self, status: Value) {
        self.metrics.push(status);
    }

    /// The replicas that were found, those that are wanted (none: not known), and whether the target was scaled now.
    pub(super) fn replicas(&mut self, current: i32, wanted: Option<i32>, is_scaled: bool) {
        self.fields.insert("currentReplicas".to_owned(), json!(current));
        if let Some(wanted) = wanted {
            self.fields.insert("desiredReplicas".to_owned(), json!(wanted));
        }
        if is_scaled {
            self.fields.insert("lastScaleTime".to_owned(), json!(Time(self.now)));
        }
    }

    /// As JSON.
    pub(super) fn to_value(&self) -> Value {
        let mut fields = self.fields.clone();
        fields.insert("conditions".to_owned(), json!(self.conditions));
        fields.insert("currentMetrics".to_owned(), Value::Array(self.metrics.clone()));
        Value::Object(fields)
    }
}
