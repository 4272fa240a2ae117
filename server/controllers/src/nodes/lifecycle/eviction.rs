//! Deletes pods from NoExecute-tainted nodes: at once, or after as long as they tolerate it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use serde_json::json;
use trireme_client::placement::tolerates;
use trireme_client::{Client, DeleteOptions, EventKind, EventRecorder, Informer, Object, ObjectKey, Patch};

use crate::Error;
use crate::pods::{self, ByNode};
use crate::runtime::{Context, Controller, Next, Watches, clock};

/// A pod in the queue: its name and uid, so that a successor of the same name is not meant.
type Victim = (ObjectKey, String);

/// The taint eviction controller.
pub(crate) struct TaintEviction {
    client: Client,
    recorder: EventRecorder,
    nodes: Arc<Informer<Node>>,
    pods: Arc<Informer<Pod>>,
    by_node: ByNode,
}

impl Controller for TaintEviction {
    const NAME: &'static str = "node-controller";
    const COMPONENT: &'static str = "taint-eviction-controller";
    const QUEUE: &'static str = "noexec_taint_pod";
    type Key = Victim;
    type Reads = (Arc<Informer<Node>>, Arc<Informer<Pod>>);

    fn new((nodes, pods): Self::Reads, context: &Context) -> Option<Self> {
        let by_node = ByNode::of(&pods);
        Some(Self { client: context.client.clone(), recorder: context.recorder.clone(), nodes, pods, by_node })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, Victim>) {
        let by_node = self.by_node.clone();
        watches.on(&self.nodes, move |event| {
            let node = event.object();
            let before = event.old().map(|old| no_execute(old)).unwrap_or_default();
            let changed = before != no_execute(node);
            if changed { by_node.get(node.name()).iter().map(|pod| victim(pod)).collect() } else { Vec::new() }
        });
        let nodes = Arc::clone(&self.nodes);
        watches.on(&self.pods, move |event| {
            let pod = event.object();
            let tainted = pods::node_name(pod).and_then(|name| nodes.get("", name)).is_some_and(|node| !no_execute(&node).is_empty());
            tainted.then(|| victim(pod))
        });
    }

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

fn victim(pod: &Pod) -> Victim {
    (ObjectKey::of(pod), pod.uid().to_owned())
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == "NoExecute").cloned().collect()
}

impl TaintEviction {
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
        // If several tolerations match one taint, the shortest counts, as upstream.
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
