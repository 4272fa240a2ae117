//! Many nodes at once, pods that are placed on them, and a large Deployment.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use crate::kube::{Connection, Form, Options, Protocol, Server, Write, objects};
use crate::latency::Latencies;
use crate::lists::account;
use crate::table::{Beside, figure};

/// How many.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    server: Options,
    /// Nodes
    #[arg(long, default_value_t = 500)]
    nodes: usize,
    /// Pods that are placed on them
    #[arg(long, default_value_t = 2_000)]
    pods: usize,
    /// Replicas of the Deployment
    #[arg(long, default_value_t = 500)]
    replicas: usize,
}

const NODE_WRITERS: usize = 16;
const POD_WRITERS: usize = 32;
const PATIENCE: Duration = Duration::from_secs(180);
const NODES: &str = "/api/v1/nodes";

/// The peer's figures, of 500 nodes, 2,000 pods and 500 replicas: nodes a second; seconds until all pods are bound, the p99 of one, the
/// CPU seconds; seconds until the Deployment's pods are bound.
const PEER: (usize, usize, usize) = (500, 2_000, 500);
const PEER_NODES_PER_SECOND: f64 = 308.0;
const PEER_BOUND_SECONDS: f64 = 14.2;
const PEER_BOUND_CPU_SECONDS: f64 = 25.4;
const PEER_BOUND_P99_SECONDS: f64 = 3.7;
const PEER_DEPLOYMENT_SECONDS: f64 = 5.2;
const NODES_GOAL: f64 = 3.0;
const PODS_GOAL: f64 = 4.0;

/// All rows.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let server = Server::open(&args.server)?;
    println!("{:<44} {:>9} {:>7} {:>6} {:>6} {:>7} {:>7}", "", "", "peer", "ratio", "goal", "CPU s", "RSS MiB");
    nodes(&server, args.nodes).await?;
    if args.pods > 0 {
        pods(&server, args.pods, args.nodes).await?;
    }
    if args.replicas > 0 {
        deployment(&server, args.replicas).await?;
    }
    println!();
    Ok(())
}

fn print(title: &str, unit: &str, beside: Beside, cpu: f64, server: &Server) -> anyhow::Result<()> {
    let ours = format!("{}{unit}", figure(beside.ours));
    println!("{title:<44} {ours:>9} {} {:>7} {:>7}", beside.columns(), figure(cpu), figure(server.processes.resident_mib()?));
    Ok(())
}

