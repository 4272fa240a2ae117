//! Priority: a pod's priority class becomes a number.
//!
//! Answers to <https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/>.

use serde_json::Value;
use trireme_api::meta;

use super::{find, forbid, is_on};
use crate::{
    admission_request::{AdmissionRequest, Operation},
    error::Answer,
    lookup::ObjectReader,
};

const GROUP: &str = "scheduling.k8s.io";
const PREEMPT: &str = "PreemptLowerPriority";

/// Resolves the class of a new pod.
pub async fn admit(reader: &dyn ObjectReader, request: &mut AdmissionRequest) -> Answer<()> {
    if !is_on(request, "", "pods", "") {
        return Ok(());
    }
    let Some(pod) = request.object.as_ref() else {
        return Ok(());
    };
    if request.operation == Operation::Update {
        // A client that leaves the number out on update means the one that is stored.
        let old = request.old_object.as_ref().and_then(|old| old["spec"].get("priority").cloned());
        let absent = pod["spec"].get("priority").is_none_or(Value::is_null);
        if let (true, Some(old), Some(pod)) = (absent, old, request.object.as_mut()) {
            pod["spec"]["priority"] = old;
        }
        return Ok(());
    }
    if request.operation != Operation::Create {
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
    if let Some(pod) = request.object.as_mut().filter(|pod| pod["spec"].is_object()) {
        if let Some(class) = &class {
            pod["spec"]["priorityClassName"] = Value::from(meta::name(class));
        }
        pod["spec"]["priority"] = Value::from(value);
        pod["spec"]["preemptionPolicy"] = Value::from(policy);
    }
    Ok(())
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
pub fn validate(reader: &dyn ObjectReader, request: &AdmissionRequest) -> Answer<()> {
    if !is_on(request, GROUP, "priorityclasses", "") || !matches!(request.operation, Operation::Create | Operation::Update) {
        return Ok(());
    }
    let Some(class) = request.object.as_ref().filter(|class| class["globalDefault"] == true) else {
        return Ok(());
    };
    match default_class(reader) {
        Some(existing) if meta::name(&existing) != meta::name(class) => {
            let name = meta::name(&existing);
            let text = format!("PriorityClass {name} is already marked as default. Only one default can exist");
            Err(forbid(request, &text))
        }
        _ => Ok(()),
    }
}
