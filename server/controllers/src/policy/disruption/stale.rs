//! A pod that was to be disrupted and was not: after two minutes its `DisruptionTarget` condition is false again.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use trireme_client::{Client, Informer, Object, ObjectKey, Patch};

use crate::runtime::clock::{self, seconds_since};
use crate::runtime::{Context, Controller, Next, Watches};
use crate::{Error, pods};

const TIMEOUT_SECS: i64 = 120;
const DISRUPTION_TARGET: &str = "DisruptionTarget";

/// The part of the disruption controller that clears stale conditions.
pub(crate) struct StaleDisruptions {
    client: Client,
    pods: Arc<Informer<Pod>>,
}

impl Controller for StaleDisruptions {
    const NAME: &'static str = "disruption-controller";
    const QUEUE: &'static str = "stale_pod_disruption";
    type Key = ObjectKey;
    type Reads = Arc<Informer<Pod>>;

    fn new(pods: Self::Reads, context: &Context) -> Option<Self> {
        Some(Self { client: context.client.clone(), pods })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, ObjectKey>) {
        watches.on(&self.pods, |event| {
            let pod = event.object();
            let concerned = !event.is_deletion() && stale_in_secs(pod, clock::now()).is_some();
            concerned.then(|| ObjectKey::of(&**pod))
        });
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(pod) = self.pods.get_key(key) else { return Ok(Next::Wait) };
        let now = clock::now();
        match stale_in_secs(&pod, now) {
            None => Ok(Next::Wait),
            Some(0) => {
                let patch = json!({"metadata": {"uid": pod.uid(), "resourceVersion": pod.metadata.resource_version}, "status": {
                    "conditions": [{"type": DISRUPTION_TARGET, "status": "False", "reason": null, "message": null,
                        "lastTransitionTime": now.to_string()}]}});
                match self.client.patch_status::<Pod>(Some(pod.namespace()), pod.name(), &Patch::Strategic(patch)).await {
                    Ok(_) => Ok(Next::Wait),
                    Err(error) if error.is_not_found() => Ok(Next::Wait),
                    Err(error) => Err(error.into()),
                }
            }
            left => Ok(Next::after_secs(left)),
        }
    }
}

/// Seconds until a disruption that was announced for a pod counts as called off; `None` if none was, or it is under way.
fn stale_in_secs(pod: &Pod, now: Timestamp) -> Option<i64> {
    if !pods::is_active(pod) {
        return None;
    }
    let condition = pods::condition(pod, DISRUPTION_TARGET)?;
    if condition.status != "True" || condition.reason.as_deref() == Some("TerminationByKubelet") {
        return None;
    }
    let since = condition.last_transition_time.as_ref().map_or(0, |since| seconds_since(since, now));
    Some((TIMEOUT_SECS - since).max(0))
}