async fn nodes(server: &Server, count: usize) -> anyhow::Result<()> {
    let now = server_time(server).await?;
    let cpu = server.processes.cpu_seconds()?;
    let began = Instant::now();
    let now: Arc<str> = now.into();
    write_all(server, NODE_WRITERS, count, NODES.into(), move |name| objects::node(name, &now)).await?;
    let rate = count as f64 / began.elapsed().as_secs_f64();
    let used = server.processes.cpu_seconds()? - cpu;
    let peer = (count == PEER.0).then_some(PEER_NODES_PER_SECOND);
    print(
        &format!("{count} nodes created, {NODE_WRITERS} clients"),
        "/s",
        Beside { ours: rate, peer, goal: NODES_GOAL, more: true },
        used,
        server,
    )?;
    // Until no node has a taint, which it is created with.
    let mut connection = server.connect(Protocol::Http1).await?;
    loop {
        let list = connection.object(NODES).await?;
        let tainted = list["items"].as_array().into_iter().flatten().filter(|node| node["spec"]["taints"].is_array()).count();
        if tainted == 0 {
            break;
        }
        anyhow::ensure!(began.elapsed() < PATIENCE, "{tainted} nodes stay tainted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (seconds, used) = (began.elapsed().as_secs_f64(), server.processes.cpu_seconds()? - cpu);
    print(&format!("{count} nodes ready for pods"), " s", Beside { ours: seconds, peer: None, goal: NODES_GOAL, more: false }, used, server)
}

async fn pods(server: &Server, count: usize, nodes: usize) -> anyhow::Result<()> {
    let namespace = "bench-scale";
    let (all, bound) = prepare(server, namespace).await?;
    let cpu = server.processes.cpu_seconds()?;
    let began = Instant::now();
    let created: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
    let bound = tokio::spawn(wait_bound(bound, count));
    let notes = created.clone();
    write_all(server, POD_WRITERS, count, all, move |name| {
        notes.lock().insert(name.to_owned(), Instant::now());
        objects::pod(name, "default-scheduler")
    })
    .await?;
    let seen = bound.await??;
    let (seconds, used) = (began.elapsed().as_secs_f64(), server.processes.cpu_seconds()? - cpu);
    let mut latencies = Latencies::default();
    let created = created.lock();
    for (name, at) in &seen {
        latencies.note(created.get(name).map_or(Duration::ZERO, |created| *at - *created));
    }
    let same = (nodes, count) == (PEER.0, PEER.1);
    let beside = |ours: f64, peer: f64| Beside { ours, peer: same.then_some(peer), goal: PODS_GOAL, more: false };
    print(&format!("{count} pods created and bound, {POD_WRITERS} clients"), " s", beside(seconds, PEER_BOUND_SECONDS), used, server)?;
    print("  CPU seconds", " s", beside(used, PEER_BOUND_CPU_SECONDS), used, server)?;
    print("  create to bound, p99", " s", beside(latencies.millis(0.99) / 1000.0, PEER_BOUND_P99_SECONDS), used, server)
}

async fn deployment(server: &Server, replicas: usize) -> anyhow::Result<()> {
    let namespace = "bench-deployment";
    let (_, bound) = prepare(server, namespace).await?;
    let mut connection = server.connect(Protocol::Http1).await?;
    let cpu = server.processes.cpu_seconds()?;
    let began = Instant::now();
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
    connection.write(Write::create(&path, objects::deployment("bench", replicas))).await?;
    wait_bound(bound, replicas).await?;
    let (seconds, used) = (began.elapsed().as_secs_f64(), server.processes.cpu_seconds()? - cpu);
    let peer = (replicas == PEER.2).then_some(PEER_DEPLOYMENT_SECONDS);
    let beside = Beside { ours: seconds, peer, goal: PODS_GOAL, more: false };
    print(&format!("Deployment of {replicas}: all pods bound"), " s", beside, used, server)
}

/// A namespace for pods, and a watch of them.
async fn prepare(server: &Server, namespace: &str) -> anyhow::Result<(String, (Connection, Incoming))> {
    let mut connection = server.connect(Protocol::Http1).await?;
    connection.write(Write::create("/api/v1/namespaces", objects::namespace(namespace))).await?;
    account(&mut connection, namespace).await?;
    let all = format!("/api/v1/namespaces/{namespace}/pods");
    let list = connection.object(&all).await?;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    let body = connection.stream(&format!("{all}?watch=true&resourceVersion={version}"), Form::Json).await?;
    Ok((all, (connection, body)))
}

/// When each pod was seen on a node, until so many were.
async fn wait_bound((_connection, mut body): (Connection, Incoming), count: usize) -> anyhow::Result<HashMap<String, Instant>> {
    let mut bound = HashMap::new();
    let mut rest = Vec::new();
    let began = Instant::now();
    while bound.len() < count {
        let frame = tokio::time::timeout_at(began + PATIENCE, body.frame()).await;
        let frame = frame.map_err(|_| anyhow::anyhow!("only {} of {count} pods were bound in time", bound.len()))?;
        let Some(frame) = frame else { anyhow::bail!("the watch ended") };
        let Ok(data) = frame?.into_data() else { continue };
        rest.extend_from_slice(&data);
        let now = Instant::now();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let event: Value = serde_json::from_slice(&rest[..end])?;
            rest.drain(..=end);
            if let (Some(name), Some(_)) = (event["object"]["metadata"]["name"].as_str(), event["object"]["spec"]["nodeName"].as_str()) {
                bound.entry(name.to_owned()).or_insert(now);
            }
        }
    }
    Ok(bound)
}

/// Creates so many objects, by so many clients.
pub async fn write_all(
    server: &Server,
    writers: usize,
    count: usize,
    all: String,
    object: impl Fn(&str) -> Bytes + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let (all, object): (Arc<str>, Arc<_>) = (all.into(), Arc::new(object));
    let tasks = server.connections(Protocol::Http1, writers).await?.into_iter().enumerate().map(|(writer, mut connection)| {
        let (all, object) = (all.clone(), object.clone());
        tokio::spawn(async move {
            for number in (writer..count).step_by(writers) {
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

/// The time as objects have it: that of a namespace which the server makes now.
async fn server_time(server: &Server) -> anyhow::Result<String> {
    let mut connection = server.connect(Protocol::Http1).await?;
    connection.write(Write::create("/api/v1/namespaces", objects::namespace("bench-clock"))).await?;
    let namespace = connection.object("/api/v1/namespaces/bench-clock").await?;
    Ok(namespace["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned())
}
