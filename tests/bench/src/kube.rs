//! A client of the Kubernetes API that costs little itself: connections that are opened one by one, and bytes as they come.

mod connection;
mod identity;
pub mod objects;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::ValueEnum;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rustls::ClientConfig;

use crate::processes::Processes;
pub use connection::{Connection, Form, Write};

/// Where the server is.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// The administrator's kubeconfig, as the server wrote it
    #[arg(long)]
    kubeconfig: PathBuf,
    /// Process ids of the servers, whose CPU time and memory are measured
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
}

/// Which version of HTTP a connection speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Protocol {
    /// HTTP/1.1
    Http1,
    /// HTTP/2
    Http2,
}

/// A server, and who asks it.
pub struct Server {
    authority: String,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    /// Its processes.
    pub processes: Processes,
}

/// Connections that are opened at the same time: a handshake costs the server more than most requests.
const HANDSHAKES: usize = 16;

impl Protocol {
    /// As tables show it.
    pub fn title(self) -> &'static str {
        match self {
            Protocol::Http1 => "HTTP/1.1",
            Protocol::Http2 => "HTTP/2",
        }
    }
}

impl Server {
    /// The server of a kubeconfig.
    pub fn open(options: &Options) -> anyhow::Result<Server> {
        let path = &options.kubeconfig;
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let identity = identity::Identity::parse(&text).with_context(|| format!("{} is not understood", path.display()))?;
        let config = |protocol: &[u8]| {
            let mut config = identity.config()?;
            config.alpn_protocols = vec![protocol.to_vec()];
            anyhow::Ok(Arc::new(config))
        };
        Ok(Server {
            http1: config(b"http/1.1")?,
            http2: config(b"h2")?,
            authority: identity.authority,
            processes: Processes::new(options.pids.clone()),
        })
    }

    /// One connection.
    pub async fn connect(&self, protocol: Protocol) -> anyhow::Result<Connection> {
        let config = match protocol {
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
        };
        Connection::open(&self.authority, config.clone(), protocol).await.with_context(|| format!("connect to {}", self.authority))
    }

    /// So many connections.
    pub async fn connections(&self, protocol: Protocol, count: usize) -> anyhow::Result<Vec<Connection>> {
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            let opening: FuturesUnordered<_> = (all.len()..count).take(HANDSHAKES).map(|_| self.connect(protocol)).collect();
            for connection in opening.collect::<Vec<_>>().await {
                all.push(connection?);
            }
        }
        Ok(all)
    }
}
