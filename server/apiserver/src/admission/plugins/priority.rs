//! Priority: a pod's priority class becomes a number.
//!
//! Answers to <https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/>.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;
use trireme_api::meta;

use crate::admission::effects::Effects;
use crate::admission::find;
use crate::admission::forbid;
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::error::Answer;
use crate::storage::lookup::ObjectReader;

const GROUP: &str = "scheduling.k8s.io";
const PREEMPT: &str = "PreemptLowerPriority";

/// The plugin.
pub struct Priority {
    reader: Arc<dyn ObjectReader>,
}

impl Priority {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> Priority {
        Priority { reader: environment.reader.clone() }
    }
}

impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Admit, Phase::Validate]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update)
            && (request.is_on("", "pods", "") || request.is_on(GROUP, "priorityclasses", ""))
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(admit(&*self.reader, request))
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(std::future::ready(validate(&*self.reader, request)))
    }
}

/// Resolves the class of a new pod.
async fn admit(reader: &dyn ObjectReader, request: &mut AdmissionRequest) -> Answer<()> {
    if !request.is_on("", "pods", "") {
        return Ok(());
    }
    let Some(pod) = request.object() else {
        return Ok(());
    };
    if request.operation == Operation::Update {
        keep(request, "priority");
        keep(request, "preemptionPolicy");
        return Ok(());
    }
    let class_name = meta::str_at(pod, &["spec", "priorityClassName"]).to_owned();
    let class = if class_name.is_empty() {
        default_class(reader)
    } else {
        match find(reader, GROUP, "priorityclasses", "", &class_name).await {
            Some(found) => Some((*found.object).clone()),
            None => {
                let text = format!("no PriorityClass with name {class_name} was found");
                return Err(forbid(request, &text));
            }
        }
    };
    let value = class.as_ref().and_then(|class| meta::i64_at(class, &["value"])).unwrap_or(0);
    let policy = class
        .as_ref()
        .map(|class| meta::str_at(class, &["preemptionPolicy"]))
        .filter(|policy| !policy.is_empty())
        .unwrap_or(PREEMPT)
        .to_owned();
    if let Some(given) = meta::i64_at(pod, &["spec", "priority"])
        && given != value
    {
        let text = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        );
        return Err(forbid(request, &text));
    }
    let given = meta::str_at(pod, &["spec", "preemptionPolicy"]);
    if !given.is_empty() && given != policy {
        let text = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        );
        return Err(forbid(request, &text));
    }
    if let Some(pod) = request.object_mut().filter(|pod| pod["spec"].is_object()) {
        if let Some(class) = &class {
            pod["spec"]["priorityClassName"] = Value::from(meta::name(class));
        }
        pod["spec"]["priority"] = Value::from(value);
        pod["spec"]["preemptionPolicy"] = Value::from(policy);
    }
    Ok(())
}

/// A client that leaves the field out on update means what is stored.
fn keep(request: &mut AdmissionRequest, field: &str) {
    let old = request.old_object.as_ref().and_then(|old| old["spec"].get(field).cloned());
    let absent = request.object().is_some_and(|pod| pod["spec"].is_object() && pod["spec"][field].is_null());
    if absent
        && let Some(old) = old
        && let Some(pod) = request.object_mut()
    {
        pod["spec"][field] = old;
    }
}

/// There can be only one global default (should there be more, the lowest counts, as upstream).
fn default_class(reader: &dyn ObjectReader) -> Option<Value> {
    reader
        .list(GROUP, "priorityclasses", None)
        .into_iter()
        .filter(|class| class.object["globalDefault"] == true)
        .min_by_key(|class| meta::i64_at(&class.object, &["value"]).unwrap_or(0))
        .map(|class| (*class.object).clone())
}

/// Refuses a second global default.
fn validate(reader: &dyn ObjectReader, request: &AdmissionRequest) -> Answer<()> {
    if !request.is_on(GROUP, "priorityclasses", "") {
        return Ok(());
    }
    let Some(class) = request.object().filter(|class| class["globalDefault"] == true) else {
        return Ok(());
    };
    match default_class(reader) {
        Some(existing) if request.operation == Operation::Create || meta::name(&existing) != meta::name(class) => {
            let name = meta::name(&existing);
            let text = format!("PriorityClass {name} is already marked as default. Only one default can exist");
            Err(forbid(request, &text))
        }
        _ => Ok(()),
    }
}
