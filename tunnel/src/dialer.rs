//! The server's end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{CONNECT_TIMEOUT, HEADER_BYTES_MAX, PING_INTERVAL, PING_TIMEOUT, REASON_BYTES_MAX, STREAM_WINDOW, TUNNEL_WINDOW};

/// A connection that was made through a tunnel.
pub type TunnelStream = TokioIo<Upgraded>;

/// Dials through one tunnel.
#[derive(Clone, Debug)]
pub struct Dialer {
    sender: SendRequest<Empty<Bytes>>,
}

// === impl Dialer ===

impl Dialer {
    /// Speaks to the agent at the other end of `io`. The second value carries the tunnel and ends with it: it has to be polled.
    pub async fn start<I>(io: I) -> io::Result<(Dialer, impl Future<Output = ()> + Send)>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let handshake = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(TUNNEL_WINDOW)
            .max_header_list_size(HEADER_BYTES_MAX)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(io));
        let (sender, connection) = tokio::time::timeout(CONNECT_TIMEOUT, handshake)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the agent does not speak"))?
            .map_err(io::Error::other)?;
        let carried = async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "tunnel broke");
            }
        };
        Ok((Dialer { sender }, carried))
    }

    /// Whether the tunnel has ended.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Connects to `address` from the node at the other end. A refusal of the node is `PermissionDenied`, a tunnel that has ended is
    /// `BrokenPipe`; other errors are those of the connection as the node saw it.
    pub async fn dial(&self, address: SocketAddr) -> io::Result<TunnelStream> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = address.to_string().parse().map_err(io::Error::other)?;
        // The agent's own limit is the same one, so its reason arrives first.
        let sent = tokio::time::timeout(2 * CONNECT_TIMEOUT, self.sender.clone().send_request(request));
        let broken = |error: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::BrokenPipe, format!("tunnel: {error}"));
        let response = sent.await.map_err(|_| timed_out(address))?.map_err(|error| broken(&error))?;
        if response.status() != StatusCode::OK {
            return Err(refusal(address, response).await);
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(|error| broken(&error))?;
        Ok(TokioIo::new(upgraded))
    }
}

fn timed_out(address: SocketAddr) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("dial tcp {address}: i/o timeout"))
}

async fn refusal(address: SocketAddr, response: http::Response<Incoming>) -> io::Error {
    let kind = match response.status() {
        StatusCode::FORBIDDEN => io::ErrorKind::PermissionDenied,
        StatusCode::GATEWAY_TIMEOUT => return timed_out(address),
        _ => io::ErrorKind::ConnectionRefused,
    };
    let reason = Limited::new(response.into_body(), REASON_BYTES_MAX).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    io::Error::new(kind, format!("dial tcp {address}: connect: {}", String::from_utf8_lossy(&reason)))
}
