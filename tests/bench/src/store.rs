//! Loads a store over etcd's v3 API: the same requests for etcd and for Trireme.
//!
//! One line of tab-separated fields for each run; `ops/bench store` runs it against both in alternating rounds and makes the table.

mod connections;
mod load;
mod watchers;

use std::time::Duration;

use clap::ValueEnum;

use crate::processes::Processes;
use connections::{Connections, Tls};

/// What is asked of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Load {
    /// Puts of random keys
    Put,
    /// Linearizable reads of random keys
    Get,
    /// Puts by 16 clients while --clients watch all of them
    Watch,
}

/// Which load, and where.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// What to do
    #[arg(long, value_enum)]
    load: Load,
    /// Where; clients are spread over them
    #[arg(long, value_delimiter = ',', required = true)]
    endpoints: Vec<String>,
    /// Requests (or watches) at the same time
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Connections that they share [default: one each, 100 at most]
    #[arg(long)]
    connections: Option<usize>,
    /// How long
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Keys that are written and read
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Process ids of the servers, whose CPU time is added up
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
    #[command(flatten)]
    tls: Tls,
}

/// One run, and its line.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let connections = args.connections.unwrap_or(args.clients.min(100)).max(1);
    let connections = Connections::open(&args.endpoints, connections, &args.tls).await?;
    let plan =
        load::Plan { clients: args.clients, time: Duration::from_secs(args.seconds), keys: args.keys, value_bytes: args.value_bytes };
    if args.load == Load::Get {
        load::fill(&connections, &plan).await?;
    }
    let processes = Processes::new(args.pids);
    let before = processes.cpu_seconds()?;
    let outcome = match args.load {
        Load::Put => load::puts(&connections, &plan).await?,
        Load::Get => load::gets(&connections, &plan).await?,
        Load::Watch => watchers::run(&connections, &plan).await?,
    };
    let cpu = processes.cpu_seconds()? - before;
    let rate = outcome.operations as f64 / outcome.time.as_secs_f64();
    let cpu_per_10k = cpu / outcome.operations.max(1) as f64 * 10_000.0;
    let (p50, p99) = (outcome.latencies.millis(0.5), outcome.latencies.millis(0.99));
    println!(
        "{:?}\t{}\t{}\t{rate:.0}\t{p50:.2}\t{p99:.2}\t{cpu_per_10k:.2}\t{}",
        args.load, args.clients, outcome.operations, outcome.errors
    );
    Ok(())
}
