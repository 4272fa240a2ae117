//! Deletes pods from NoExecute-tainted nodes: at once, or after as long as they tolerate it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use serde_json::json;
use trireme_client::{Client, DeleteOptions, EventKind, EventRecorder, Informer, Object, ObjectKey, Patch, WorkQueue};

use super::Victim;
use crate::informers::BY_NODE;
use crate::runtime::{Lead, Next, Reconcile};
use crate::{Error, clock, pods};

const NAME: &str = "node-controller";
const COMPONENT: &str = "taint-eviction-controller";

struct Controller {
    client: Client,
    recorder: EventRecorder,
    nodes: Arc<Informer<Node>>,
    pods: Arc<Informer<Pod>>,
}

pub(super) fn start(lead: &mut Lead) {
    let informers = Arc::clone(&lead.informers);
    let queue: WorkQueue<Victim> = lead.queue("noexec_taint_pod");
    let controller = Arc::new(Controller {
        client: lead.client(NAME),
        recorder: lead.recorder(COMPONENT),
        nodes: Arc::clone(&informers.nodes),
        pods: Arc::clone(&informers.pods),
    });
    let (keys, pods) = (queue.clone(), Arc::clone(&informers.pods));
    lead.keep(informers.nodes.subscribe(move |event| {
        let node = event.object();
        let taints = |node: &Node| no_execute(node);
        let before = event.old().map(|old| taints(old)).unwrap_or_default();
        if before != taints(node) {
            for pod in pods.by_index(BY_NODE, node.name()) {
                keys.add(victim(&pod));
            }
        }
    }));
    let (keys, nodes) = (queue.clone(), Arc::clone(&informers.nodes));
    lead.keep(informers.pods.subscribe(move |event| {
        let pod = event.object();
        let tainted = pods::node_name(pod).and_then(|name| nodes.get("", name)).is_some_and(|node| !no_execute(&node).is_empty());
        if tainted {
            keys.add(victim(pod));
        }
    }));
    lead.work(COMPONENT, &queue, &controller);
}

fn victim(pod: &Pod) -> Victim {
    (ObjectKey::of(pod), pod.uid().to_owned())
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == "NoExecute").cloned().collect()
}

impl Reconcile<Victim> for Controller {
    async fn reconcile(&self, (key, uid): &Victim) -> Result<Next, Error> {
        let Some(pod) = self.pods.get_key(key).filter(|pod| pod.uid() == uid) else { return Ok(Next::Wait) };
        if pods::is_terminating(&pod) {
            return Ok(Next::Wait);
        }
        let Some(node) = pods::node_name(&pod).and_then(|name| self.nodes.get("", name)) else { return Ok(Next::Wait) };
        let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.clone()).unwrap_or_default();
        match leave_in(&no_execute(&node), &tolerations, clock::now()) {
            Leave::Never => Ok(Next::Wait),
            Leave::In(wait) => Ok(Next::After(wait)),
            Leave::Now => {
                self.evict(&pod).await?;
                Ok(Next::Wait)
            }
        }
    }
}

impl Controller {
    async fn evict(&self, pod: &Pod) -> Result<(), Error> {
        let message = format!("Marking for deletion Pod {}/{}", pod.namespace(), pod.name());
        self.recorder.record(pod, EventKind::Normal, "TaintManagerEviction", message);
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": clock::now().to_string(),
        }]}});
        let namespace = Some(pod.namespace());
        match self.client.patch_status::<Pod>(namespace, pod.name(), &Patch::Strategic(patch)).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() || error.is_conflict() => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        match self.client.delete::<Pod>(namespace, pod.name(), &DeleteOptions::uid(pod.uid())).await {
            Ok(()) => Ok(()),
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    Never,
    Now,
    In(Duration),
}

/// When a pod with these tolerations must leave a node with these NoExecute taints.
fn leave_in(taints: &[Taint], tolerations: &[Toleration], now: Timestamp) -> Leave {
    let mut soonest: Option<i64> = None;
    for taint in taints {
        let matching: Vec<&Toleration> = tolerations.iter().filter(|one| tolerates(one, taint)).collect();
        if matching.is_empty() {
            return Leave::Now;
        }
        // Of several tolerations for one taint the shortest counts, as upstream has it.
        let allowed = matching.iter().filter_map(|one| one.toleration_seconds).min();
        if let Some(seconds) = allowed {
            let since = taint.time_added.as_ref().map_or(now.as_second(), |time| time.0.as_second());
            let left = since.saturating_add(seconds.max(0)).saturating_sub(now.as_second());
            soonest = Some(soonest.map_or(left, |known| known.min(left)));
        }
    }
    match soonest {
        None => Leave::Never,
        Some(left) if left <= 0 => Leave::Now,
        Some(left) => Leave::In(Duration::from_secs(left.unsigned_abs())),
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let effect = text(&toleration.effect);
    let key = text(&toleration.key);
    if !(effect.is_empty() || effect == taint.effect) || !(key.is_empty() || key == taint.key) {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => text(&toleration.value) == text(&taint.value) && !key.is_empty(),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn leave(tolerations: Value) -> Leave {
        let taints: Vec<Taint> = serde_json::from_value(json!([
            {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"},
        ]))
        .unwrap();
        let tolerations: Vec<Toleration> = serde_json::from_value(tolerations).unwrap();
        leave_in(&taints, &tolerations, "2026-01-01T00:01:40Z".parse().unwrap())
    }

    #[test]
    fn pods_leave_when_their_toleration_ends() {
        let key = "node.kubernetes.io/unreachable";
        assert_eq!(leave(json!([])), Leave::Now);
        assert_eq!(leave(json!([{"operator": "Exists"}])), Leave::Never);
        assert_eq!(leave(json!([{"key": "other", "operator": "Exists"}])), Leave::Now);
        let tolerate = |seconds: i64| json!([{"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]);
        assert_eq!(leave(tolerate(300)), Leave::In(Duration::from_secs(200)));
        assert_eq!(leave(tolerate(30)), Leave::Now);
    }
}
