//! One metadata informer for each deletable resource, as discovery says.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use trireme_client::{Client, Event, Informer, InformerOptions, Object, PartialMeta, ResourceType};

use super::Collector;
use crate::cluster::discovery;

/// How often discovery is asked for new resources (CRDs).
const DISCOVERY_PERIOD: Duration = Duration::from_secs(30);
const DISCOVERY_RETRY: Duration = Duration::from_secs(1);
/// A resource whose list never comes must not keep all others from being collected.
const SYNC_PATIENCE: Duration = Duration::from_secs(30);

struct Monitor {
    informer: Arc<Informer<PartialMeta>>,
    cancel: CancellationToken,
}

/// Keeps a monitor for each resource; tells `ready` when the first set is in.
pub(super) async fn run(collector: Arc<Collector>, client: Client, cancel: CancellationToken, ready: watch::Sender<bool>) {
    let mut monitors: HashMap<ResourceType, Monitor> = HashMap::new();
    loop {
        let wait = match discovery::discover(&client).await {
            Ok(found) => {
                *collector.served.write() = found.served.iter().map(|served| Arc::new(served.resource.clone())).collect();
                let complete = found.failed.is_empty();
                let wanted: Vec<ResourceType> = found
                    .served
                    .into_iter()
                    .filter(|served| ["list", "watch", "delete"].iter().all(|verb| served.can(verb)))
                    .map(|served| served.resource)
                    .filter(|resource| resource.plural != "events")
                    .collect();
                adjust(&collector, &client, &cancel, &mut monitors, &wanted, complete);
                if !*ready.borrow() {
                    for monitor in monitors.values() {
                        let synced = monitor.informer.wait_synced();
                        if tokio::time::timeout(SYNC_PATIENCE, synced).await.is_err() {
                            debug!(resource = %monitor.informer.resource(), "still not listed");
                        }
                    }
                    info!(resources = monitors.len(), objects = collector.graph.lock().len(), "the garbage collector's graph is complete");
                    ready.send_replace(true);
                }
                DISCOVERY_PERIOD
            }
            Err(error) => {
                debug!(%error, "discovery failed");
                DISCOVERY_RETRY
            }
        };
        tokio::time::sleep(wait).await;
    }
}

fn adjust(
    collector: &Arc<Collector>,
    client: &Client,
    cancel: &CancellationToken,
    monitors: &mut HashMap<ResourceType, Monitor>,
    wanted: &[ResourceType],
    complete: bool,
) {
    // Monitors are removed only after a complete discovery: a group that did not answer may still exist.
    if complete {
        monitors.retain(|resource, monitor| {
            let keep = wanted.contains(resource);
            if !keep {
                monitor.cancel.cancel();
                collector.graph.lock().remove_resource(resource);
            }
            keep
        });
    }
    for resource in wanted {
        if monitors.contains_key(resource) {
            continue;
        }
        let cancel = cancel.child_token();
        let informer =
            Informer::start_for_with(resource.clone(), client.clone(), InformerOptions::default(), keep_what_counts, cancel.clone());
        let shared = Arc::new(resource.clone());
        let sink = Arc::downgrade(collector);
        informer.on_event(move |event| {
            let Some(collector) = sink.upgrade() else { return };
            let object = event.object();
            let touched = match event {
                Event::Deleted(_) => collector.graph.lock().remove(object.uid()),
                Event::Updated { old, new } if old.uid() != new.uid() => {
                    let gone = collector.graph.lock().remove(old.uid());
                    collector.touched(gone);
                    collector.graph.lock().upsert(&shared, new.meta())
                }
                Event::Added(_) | Event::Updated { .. } => collector.graph.lock().upsert(&shared, object.meta()),
            };
            collector.touched(touched);
        });
        monitors.insert(resource.clone(), Monitor { informer, cancel });
    }
}

/// Labels and annotations are most of the metadata, and the collector reads neither.
fn keep_what_counts(object: &mut PartialMeta) {
    object.metadata.labels = None;
    object.metadata.annotations = None;
    object.metadata.generate_name = None;
    object.metadata.self_link = None;
    object.kind = String::new();
    object.api_version = String::new();
}
