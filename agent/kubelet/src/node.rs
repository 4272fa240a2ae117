//! This node in the API: registration, status and Lease.
//!
//! The Lease says "alive" every 10 s and is small; the status is written when it changes, and every 5 minutes. Answers to
//! <https://kubernetes.io/docs/reference/node/node-status/>.

mod extended;
pub(crate) mod lease;
pub(crate) mod signal;
pub(crate) mod status;
pub(crate) mod thresholds;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{Node, NodeSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};
use trireme_client::{EventKind, Patch, storage};

use crate::core::Core;
use status::NodeView;

/// Between looks at our own condition.
const LOOK: Duration = Duration::from_secs(10);
/// An unchanged status is written again after this, for clients that watch heartbeats.
const REPORT_ANYWAY: Duration = Duration::from_secs(300);
/// A plugin that changes its mind often is reported once in so long.
const GATHER: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_secs(2);

/// Registers the node and keeps its status, until dropped.
pub(crate) async fn run(core: Arc<Core>, mut runtime_up: watch::Receiver<bool>) {
    core.events.node(EventKind::Normal, "Starting", "Starting kubelet.");
    let mut view = NodeView::default();
    let mut reported_at: Option<Instant> = None;
    let mut registered = false;
    loop {
        let up = *runtime_up.borrow_and_update();
        let result = async {
            if !registered {
                register(&core).await?;
            }
            report(&core, &mut view, &mut reported_at, up).await
        };
        let delay = match result.await {
            Ok(()) => {
                registered = true;
                LOOK
            }
            Err(error) => {
                // The Node was deleted: register again, as upstream's kubelet does after a restart.
                registered = !error.is_not_found();
                tracing::info!(%error, "node status not written, will be retried");
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = core.csi.in_use_changed.notified() => {}
            () = core.devices.changed.notified() => tokio::time::sleep(GATHER).await,
            changed = runtime_up.changed() => if changed.is_err() { return },
        }
    }
}

fn labels(core: &Core) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        ("kubernetes.io/hostname".to_string(), core.options.node_name.clone()),
        ("kubernetes.io/os".into(), "linux".into()),
        ("kubernetes.io/arch".into(), core.machine.architecture.into()),
        ("beta.kubernetes.io/os".into(), "linux".into()),
        ("beta.kubernetes.io/arch".into(), core.machine.architecture.into()),
    ]);
    labels.extend(core.options.labels.clone());
    labels
}

/// What others have to know of this host beyond its labels.
fn annotations(core: &Core) -> BTreeMap<String, String> {
    BTreeMap::from([
        (storage::LOCAL_FOLDER.to_string(), core.options.local_volumes_dir.display().to_string()),
        // Volumes are attached by the controller and not by the kubelet.
        (storage::CONTROLLER_ATTACHES.to_string(), "true".to_string()),
    ])
}

fn missing(wanted: BTreeMap<String, String>, have: Option<&BTreeMap<String, String>>) -> BTreeMap<String, String> {
    wanted.into_iter().filter(|(key, value)| have.and_then(|have| have.get(key)) != Some(value)).collect()
}

/// Creates the Node, or sets our labels and annotations on the one that exists. Taints are only given at creation: later ones are others' business.
async fn register(core: &Core) -> Result<(), trireme_client::Error> {
    let name = &core.options.node_name;
    match core.client.get::<Node>(None, name).await {
        Ok(node) => {
            let labels = missing(labels(core), node.metadata.labels.as_ref());
            let annotations = missing(annotations(core), node.metadata.annotations.as_ref());
            let node = if labels.is_empty() && annotations.is_empty() {
                node
            } else {
                let metadata = json!({"labels": labels, "annotations": annotations});
                core.client.patch::<Node>(None, name, &Patch::Merge(json!({"metadata": metadata}))).await?
            };
            *core.node.write() = Some(Arc::new(node));
            Ok(())
        }
        Err(e) if e.is_not_found() => {
            let node = Node {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    labels: Some(labels(core)),
                    annotations: Some(annotations(core)),
                    ..Default::default()
                },
                spec: Some(NodeSpec {
                    taints: (!core.options.taints.is_empty()).then(|| core.options.taints.clone()),
                    provider_id: core.options.provider_id.clone(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            let made = core.client.create::<Node>(None, &node).await?;
            tracing::info!(node = name, "node registered");
            *core.node.write() = Some(Arc::new(made));
            Ok(())
        }
        Err(e) => Err(e),
    }
}

async fn report(
    core: &Core,
    view: &mut NodeView,
    reported_at: &mut Option<Instant>,
    runtime_up: bool,
) -> Result<(), trireme_client::Error> {
    view.look(core, runtime_up).await;
    let Some(node) = core.node.read().clone() else { return Ok(()) };
    let fresh = status::compose(core, view, node.status.as_ref());
    let due = reported_at.is_none_or(|at| at.elapsed() >= REPORT_ANYWAY);
    let changed = status::differs(node.status.as_ref(), &fresh);
    if !due && !changed {
        core.devices.reported();
        return Ok(());
    }
    let became_ready = status::is_ready(&fresh).filter(|ready| status::is_ready_option(node.status.as_ref()) != Some(*ready));
    let mut body = serde_json::to_value(&fresh).unwrap_or_default();
    replace_list(&mut body, "addresses");
    let stored = core.client.patch_status::<Node>(None, &core.options.node_name, &Patch::Strategic(json!({"status": body}))).await?;
    *core.node.write() = Some(Arc::new(stored));
    *reported_at = Some(Instant::now());
    core.devices.reported();
    if let Some(ready) = became_ready {
        let reason = if ready { "NodeReady" } else { "NodeNotReady" };
        core.events.node(EventKind::Normal, reason, &format!("Node {} status is now: {reason}", core.options.node_name));
    }
    Ok(())
}

/// Addresses merge by type in a strategic patch; a node with two of a type, or one less than before, needs the whole list replaced.
fn replace_list(body: &mut Value, key: &str) {
    if let Some(Value::Array(items)) = body.get_mut(key) {
        items.insert(0, json!({"$patch": "replace"}));
    }
}
