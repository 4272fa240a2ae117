//! The seam to the network (design D9): how a stream of bytes to another member comes about.
//!
//! Owns the trait and its one real implementation, TCP. TLS, HTTP/2 and the protocol run above it, so that a
//! simulation that hands out its own streams still runs all of them.

use std::io;
use std::net::TcpListener;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A stream of bytes in both directions, in order, as TCP gives it.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Wire for T {}

/// Where streams come from.
pub trait Transport: Send + Sync + 'static {
    /// Opens a stream to `address` (`host:port`).
    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Box<dyn Wire>>>;
    /// Begins to accept. Called once, on the runtime that peers are served on.
    ///
    /// # Errors
    /// If no connection can be accepted there.
    fn listen(&self) -> io::Result<Box<dyn Accept>>;
}

/// Where streams arrive.
pub trait Accept: Send + 'static {
    /// The next stream, and its remote address for the log.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Wire>, String)>>;
}

/// TCP, without delay.
pub(crate) struct Tcp {
    /// Bound before the runtime exists.
    bound: Mutex<Option<TcpListener>>,
}

// === impl Tcp ===

impl Tcp {
    pub(crate) fn new(bound: TcpListener) -> Tcp {
        Tcp { bound: Mutex::new(Some(bound)) }
    }

    /// A transport that only opens connections.
    pub(crate) fn outgoing() -> Tcp {
        Tcp { bound: Mutex::new(None) }
    }
}

impl Transport for Tcp {
    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Box<dyn Wire>>> {
        async move {
            let tcp = TcpStream::connect(&address).await?;
            tcp.set_nodelay(true)?;
            Ok(Box::new(tcp) as Box<dyn Wire>)
        }
        .boxed()
    }

    fn listen(&self) -> io::Result<Box<dyn Accept>> {
        let bound = self.bound.lock().take().ok_or_else(|| io::Error::other("this socket is listened to already"))?;
        Ok(Box::new(tokio::net::TcpListener::from_std(bound)?))
    }
}

impl Accept for tokio::net::TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Wire>, String)>> {
        async move {
            let (tcp, from) = tokio::net::TcpListener::accept(self).await?;
            tcp.set_nodelay(true)?;
            Ok((Box::new(tcp) as Box<dyn Wire>, from.to_string()))
        }
        .boxed()
    }
}
