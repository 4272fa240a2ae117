//! Clusters, hosts and faults for tests.
//!
//! Owns how a test finds the clusters that `ops/test` brought up, runs kubectl against them, and breaks their hosts. The
//! hosts themselves are made by the shell functions in `ops/lib`, which `ops/up` uses too: there is one way to make a host.

mod cluster;
mod containers;
mod host;
mod link;
mod terminal;

pub use cluster::{Cluster, Namespace};
pub use containers::{Containers, Listing};
pub use host::{Host, ended, signal};
pub use link::{Cut, Link};
pub use terminal::Terminal;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

/// The repository's root.
pub fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Tries `attempt` until it succeeds; after `limit` fails with its last error and what was waited for.
pub fn eventually<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let end = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= end => return Err(error.context(format!("waited {} s in vain for {what}", limit.as_secs()))),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
