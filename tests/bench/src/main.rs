//! Loads a server and prints what came of it: a store over etcd's v3 API, or an API server over HTTPS.
//!
//! `ops/bench` starts the servers and runs it. Server-side CPU time is read from `/proc`, so that the generator's own share does
//! not count.

mod kube;
mod latency;
mod lists;
mod processes;
mod requests;
mod scale;
mod services;
mod store;
mod table;
mod watches;

use clap::{Parser, Subcommand};

/// Loads servers and prints tables.
#[derive(Parser, Debug)]
struct Args {
    #[command(subcommand)]
    what: What,
}

/// What is measured.
#[derive(Subcommand, Debug)]
enum What {
    /// A store over etcd's API: one line of tab-separated fields
    Store(store::Args),
    /// Requests for ConfigMaps to an API server, then lists
    Api(requests::Args),
    /// Watches of an API server
    Watch(watches::Args),
    /// Many nodes and pods at an API server
    Scale(scale::Args),
    /// Changes of endpoints on a node, among few and many Services
    Services(services::Args),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // One provider for the whole process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Args::parse().what {
        What::Store(args) => store::run(args).await,
        What::Api(args) => {
            let server = kube::Server::open(&args.server)?;
            requests::run(&server, &args).await?;
            lists::run(&server, args.objects).await
        }
        What::Watch(args) => watches::run(args).await,
        What::Scale(args) => scale::run(args).await,
        What::Services(args) => services::run(args).await,
    }
}
