//! Marks this server's own node as one of the control plane. A kubelet may not give itself such a label (NodeRestriction), so the
//! server does it.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use trireme_apiserver::ApiServer;
use trireme_client::{Client, Identity, Patch};

use super::in_process::InProcess;

const ROLE: &str = "node-role.kubernetes.io/control-plane";
/// The node registers within a second or two of the start.
const RETRY: Duration = Duration::from_secs(1);

/// Labels the node as soon as it has registered.
pub async fn mark(api: ApiServer, node_name: String, cancel: CancellationToken) {
    let groups = vec!["system:masters".to_owned(), "system:authenticated".to_owned()];
    let identity = Identity { user: "system:apiserver".into(), groups, ..Identity::default() };
    let client = Client::new(Arc::new(InProcess::new(api))).with_identity(identity).with_user_agent("trireme/node-role");
    let patch = Patch::Merge(json!({"metadata": {"labels": {ROLE: "true"}}}));
    loop {
        match client.patch::<Node>(None, &node_name, &patch).await {
            Ok(_) => return,
            Err(error) if error.is_not_found() => {}
            Err(error) => tracing::debug!(%error, node_name, "node not marked as control plane yet"),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = cancel.cancelled() => return,
        }
    }
}
