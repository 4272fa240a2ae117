//! The list of servers, kept fresh: the addresses behind the `kubernetes` Service, which dead servers leave.

use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use trireme_client::{HttpsTransport, Informer};

use crate::certificates::Certificates;

/// Follows the slice until cancelled; each new list goes to the transport, to `told`, and to disk for the next start.
pub(crate) async fn follow(
    slices: Arc<Informer<EndpointSlice>>,
    transport: HttpsTransport,
    certificates: Arc<Certificates>,
    told: watch::Sender<Vec<String>>,
    cancel: CancellationToken,
) {
    let (poke, mut poked) = mpsc::channel(1);
    slices.on_event(move |event| {
        if is_kubernetes(event.object()) {
            let _ = poke.try_send(());
        }
    });
    while tokio::select! { some = poked.recv() => some.is_some(), () = cancel.cancelled() => false } {
        let servers: Vec<String> = slices.list().iter().filter(|s| is_kubernetes(s)).flat_map(|s| urls(s)).collect();
        // An empty list would cut the node off for good; the old addresses may come back.
        if servers.is_empty() || servers == certificates.servers() {
            continue;
        }
        tracing::info!(?servers, "servers of the cluster");
        if let Err(error) = transport.set_servers(&servers) {
            tracing::warn!(%error, "list of servers not taken over");
            continue;
        }
        told.send_replace(servers.clone());
        if let Err(error) = certificates.keep_servers(servers) {
            tracing::warn!(%error, "list of servers not kept");
        }
    }
}

fn is_kubernetes(slice: &EndpointSlice) -> bool {
    let label = slice.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/service-name"));
    slice.metadata.namespace.as_deref() == Some("default") && label.is_some_and(|s| s == "kubernetes")
}

fn urls(slice: &EndpointSlice) -> Vec<String> {
    let port = slice.ports.iter().flatten().find_map(|p| p.port).unwrap_or(6443);
    let ready = slice.endpoints.iter().flatten().filter(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true));
    let mut urls: Vec<String> = ready
        .flat_map(|e| &e.addresses)
        .map(|a| if a.contains(':') { format!("https://[{a}]:{port}") } else { format!("https://{a}:{port}") })
        .collect();
    urls.sort();
    urls
}
