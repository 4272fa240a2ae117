//! The node's Lease in `kube-node-lease`, renewed every 10 s. Answers to <https://kubernetes.io/docs/concepts/architecture/leases/>.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
};
use serde_json::json;
use trireme_client::Patch;

use crate::core::Core;

const NAMESPACE: &str = "kube-node-lease";
const RENEW: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(1);
const DURATION_SECS: i32 = 40;

/// Renews until dropped.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        let delay = match renew(&core).await {
            Ok(true) => RENEW,
            Ok(false) => RETRY,
            Err(error) => {
                tracing::info!(%error, "node lease not renewed, will be retried");
                RETRY
            }
        };
        tokio::time::sleep(delay).await;
    }
}

/// Whether there is a Lease now.
async fn renew(core: &Core) -> Result<bool, trireme_client::Error> {
    let name = &core.options.node_name;
    let now = MicroTime(core.clock.now());
    let renewal = json!({"spec": {"holderIdentity": name, "leaseDurationSeconds": DURATION_SECS, "renewTime": now}});
    match core.client.patch::<Lease>(Some(NAMESPACE), name, &Patch::Merge(renewal)).await {
        Err(e) if e.is_not_found() => {}
        other => return other.map(|_| true),
    }
    // Owned by the Node, so that it goes when the node goes. Without a Node yet it is made a moment later.
    let Some(uid) = core.node.read().as_ref().and_then(|n| n.metadata.uid.clone()) else { return Ok(false) };
    let owner = OwnerReference { api_version: "v1".into(), kind: "Node".into(), name: name.clone(), uid, ..Default::default() };
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(NAMESPACE.into()),
            owner_references: Some(vec![owner]),
            ..Default::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.clone()),
            lease_duration_seconds: Some(DURATION_SECS),
            renew_time: Some(now),
            ..Default::default()
        }),
    };
    match core.client.create::<Lease>(Some(NAMESPACE), &lease).await {
        Err(e) if e.is_already_exists() => Ok(true),
        // In a cluster's first moments the namespace is not there yet.
        Err(e) if e.is_not_found() => Ok(false),
        other => other.map(|_| true),
    }
}
