//! The disruption budget of an eviction: it is counted down in the transaction that deletes the pod.
//!
//! Upstream does this in the storage of `pods/eviction`, in two writes and with retries. Answers to
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/> and upstream's `pkg/registry/core/pod/storage/eviction.go`.

use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};
use trireme_api::gvk::GroupResource;
use trireme_api::selector::LabelSelector;
use trireme_api::status::{Status, StatusDetails};
use trireme_api::{meta, time};

use crate::admission::effects::Effects;
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::error::Answer;
use crate::storage::keys;
use crate::storage::lookup::{LookedUp, ObjectReader, StoreAccess};

const GROUP: &str = "policy";
const PLURAL: &str = "poddisruptionbudgets";
/// Most pods that a budget remembers as being disrupted.
const DISRUPTED_PODS_MAX: usize = 2000;

/// The plugin.
pub struct DisruptionBudget {
    reader: Arc<dyn ObjectReader>,
    store: Arc<dyn StoreAccess>,
}

impl DisruptionBudget {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> DisruptionBudget {
        DisruptionBudget { reader: environment.reader.clone(), store: environment.store.clone() }
    }

    fn check(&self, pod: &Value, effects: &mut Effects) -> Answer<()> {
        if ignores_budget(pod) {
            return Ok(());
        }
        match self.budget_of(pod)? {
            None => Ok(()),
            Some(budget) => self.count_down(&budget, pod, effects),
        }
    }

    /// The one budget that covers the pod.
    fn budget_of(&self, pod: &Value) -> Answer<Option<LookedUp>> {
        let mut matching = Vec::new();
        for budget in self.reader.list(GROUP, PLURAL, Some(meta::namespace(pod))) {
            let Some(selector) = budget.object.pointer("/spec/selector").filter(|selector| !selector.is_null()) else { continue };
            if LabelSelector::from_object(selector).is_ok_and(|s| s.matches(meta::labels(pod))) {
                matching.push(budget);
            }
        }
        if matching.len() > 1 {
            let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Status::internal(message).into());
        }
        Ok(matching.pop())
    }

    fn count_down(&self, budget: &LookedUp, pod: &Value, effects: &mut Effects) -> Answer<()> {
        let object = &budget.object;
        let (namespace, name) = (meta::namespace(object), meta::name(object));
        let number = |key: &str| meta::i64_at(object, &["status", key]).unwrap_or(0);
        if number("observedGeneration") < meta::generation(object) {
            return Err(refused(&format!("The disruption budget {name} is still being processed by the server."), 10));
        }
        let (allowed, healthy, desired) = (number("disruptionsAllowed"), number("currentHealthy"), number("desiredHealthy"));
        // Whatever is decided here is decided for the budget as it is.
        effects.require(&keys::object_key(GROUP, PLURAL, namespace, name), budget.mod_revision);
        if !is_ready(pod) {
            let always = meta::str_at(object, &["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow";
            if always || (healthy >= desired && desired > 0) {
                return Ok(());
            }
        }
        let resource = GroupResource::new(GROUP, "poddisruptionbudget");
        if allowed < 0 {
            return Err(Status::forbidden(&resource, name, "pdb disruptions allowed is negative").into());
        }
        let disrupted = object.pointer("/status/disruptedPods").and_then(Value::as_object).map_or(0, serde_json::Map::len);
        if disrupted > DISRUPTED_PODS_MAX {
            let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
            return Err(Status::forbidden(&resource, name, why).into());
        }
        if allowed == 0 {
            return Err(refused(&format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"), 0));
        }
        let mut changed = (**object).clone();
        let status = meta::map_at(&mut changed, "status");
        status.insert("disruptionsAllowed".to_owned(), json!(allowed - 1));
        let pods = status.entry("disruptedPods").or_insert_with(|| json!({}));
        if !pods.is_object() {
            *pods = json!({});
        }
        pods[meta::name(pod)] = json!(time::format(Timestamp::now()));
        effects.operation(self.store.put_operation(GROUP, PLURAL, &changed)?);
        Ok(())
    }
}

impl Plugin for DisruptionBudget {
    fn name(&self) -> &'static str {
        "DisruptionBudget"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Validate]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Create && request.is_on("", "pods", "eviction")
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest, effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        let outcome = match &request.target {
            Some(pod) => self.check(pod, effects),
            None => Ok(()),
        };
        Box::pin(std::future::ready(outcome))
    }
}

fn ignores_budget(pod: &Value) -> bool {
    meta::deletion_timestamp(pod).is_some() || matches!(meta::str_at(pod, &["status", "phase"]), "Succeeded" | "Failed" | "Pending")
}

fn is_ready(pod: &Value) -> bool {
    meta::list_at(pod, &["status", "conditions"]).iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// 429 with the cause that drain tools look for.
fn refused(cause: &str, retry_after_secs: u16) -> Box<Status> {
    let mut status = Status::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", retry_after_secs);
    status.details.get_or_insert_with(StatusDetails::default);
    Box::new(status.with_cause("DisruptionBudget", cause, ""))
}
