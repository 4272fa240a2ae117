//! Closed-loop clients: each has one request under way, and sends the next when it is answered.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tonic::transport::Channel;
use trireme_proto::etcd::kv_client::KvClient;
use trireme_proto::etcd::{PutRequest, RangeRequest};

use crate::latency::Latencies;
use crate::store::connections::Connections;

/// How much of it.
pub struct Plan {
    pub clients: usize,
    pub time: Duration,
    pub keys: u64,
    pub value_bytes: usize,
}

/// What came of it.
#[derive(Default)]
pub struct Outcome {
    pub operations: u64,
    pub errors: u64,
    pub time: Duration,
    pub latencies: Latencies,
}

/// Where all keys begin.
pub const PREFIX: &str = "bench/";

/// The first moments are not counted: connections and caches warm up.
const WARM_UP: Duration = Duration::from_millis(500);

/// Puts of random keys.
pub async fn puts(connections: &Connections, plan: &Plan) -> anyhow::Result<Outcome> {
    let value = value(plan.value_bytes);
    run(connections, plan, move |mut client, key| {
        let value = value.clone();
        async move { client.put(PutRequest { key, value, ..PutRequest::default() }).await.map(drop) }
    })
    .await
}

/// Linearizable reads of random keys, which [`fill`] has written.
pub async fn gets(connections: &Connections, plan: &Plan) -> anyhow::Result<Outcome> {
    run(connections, plan, |mut client, key| async move { client.range(RangeRequest { key, ..RangeRequest::default() }).await.map(drop) })
        .await
}

/// A value of that many bytes.
pub fn value(bytes: usize) -> Bytes {
    (0..bytes).map(|_| rand::random::<u8>()).collect::<Vec<u8>>().into()
}

/// A random key of the plan's.
pub fn key(keys: u64) -> Bytes {
    numbered(rand::random_range(0..keys.max(1)))
}

fn numbered(number: u64) -> Bytes {
    format!("{PREFIX}{number:08}").into()
}

/// Writes all keys.
pub async fn fill(connections: &Connections, plan: &Plan) -> anyhow::Result<()> {
    const WRITERS: u64 = 64;
    let value = value(plan.value_bytes);
    let keys = plan.keys;
    let writers = (0..WRITERS).map(|writer| {
        let (mut client, value) = (KvClient::new(connections.of(writer as usize)), value.clone());
        tokio::spawn(async move {
            for number in (writer..keys).step_by(WRITERS as usize) {
                client.put(PutRequest { key: numbered(number), value: value.clone(), ..PutRequest::default() }).await?;
            }
            Ok::<(), tonic::Status>(())
        })
    });
    for writer in futures::future::join_all(writers).await {
        writer??;
    }
    Ok(())
}

async fn run<F>(
    connections: &Connections,
    plan: &Plan,
    request: impl Fn(KvClient<Channel>, Bytes) -> F + Clone + Send + 'static,
) -> anyhow::Result<Outcome>
where
    F: Future<Output = Result<(), tonic::Status>> + Send,
{
    let counted = Instant::now() + WARM_UP;
    let end = counted + plan.time;
    let keys = plan.keys;
    let clients = (0..plan.clients).map(|number| {
        let (client, request) = (KvClient::new(connections.of(number)), request.clone());
        tokio::spawn(async move {
            let mut outcome = Outcome::default();
            while Instant::now() < end {
                let began = Instant::now();
                let answer = request(client.clone(), key(keys)).await;
                let done = Instant::now();
                match answer {
                    _ if done < counted || done > end => {}
                    Ok(()) => {
                        outcome.operations += 1;
                        outcome.latencies.note(done - began);
                    }
                    Err(_) => outcome.errors += 1,
                }
            }
            outcome
        })
    });
    let mut all = Outcome { time: plan.time, ..Outcome::default() };
    for outcome in futures::future::join_all(clients).await {
        let outcome = outcome?;
        all.operations += outcome.operations;
        all.errors += outcome.errors;
        all.latencies.merge(outcome.latencies);
    }
    Ok(all)
}
