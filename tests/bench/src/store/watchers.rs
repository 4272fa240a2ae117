//! Many watchers of the same keys: how many events a second reach them all together, and how late.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tonic::Streaming;
use tonic::transport::Channel;
use trireme_proto::etcd::kv_client::KvClient;
use trireme_proto::etcd::watch_client::WatchClient;
use trireme_proto::etcd::watch_request::RequestUnion;
use trireme_proto::etcd::{PutRequest, WatchCreateRequest, WatchRequest, WatchResponse};

use crate::latency::Latencies;
use crate::store::connections::Connections;
use crate::store::load::{Outcome, PREFIX, Plan, key, value};

const WRITERS: usize = 16;
/// Events still under way when the writers stop are waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// `plan.clients` watchers, sixteen writers. An operation is an event that reached a watcher; its latency is from before the put
/// to its arrival.
pub async fn run(connections: &Connections, plan: &Plan) -> anyhow::Result<Outcome> {
    let began = Instant::now();
    let mut watchers = Vec::new();
    let written = Arc::new(AtomicU64::new(u64::MAX));
    for number in 0..plan.clients {
        let stream = open(connections.of(number)).await?;
        watchers.push(tokio::spawn(watch(stream, began, written.clone())));
    }
    let first = Instant::now();
    let end = first + plan.time;
    let (keys, bytes) = (plan.keys, plan.value_bytes);
    let writers = (0..WRITERS).map(|number| {
        let mut client = KvClient::new(connections.of(number));
        tokio::spawn(async move {
            let mut puts = 0;
            while Instant::now() < end {
                // The value begins with the time it was sent at.
                let mut stamped = began.elapsed().as_micros().to_be_bytes()[8..].to_vec();
                stamped.extend_from_slice(&value(bytes.saturating_sub(8)));
                client.put(PutRequest { key: key(keys), value: stamped.into(), ..PutRequest::default() }).await?;
                puts += 1;
            }
            Ok::<u64, tonic::Status>(puts)
        })
    });
    let mut puts = 0;
    for writer in futures::future::join_all(writers).await {
        puts += writer??;
    }
    written.store(puts, Ordering::Release);
    let mut outcome = Outcome::default();
    for watcher in watchers {
        let (events, latencies) = watcher.await?;
        outcome.operations += events;
        outcome.errors += puts.saturating_sub(events);
        outcome.latencies.merge(latencies);
    }
    outcome.time = first.elapsed();
    Ok(outcome)
}

async fn open(channel: Channel) -> anyhow::Result<Streaming<WatchResponse>> {
    let create = WatchCreateRequest { key: PREFIX.into(), range_end: "bench0".into(), ..WatchCreateRequest::default() };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    // The request side stays open: to close it would end the watch.
    let requests = futures::StreamExt::chain(futures::stream::iter([request]), futures::stream::pending());
    let mut stream = WatchClient::new(channel).watch(requests).await?.into_inner();
    let created = stream.message().await?;
    anyhow::ensure!(created.is_some_and(|created| created.created), "the watch was not created");
    Ok(stream)
}

/// Counts until it has seen as many events as were written in the end.
async fn watch(mut stream: Streaming<WatchResponse>, began: Instant, written: Arc<AtomicU64>) -> (u64, Latencies) {
    let (mut events, mut latencies) = (0, Latencies::default());
    let mut quiet_since = Instant::now();
    while events < written.load(Ordering::Acquire) && quiet_since.elapsed() < PATIENCE {
        let Ok(message) = tokio::time::timeout(Duration::from_millis(100), stream.message()).await else { continue };
        let Ok(Some(message)) = message else { break };
        quiet_since = Instant::now();
        let now = began.elapsed();
        for event in message.events {
            events += 1;
            let sent = event.kv.as_ref().and_then(|kv| kv.value.get(..8)).and_then(|stamp| stamp.try_into().ok()).map(u64::from_be_bytes);
            latencies.note(now.saturating_sub(Duration::from_micros(sent.unwrap_or(0))));
        }
    }
    (events, latencies)
}
