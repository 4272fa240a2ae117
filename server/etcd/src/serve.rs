//! The listener: TLS, HTTP/2 for gRPC and HTTP/1.1 for the pages, limits, an end in order.
//!
//! The TLS configuration decides which clients are accepted; others do not get beyond the handshake.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const MAX_CONNECTIONS: usize = 10_000;
/// Clients put all their watches on one connection.
const MAX_STREAMS_PER_CONNECTION: u32 = 10_000;
const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// Accepts connections until cancelled, then lets what is under way end.
pub(crate) async fn serve(router: axum::Router, listener: TcpListener, tls: Arc<rustls::ServerConfig>, cancel: CancellationToken) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut http = Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(STREAM_WINDOW_BYTES)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let http = Arc::new(http);
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an etcd client");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(%address, "too many etcd clients, one more is closed");
            continue;
        };
        let (router, acceptor, http, watcher) = (router.clone(), acceptor.clone(), http.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _place = place;
            let Some(stream) = handshake(acceptor, stream, address).await else { return };
            let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).into_owned();
            if let Err(error) = watcher.watch(connection).await {
                tracing::debug!(%error, %address, "connection of an etcd client ended");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::info!("closing etcd clients' connections that did not drain in time");
    }
}

async fn handshake(acceptor: TlsAcceptor, stream: TcpStream, address: SocketAddr) -> Option<TlsStream<TcpStream>> {
    // A failure is ignored: without TCP_NODELAY, answers only take longer.
    let _ = stream.set_nodelay(true);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, %address, "an etcd client was not let in");
            None
        }
        Err(_) => {
            tracing::debug!(%address, "TLS handshake of an etcd client timed out");
            None
        }
    }
}
