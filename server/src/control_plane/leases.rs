//! The Lease objects by which tools see who leads. Published, never read: leadership is Raft's.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trireme_apiserver::{ObjectReader, bootstrap::Door};

use super::{Parts, startup};

const RENEW_EVERY: Duration = Duration::from_secs(10);
/// Longer than the renewal, so that a late write does not look like a vacancy.
const DURATION_SECS: u32 = 30;
const COLLECTION: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
const COMPONENTS: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];

/// Publishes them until the leadership ends.
pub async fn publish(parts: &Parts, fence: trireme_raft::Fence, stop: CancellationToken) {
    let door = startup::door(parts, fence);
    let holder = format!("{}_{}", parts.name, fence.node_id);
    let acquired = micro_time(Timestamp::now());
    let mut period = tokio::time::interval(RENEW_EVERY);
    loop {
        tokio::select! {
            _ = period.tick() => {}
            () = stop.cancelled() => return,
        }
        let mut failed = false;
        for component in COMPONENTS {
            if let Err(error) = renew(parts, &door, component, &holder, &acquired).await {
                tracing::debug!(%error, component, "lease not renewed");
                failed = true;
            }
        }
        if failed {
            // At the start of a cluster the namespace may not be there yet.
            period.reset_after(Duration::from_millis(500));
        }
    }
}

async fn renew(parts: &Parts, door: &Door, component: &str, holder: &str, acquired: &str) -> Result<(), trireme_apiserver::bootstrap::DoorError> {
    let found = parts.api.registry().get("coordination.k8s.io", "leases", "kube-system", component);
    let Some(found) = found else {
        let object = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": component, "namespace": "kube-system"},
            "spec": spec(holder, acquired, 0),
        });
        return door.create(COLLECTION, &object).await;
    };
    let mut object = (*found.object).clone();
    let before = &object["spec"];
    let transitions = before["leaseTransitions"].as_u64().unwrap_or(0) + u64::from(before["holderIdentity"] != holder);
    object["spec"] = spec(holder, acquired, transitions);
    door.replace(&format!("{COLLECTION}/{component}"), &object).await
}

fn spec(holder: &str, acquired: &str, transitions: u64) -> Value {
    json!({
        "holderIdentity": holder, "leaseDurationSeconds": DURATION_SECS, "acquireTime": acquired,
        "renewTime": micro_time(Timestamp::now()), "leaseTransitions": transitions,
    })
}

fn micro_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}
