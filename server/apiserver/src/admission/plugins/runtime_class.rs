//! RuntimeClass: a pod's class must exist; its overhead and scheduling become the pod's.
//!
//! Answers to <https://kubernetes.io/docs/concepts/containers/runtime-class/>.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::{Map, Value, json};
use trireme_api::meta;
use trireme_api::quantity::Quantity;

use crate::admission::effects::Effects;
use crate::admission::find;
use crate::admission::forbid;
use crate::admission::merged_tolerations;
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::error::Answer;
use crate::storage::lookup::ObjectReader;

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

/// The plugin.
pub struct RuntimeClass {
    reader: Arc<dyn ObjectReader>,
}

impl RuntimeClass {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> RuntimeClass {
        RuntimeClass { reader: environment.reader.clone() }
    }

    /// The class that the pod names.
    async fn class(&self, request: &AdmissionRequest) -> Answer<Option<Arc<Value>>> {
        let name = request.object().map(|pod| meta::str_at(pod, &["spec", "runtimeClassName"])).unwrap_or_default();
        if name.is_empty() {
            return Ok(None);
        }
        match find(&*self.reader, "node.k8s.io", "runtimeclasses", "", name).await {
            Some(found) => Ok(Some(found.object)),
            None => Err(forbid(request, &format!("pod rejected: RuntimeClass {name:?} not found"))),
        }
    }

    async fn fill_in(&self, request: &mut AdmissionRequest) -> Answer<()> {
        let Some(class) = self.class(request).await? else { return Ok(()) };
        let outcome = match request.object_mut().and_then(|pod| pod.get_mut("spec")).and_then(Value::as_object_mut) {
            Some(spec) => set_overhead(spec, &class).and_then(|()| set_scheduling(spec, &class)),
            None => Ok(()),
        };
        outcome.map_err(|why| forbid(request, &why))
    }

    async fn judge(&self, request: &AdmissionRequest) -> Answer<()> {
        let class = self.class(request).await?;
        let wanted = class.as_ref().and_then(|class| meta::get(class, &["overhead", "podFixed"]));
        let given = request.object().and_then(|pod| meta::get(pod, &["spec", "overhead"])).filter(|overhead| !overhead.is_null());
        let why = match (wanted, given) {
            (None, None) => return Ok(()),
            (Some(wanted), Some(given)) if same_amounts(wanted, given) => return Ok(()),
            (Some(_), _) => MISMATCH,
            (None, Some(_)) => "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        };
        Err(forbid(request, why))
    }
}

impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Admit, Phase::Validate]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Create && request.is_on("", "pods", "")
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(self.fill_in(request))
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(self.judge(request))
    }
}

fn set_overhead(spec: &mut Map<String, Value>, class: &Value) -> Result<(), String> {
    let Some(overhead) = meta::get(class, &["overhead", "podFixed"]) else { return Ok(()) };
    let given = spec.get("overhead").filter(|given| given.as_object().is_some_and(|map| !map.is_empty()));
    if given.is_some_and(|given| !same_amounts(given, overhead)) {
        return Err(MISMATCH.to_owned());
    }
    spec.insert("overhead".to_owned(), overhead.clone());
    Ok(())
}

fn set_scheduling(spec: &mut Map<String, Value>, class: &Value) -> Result<(), String> {
    let selector = meta::get(class, &["scheduling", "nodeSelector"]).and_then(Value::as_object);
    if let Some(selector) = selector.filter(|selector| !selector.is_empty()) {
        let own = spec.entry("nodeSelector").or_insert_with(|| json!({}));
        if own.is_null() {
            *own = json!({});
        }
        for (key, value) in selector {
            if let Some(other) = own.get(key).filter(|other| *other != value) {
                let (value, other) = (value.as_str().unwrap_or_default(), other.as_str().unwrap_or_default());
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {other}"
                ));
            }
            own[key] = value.clone();
        }
    }
    let more = meta::list_at(class, &["scheduling", "tolerations"]);
    if !more.is_empty() {
        let own = spec.get("tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
        spec.insert("tolerations".to_owned(), Value::from(merged_tolerations::merge(own, more)));
    }
    Ok(())
}

/// Whether two resource lists have the same amounts, however they are written.
fn same_amounts(left: &Value, right: &Value) -> bool {
    let (Some(left), Some(right)) = (left.as_object(), right.as_object()) else { return left == right };
    let amount = |value: &Value| value.as_str().and_then(|text| text.parse::<Quantity>().ok());
    left.len() == right.len()
        && left.iter().all(|(name, value)| {
            right.get(name).is_some_and(|other| value == other || amount(value).zip(amount(other)).is_some_and(|(a, b)| a == b))
        })
}
