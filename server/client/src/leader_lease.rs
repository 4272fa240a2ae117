//! Publishes the current leader in the Lease that upstream's components use for their election, for tools that read it.
//!
//! Must not decide anything: Raft has decided, and the fence protects the writes.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::{Value, json};
use tracing::debug;

use crate::{Client, Error, ResourceType};

const NAMESPACE: &str = "kube-system";
const PERIOD: Duration = Duration::from_secs(10);
/// After a failure: a new cluster may not have the namespace or the role yet.
const RETRY: Duration = Duration::from_millis(500);
const DURATION_SECS: i64 = 15;

/// Keeps `kube-system/<name>` saying that `holder` leads, until it is dropped.
pub async fn publish_leader(client: Client, name: &str, holder: &str) {
    let acquired = stamp();
    loop {
        let pause = match renew(&client, name, holder, &acquired).await {
            Ok(()) => PERIOD,
            Err(error) => {
                debug!(lease = name, %error, "the leader's Lease was not renewed");
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

fn stamp() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

async fn renew(client: &Client, name: &str, holder: &str, acquired: &str) -> Result<(), Error> {
    let resource = ResourceType::of::<Lease>();
    let mut lease: Value = match client.get_any(&resource, Some(NAMESPACE), name).await {
        Ok(lease) => lease,
        Err(error) if error.is_not_found() => {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": {
                    "holderIdentity": holder, "leaseDurationSeconds": DURATION_SECS, "leaseTransitions": 0,
                    "acquireTime": acquired, "renewTime": stamp(),
                },
            });
            return client.create_any::<_, Value>(&resource, Some(NAMESPACE), &lease).await.map(drop);
        }
        Err(error) => return Err(error),
    };
    let spec = &mut lease["spec"];
    if spec["holderIdentity"].as_str() != Some(holder) {
        spec["leaseTransitions"] = json!(spec["leaseTransitions"].as_i64().unwrap_or(0) + 1);
        spec["holderIdentity"] = json!(holder);
        spec["acquireTime"] = json!(acquired);
    }
    spec["leaseDurationSeconds"] = json!(DURATION_SECS);
    spec["renewTime"] = json!(stamp());
    client.replace_any::<_, Value>(&resource, Some(NAMESPACE), name, None, &lease).await.map(drop)
}
