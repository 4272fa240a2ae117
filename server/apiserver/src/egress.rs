//! The one way out of the server, to nodes, pods and webhooks (D8).
//!
//! Direct today; a tunnel that agents open to every server can take its place without any caller knowing.

use std::io;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A byte stream in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// Opens connections on behalf of the server.
pub trait Egress: Send + Sync + 'static {
    /// Connects to a port of a host (an address, or a name of this cluster).
    fn connect(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Stream>>>;
}

/// Connects directly.
#[derive(Clone, Copy, Debug)]
pub struct Direct {
    /// How long a connection may take to be made.
    pub timeout: Duration,
}

impl Default for Direct {
    fn default() -> Direct {
        Direct { timeout: Duration::from_secs(10) }
    }
}

impl Egress for Direct {
    fn connect(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        let (host, timeout) = (host.trim_matches(['[', ']']).to_owned(), self.timeout);
        async move {
            let stream = tokio::time::timeout(timeout, TcpStream::connect((host.as_str(), port)))
                .await
                .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("dial tcp {host}:{port}: i/o timeout")))?
                .map_err(|e| io::Error::new(e.kind(), format!("dial tcp {host}:{port}: connect: {e}")))?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        }
        .boxed()
    }
}
