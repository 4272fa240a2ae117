//! From a change of an endpoint to the first connection that follows it, with few and with many Services.
//!
//! Runs on a node: connections from a node to a cluster address take the same rules as those of its pods. One Service has this node as its endpoint,
//! at one of two ports; each change names the other port.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::kube::{Connection, Options, Protocol, Server, Write, objects};
use crate::latency::Latencies;
use crate::scale::write_all;

/// How many, and where.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    server: Options,
    /// An address of this node
    #[arg(long)]
    node_ip: IpAddr,
    /// Numbers of Services to measure with, in ascending order
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000, 10_000])]
    services: Vec<usize>,
    /// Changes for each number
    #[arg(long, default_value_t = 100)]
    changes: usize,
}

const WRITERS: usize = 16;
/// Between two connections, so that a run uses fewer ports than there are: a port that is used again may still be known to somebody.
const PAUSE: Duration = Duration::from_millis(1);
const GOAL_MS: f64 = 20.0;
const PATIENCE: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "bench-target";
const SERVICES: &str = "/api/v1/namespaces/bench-target/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/bench-target/endpointslices";
const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/bench-target/endpointslices/target";

/// The Service whose endpoint changes.
struct Target {
    address: String,
    node_ip: IpAddr,
    ports: [u16; 2],
}

/// All rows.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let server = Server::open(&args.server)?;
    let mut connection = server.connect(Protocol::Http1).await?;
    let target = Target::make(&mut connection, args.node_ip).await?;
    println!("{:<10} {:>28} {:>26} {:>12}", "", "change to first packet, ms", "first packet, ms", "CPU ms per");
    println!("{:<10} {:>9} {:>9} {:>8} {:>13} {:>12} {:>12}", "Services", "p50", "p99", "goal", "p50", "p99", "change");
    let mut present = 0;
    for count in args.services {
        let missing = count.checked_sub(present + 1).context("--services: expected ascending numbers")?;
        fill(&server, &mut connection, count, missing).await?;
        present = count - 1;
        // The last of the new Services is in the rules when a change after it is.
        target.change(&mut connection, 0).await?;
        target.change(&mut connection, 1).await?;
        row(&server, &mut connection, &target, count, args.changes).await?;
    }
    println!();
    Ok(())
}

async fn row(server: &Server, connection: &mut Connection, target: &Target, count: usize, changes: usize) -> anyhow::Result<()> {
    let (mut follows, mut first) = (Latencies::default(), Latencies::default());
    let cpu = server.processes.cpu_seconds()?;
    for change in 0..changes {
        follows.note(target.change(connection, change % 2).await?);
    }
    let cpu_ms = (server.processes.cpu_seconds()? - cpu) * 1000.0 / changes.max(1) as f64;
    for _ in 0..changes {
        let began = Instant::now();
        target.ask().await?;
        first.note(began.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    let p99 = follows.millis(0.99);
    let verdict = if p99 <= GOAL_MS { "ok" } else { "OVER" };
    println!(
        "{count:<10} {:>9.2} {p99:>9.2} {:>8} {:>13.2} {:>12.2} {cpu_ms:>12.2}  {verdict}",
        follows.millis(0.5),
        format!("{GOAL_MS:.0}"),
        first.millis(0.5),
        first.millis(0.99)
    );
    Ok(())
}

/// So many further Services with an endpoint each, in a namespace of their own.
async fn fill(server: &Server, connection: &mut Connection, count: usize, missing: usize) -> anyhow::Result<()> {
    let namespace: Arc<str> = format!("bench-services-{count}").into();
    connection.write(Write::create("/api/v1/namespaces", objects::namespace(&namespace))).await?;
    write_all(server, WRITERS, missing, format!("/api/v1/namespaces/{namespace}/services"), objects::service).await?;
    let slices = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
    write_all(server, WRITERS, missing, slices, |name| objects::endpoint_slice(name, [10, 42, 200, 7].into(), 8080)).await
}

impl Target {
    async fn make(connection: &mut Connection, node_ip: IpAddr) -> anyhow::Result<Target> {
        let mut ports = [0; 2];
        for (number, port) in ports.iter_mut().enumerate() {
            let listener = TcpListener::bind((node_ip, 0)).await.context("--node-ip")?;
            *port = listener.local_addr()?.port();
            tokio::spawn(answer(listener, u8::from(number == 1)));
        }
        connection.write(Write::create("/api/v1/namespaces", objects::namespace(NAMESPACE))).await?;
        connection.write(Write::create(SERVICES, objects::service("target"))).await?;
        connection.write(Write::create(SLICES, objects::endpoint_slice("target", node_ip, ports[0]))).await?;
        let service = connection.object(&format!("{SERVICES}/target")).await?;
        let address = service["spec"]["clusterIP"].as_str().context("the Service has no address")?;
        Ok(Target { address: format!("{address}:80"), node_ip, ports })
    }

    /// Names the other port; how long after the write was acknowledged a connection reached it.
    async fn change(&self, connection: &mut Connection, to: usize) -> anyhow::Result<Duration> {
        let body = objects::endpoint_slice("target", self.node_ip, self.ports[to]);
        connection.write(Write { method: Method::PUT, path: SLICE, content_type: "application/json", body }).await?;
        let written = Instant::now();
        while written.elapsed() < PATIENCE {
            if self.ask().await.is_ok_and(|who| usize::from(who) == to) {
                return Ok(written.elapsed());
            }
            tokio::time::sleep(PAUSE).await;
        }
        anyhow::bail!("no connection followed a change within {} s", PATIENCE.as_secs())
    }

    /// Connects to the Service; who answers.
    async fn ask(&self) -> anyhow::Result<u8> {
        let asked = async { TcpStream::connect(&self.address).await?.read_u8().await };
        Ok(tokio::time::timeout(Duration::from_secs(1), asked).await??)
    }
}

/// Tells everybody who connects who it is.
async fn answer(listener: TcpListener, who: u8) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move { stream.write_u8(who).await });
    }
}
