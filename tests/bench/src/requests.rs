//! Requests for ConfigMaps: each client has a connection of its own and one request under way.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use crate::kube::{Connection, Form, Options, Protocol, Server, Write, objects};
use crate::latency::Latencies;
use crate::table::{Beside, figure};

/// What is asked, and how much of it.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    pub server: Options,
    /// Objects of each run (one client: a fifth of them) and of each list
    #[arg(long, default_value_t = 5_000)]
    pub objects: usize,
    /// Clients at the same time, in turn
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    clients: Vec<usize>,
    /// Protocols, in turn
    #[arg(long, value_delimiter = ',', value_enum, default_value = "http1,http2")]
    protocols: Vec<Protocol>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verb {
    Create,
    Get,
    Update,
    Patch,
    Delete,
}

/// In an order in which each finds what it needs, and the last leaves nothing.
const VERBS: [Verb; 5] = [Verb::Create, Verb::Get, Verb::Update, Verb::Patch, Verb::Delete];

const NAMESPACE: &str = "bench-requests";

/// The peer's requests a second, and its CPU seconds (etcd and kube-apiserver) for 10,000, by verb and clients.
const PEER: &[(Verb, usize, f64, f64)] = &[
    (Verb::Create, 1, 191.0, 58.4),
    (Verb::Get, 1, 379.0, 30.2),
    (Verb::Update, 1, 169.0, 65.6),
    (Verb::Create, 16, 616.0, 26.4),
    (Verb::Get, 16, 1355.0, 11.8),
    (Verb::Update, 16, 604.0, 28.0),
    (Verb::Patch, 16, 448.0, 38.0),
    (Verb::Create, 64, 920.0, 17.8),
    (Verb::Get, 64, 1363.0, 12.2),
    (Verb::Update, 64, 677.0, 25.0),
    (Verb::Delete, 64, 784.0, 21.0),
];

impl Verb {
    /// How many times the peer's rate, and how many times less CPU.
    fn goals(self) -> (f64, f64) {
        if self == Verb::Get { (8.0, 12.0) } else { (5.0, 8.0) }
    }
}

/// All runs, each a row.
pub async fn run(server: &Server, args: &Args) -> anyhow::Result<()> {
    let mut first = server.connect(Protocol::Http1).await?;
    first.write(Write::create("/api/v1/namespaces", objects::namespace(NAMESPACE))).await?;
    println!(
        "{:<24} {:>7} {:>7} {:>7} {:>7} {:>6} {:>6} {:>6} {:>7} {:>6} {:>6}",
        "ConfigMaps, clients", "per s", "p50 ms", "p99 ms", "peer", "ratio", "goal", "CPU s*", "peer", "ratio", "goal"
    );
    for protocol in &args.protocols {
        for clients in &args.clients {
            let objects = if *clients == 1 { args.objects / 5 } else { args.objects };
            for verb in VERBS {
                println!("{}", row(server, *protocol, *clients, verb, objects).await?);
            }
        }
    }
    println!("* CPU seconds of the server for 10,000 requests\n");
    Ok(())
}

async fn row(server: &Server, protocol: Protocol, clients: usize, verb: Verb, objects: usize) -> anyhow::Result<String> {
    let connections = server.connections(protocol, clients).await?;
    let cpu = server.processes.cpu_seconds()?;
    let (time, latencies) = load(connections, verb, objects).await?;
    let cpu_per_10k = (server.processes.cpu_seconds()? - cpu) / objects as f64 * 10_000.0;
    let rate = objects as f64 / time.as_secs_f64();
    let peer = PEER.iter().find(|(peer, among, ..)| *peer == verb && *among == clients);
    let (goal, cpu_goal) = verb.goals();
    let rates = Beside { ours: rate, peer: peer.map(|peer| peer.2), goal, more: true };
    let cpus = Beside { ours: cpu_per_10k, peer: peer.map(|peer| peer.3), goal: cpu_goal, more: false };
    let title = format!("{}, {clients}, {}", format!("{verb:?}").to_lowercase(), protocol.title());
    Ok(format!(
        "{title:<24} {:>7} {:>7} {:>7} {} {:>6} {}",
        figure(rate),
        figure(latencies.millis(0.5)),
        figure(latencies.millis(0.99)),
        rates.columns(),
        figure(cpu_per_10k),
        cpus.columns()
    ))
}

/// Divides the objects among the connections.
async fn load(connections: Vec<Connection>, verb: Verb, objects: usize) -> anyhow::Result<(Duration, Latencies)> {
    let clients = connections.len();
    let began = Instant::now();
    let tasks = connections.into_iter().enumerate().map(|(client, mut connection)| {
        tokio::spawn(async move {
            let mut latencies = Latencies::default();
            for number in (client..objects).step_by(clients) {
                let began = Instant::now();
                ask(&mut connection, verb, number).await?;
                latencies.note(began.elapsed());
            }
            anyhow::Ok(latencies)
        })
    });
    let mut all = Latencies::default();
    for latencies in futures::future::join_all(tasks).await {
        all.merge(latencies??);
    }
    Ok((began.elapsed(), all))
}

async fn ask(connection: &mut Connection, verb: Verb, number: usize) -> anyhow::Result<()> {
    let all = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let name = format!("object-{number:06}");
    let one = format!("{all}/{name}");
    let (method, content_type, body) = match verb {
        Verb::Create => return connection.write(Write::create(&all, objects::config_map(&name, 0))).await,
        Verb::Get => return connection.read(&one, Form::Json).await.map(drop),
        Verb::Update => (Method::PUT, "application/json", objects::config_map(&name, 1)),
        Verb::Patch => (Method::PATCH, "application/merge-patch+json", objects::config_map_patch(2)),
        Verb::Delete => (Method::DELETE, "application/json", bytes::Bytes::new()),
    };
    connection.write(Write { method, path: &one, content_type, body }).await
}

/// Creates objects by 64 clients, for lists of them.
pub async fn fill(server: &Server, all: &str, objects: usize, object: fn(&str) -> bytes::Bytes) -> anyhow::Result<()> {
    const WRITERS: usize = 64;
    let all: Arc<str> = all.into();
    let tasks = server.connections(Protocol::Http1, WRITERS).await?.into_iter().enumerate().map(|(client, mut connection)| {
        let all = all.clone();
        tokio::spawn(async move {
            for number in (client..objects).step_by(WRITERS) {
                connection.write(Write::create(&all, object(&format!("object-{number:06}")))).await?;
            }
            anyhow::Ok(())
        })
    });
    for task in futures::future::join_all(tasks).await {
        task??;
    }
    Ok(())
}
