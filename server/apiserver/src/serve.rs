//! The HTTPS front: accepting connections, TLS, HTTP/1.1 and HTTP/2, limits and graceful drain.
//!
//! Knows nothing of Kubernetes. Every limit here protects the process from strangers: how long a handshake may take, how
//! many connections there are, how large headers and bodies get.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use trireme_api::status::Status;

use crate::ApiServer;
use crate::authn::Peer;
use crate::component::Component;
use crate::respond::{self, Body};

/// The largest request body, as upstream's.
pub const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;
/// How much of a body that is too large is still read before the answer.
const MAX_DISCARDED_BYTES: usize = 16 * 1024 * 1024;
/// What the bodies of all requests together may take. They are read before anybody is asked who he is, so this is what
/// strangers can make the server hold.
const MAX_BODIES_BYTES: usize = 128 * 1024 * 1024;
const MAX_HEADER_BYTES: u32 = 1024 * 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_CONNECTIONS: usize = 20_000;
const MAX_STREAMS_PER_CONNECTION: u32 = 250;

/// Who answers behind a listener.
#[derive(Clone)]
pub enum Front {
    /// The API.
    Api(ApiServer),
    /// Health and metrics of one component.
    Component(Arc<Component>),
}

impl Front {
    fn api(&self) -> &ApiServer {
        match self {
            Front::Api(api) => api,
            Front::Component(component) => component.api(),
        }
    }

    async fn handle(&self, request: Request<Bytes>) -> Response<Body> {
        match self {
            Front::Api(api) => api.handle(request).await,
            Front::Component(component) => component.handle(request).await,
        }
    }
}

/// Accepts connections until `shutdown`, then drains them.
pub async fn serve(server: Front, listener: TcpListener, tls: Arc<rustls::ServerConfig>, shutdown: CancellationToken) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let bodies = Arc::new(Semaphore::new(MAX_BODIES_BYTES));
    let graceful = GracefulShutdown::new();
    let mut http = Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_HEADER_BYTES as usize);
    http.http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    let http = Arc::new(http);
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: others close theirs in a moment.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(%address, "too many connections, one more is closed");
            continue;
        };
        let (server, acceptor, http, watcher, bodies) =
            (server.clone(), acceptor.clone(), http.clone(), graceful.watcher(), bodies.clone());
        tokio::spawn(async move {
            let _place = place;
            if let Some((stream, peer)) = handshake(&server, acceptor, stream, address).await {
                let service = service_fn(move |request| answer(server.clone(), peer.clone(), address, bodies.clone(), request));
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

async fn handshake(
    server: &Front,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
) -> Option<(tokio_rustls::server::TlsStream<TcpStream>, Arc<Peer>)> {
    let _ = stream.set_nodelay(true);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            // Judged once for the connection; a certificate that is no good gets a Status, not a TLS alert.
            let peer = server.api().peer(stream.get_ref().1.peer_certificates().unwrap_or_default());
            Some((stream, Arc::new(peer)))
        }
        Ok(Err(error)) => {
            server.api().count_tls_error();
            tracing::debug!(%error, %address, "TLS handshake failed");
            None
        }
        Err(_) => {
            server.api().count_tls_error();
            tracing::debug!(%address, "TLS handshake timed out");
            None
        }
    }
}

async fn answer(
    server: Front,
    peer: Arc<Peer>,
    address: SocketAddr,
    bodies: Arc<Semaphore>,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::convert::Infallible> {
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(peer);
    parts.extensions.insert(address);
    let declared = parts.headers.get(http::header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > MAX_DISCARDED_BYTES) {
        return Ok(refuse(&Status::body_too_large(MAX_BODY_BYTES)));
    }
    // Held until the request is answered.
    let mut held = None;
    let body = match tokio::time::timeout(BODY_TIMEOUT, read_body(body, &bodies, &mut held)).await {
        Ok(Ok(Read::Whole(body))) => body,
        Ok(Ok(Read::NoRoom)) => return Ok(refuse(&Status::too_many_requests("Too many requests, please try again later.", 1))),
        Ok(Ok(Read::TooLarge)) => return Ok(refuse(&Status::body_too_large(MAX_BODY_BYTES))),
        Ok(Err(error)) => return Ok(refuse(&Status::bad_request(format!("the body could not be read: {error}")))),
        Err(_) => return Ok(refuse(&Status::timeout("the body of the request did not arrive in time", 0))),
    };
    Ok(server.handle(Request::from_parts(parts, body)).await)
}

enum Read {
    Whole(Bytes),
    TooLarge,
    /// Other requests' bodies take all the room there is.
    NoRoom,
}

/// The whole body, and in `held` its room among all bodies. What is too much is read and thrown away up to a bound, so that a client that
/// only reads after writing sees the answer instead of a broken pipe.
async fn read_body(mut body: Incoming, bodies: &Arc<Semaphore>, held: &mut Option<OwnedSemaphorePermit>) -> Result<Read, hyper::Error> {
    let mut pieces: Vec<Bytes> = Vec::new();
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame?.into_data() else { continue };
        total += piece.len();
        if total > MAX_DISCARDED_BYTES {
            return Ok(Read::TooLarge);
        }
        if total > MAX_BODY_BYTES {
            pieces.clear();
            *held = None;
            continue;
        }
        let Some(room) = u32::try_from(piece.len()).ok().and_then(|bytes| bodies.clone().try_acquire_many_owned(bytes).ok()) else {
            return Ok(Read::NoRoom);
        };
        match held {
            Some(held) => held.merge(room),
            None => *held = Some(room),
        }
        pieces.push(piece);
    }
    if total > MAX_BODY_BYTES {
        return Ok(Read::TooLarge);
    }
    Ok(Read::Whole(if pieces.len() == 1 { pieces.swap_remove(0) } else { pieces.concat().into() }))
}

/// An answer that leaves the rest of the body unread, so the connection cannot be used again.
fn refuse(status: &Status) -> Response<Body> {
    let mut response = respond::status(status);
    response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    response
}
