//! The HTTPS listener: accepting connections, TLS, HTTP/1.1 and HTTP/2, limits and graceful drain.
//!
//! Knows nothing of Kubernetes. The limits here protect the process from unauthenticated clients: the duration of a handshake, the number
//! of connections, the size of headers. Bodies are not read here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::authn::Peer;
use crate::http::body::Payload;
use crate::http::respond::Body;

const MAX_HEADER_BYTES: u32 = 1024 * 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_CONNECTIONS: usize = 20_000;
const MAX_STREAMS_PER_CONNECTION: u32 = 250;
/// The unread bytes that a connection may send: unauthenticated clients can make the server hold this much for each connection.
const MAX_UNREAD_BYTES: u32 = 256 * 1024;

/// Answers the requests of a listener.
pub trait Service: Send + Sync + 'static {
    /// What the certificates of a connection prove. Judged once for the connection; a bad certificate gets a Status with each
    /// request, not a TLS alert.
    fn peer(&self, chain: &[CertificateDer<'_>]) -> Peer;
    /// Answers a request; its connection's [`Peer`] and [`SocketAddr`] are extensions.
    fn answer(&self, request: Request<Payload>) -> BoxFuture<'_, Response<Body>>;
    /// Counts a handshake that failed.
    fn count_tls_error(&self);
}

/// Accepts connections until `shutdown`, then drains them.
pub async fn serve(service: Arc<dyn Service>, listener: TcpListener, tls: Arc<rustls::ServerConfig>, shutdown: CancellationToken) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let http = Arc::new(builder());
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Usually the process is out of file descriptors: other connections will close theirs in a moment.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(%address, limit = MAX_CONNECTIONS, "too many connections, one more is closed");
            continue;
        };
        let (service, acceptor, http, watcher) = (service.clone(), acceptor.clone(), http.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _place = place;
            if let Some((stream, peer)) = handshake(&*service, acceptor, stream, address).await {
                let service = service_fn(move |request| answer(service.clone(), peer.clone(), address, request));
                let connection = http.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
                if let Err(error) = watcher.watch(connection).await {
                    tracing::debug!(%error, %address, "connection ended");
                }
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::info!("closing connections that did not drain in time");
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_HEADER_BYTES as usize);
    http.http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .initial_connection_window_size(MAX_UNREAD_BYTES)
        .initial_stream_window_size(MAX_UNREAD_BYTES)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    http
}

async fn handshake(
    service: &dyn Service,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
) -> Option<(tokio_rustls::server::TlsStream<TcpStream>, Arc<Peer>)> {
    let _ = stream.set_nodelay(true);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let peer = service.peer(stream.get_ref().1.peer_certificates().unwrap_or_default());
            Some((stream, Arc::new(peer)))
        }
        Ok(Err(error)) => {
            service.count_tls_error();
            tracing::debug!(%error, %address, "TLS handshake failed");
            None
        }
        Err(_) => {
            service.count_tls_error();
            tracing::debug!(%address, "TLS handshake timed out");
            None
        }
    }
}

async fn answer(
    service: Arc<dyn Service>,
    peer: Arc<Peer>,
    address: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::convert::Infallible> {
    let mut request = request.map(Payload::from);
    request.extensions_mut().insert(peer);
    request.extensions_mut().insert(address);
    Ok(service.answer(request).await)
}
