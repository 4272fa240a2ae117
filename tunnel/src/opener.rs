//! The agent's end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::{CONNECT_TIMEOUT, HEADER_BYTES_MAX, PING_INTERVAL, PING_TIMEOUT, STREAM_WINDOW, STREAMS_MAX, TUNNEL_WINDOW};

/// Connects to what the server at the other end of `io` asks for, as far as `allowed` says so, until the tunnel ends or is cancelled. All
/// connections that were made through it end with it.
pub async fn serve<I, F>(io: I, allowed: Arc<F>, cancel: CancellationToken) -> Result<(), hyper::Error>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    F: Fn(SocketAddr) -> bool + Send + Sync + 'static,
{
    // Also when this future is dropped.
    let connections = cancel.child_token();
    let _end_of_connections = connections.clone().drop_guard();
    let service = service_fn(move |request| {
        let (allowed, connections) = (allowed.clone(), connections.clone());
        async move { Ok::<_, Infallible>(connect(request, &*allowed, connections).await) }
    });
    let serving = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(TUNNEL_WINDOW)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(io), service);
    tokio::select! {
        ended = serving => ended,
        () = cancel.cancelled() => Ok(()),
    }
}

async fn connect(
    request: Request<Incoming>,
    allowed: &(impl Fn(SocketAddr) -> bool + ?Sized),
    end: CancellationToken,
) -> Response<Full<Bytes>> {
    if request.method() != Method::CONNECT {
        return refused(StatusCode::METHOD_NOT_ALLOWED, "only CONNECT is answered here");
    }
    let address = request.uri().authority().and_then(|authority| authority.as_str().parse::<SocketAddr>().ok());
    let Some(address) = address else { return refused(StatusCode::BAD_REQUEST, "an address and a port are needed") };
    if !allowed(address) {
        return refused(StatusCode::FORBIDDEN, "this node opens only its own pods and its kubelet");
    }
    let stream = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return refused(StatusCode::BAD_GATEWAY, &reason(&error)),
        Err(_) => return refused(StatusCode::GATEWAY_TIMEOUT, "i/o timeout"),
    };
    let _ = stream.set_nodelay(true);
    tokio::spawn(async move {
        tokio::select! {
            () = relay(request, stream) => {}
            () = end.cancelled() => {}
        }
    });
    Response::new(Full::default())
}

async fn relay(request: Request<Incoming>, mut stream: TcpStream) {
    match hyper::upgrade::on(request).await {
        Ok(upgraded) => {
            // An error ends this one connection and affects no other.
            let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(upgraded), &mut stream).await;
        }
        Err(error) => tracing::debug!(%error, "a connection through the tunnel was not taken up"),
    }
}

/// The error in the words that Go's dialer has for it.
fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        _ => error.to_string(),
    }
}

fn refused(code: StatusCode, reason: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(reason.to_owned()));
    *response.status_mut() = code;
    response
}
