//! Connections that this host makes itself.

use std::io;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::net::TcpStream;

use super::{Egress, Place, Stream};

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
    fn connect(&self, host: &str, port: u16, _place: &Place) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
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
