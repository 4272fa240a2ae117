//! The kubelet API on 10250: logs, exec, attach, port-forward, the pods, statistics and metrics; and plain health on 10248.
//!
//! Every request but health's is authenticated (client certificate or bearer token) and authorized by the API server. Answers to
//! <https://kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz/>.

// A refusal is a whole response; it is made once for a request that fails.
#![allow(clippy::result_large_err)]

mod auth;
mod checkpoint;
mod connections;
mod context;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod guard;
mod local_volumes;
mod logs;
mod metrics;
mod removals;
mod request;
mod routes;
mod spdy;
mod stats;
mod streams;
mod upstream;
mod websocket;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    core::Core,
    error::{Error, Result},
    options::ServingTls,
    pods::Pods,
};
use auth::{Auth, Peer};
use connections::{Budget, Connections, Place};
use context::Api;
use removals::Removals;

/// A pod's monitoring needs few connections; API servers with many logs and shells need many, and have a certificate.
const BUDGET: Budget = Budget { unverified_per_peer: 64, unverified: 512, verified: 2048 };
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may be open without a request, or take to send one's headers.
const HEADERS: Duration = Duration::from_secs(30);

/// The bound listeners, ready to serve.
pub(crate) struct Server {
    api: Arc<Api>,
    secure: Option<(TcpListener, TlsAcceptor)>,
    health: Option<TcpListener>,
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|e| Error::Options(format!("cannot listen on {address}: {e}")))
}

/// Binds the ports. A taken port is an error here and not a surprise later.
pub(crate) async fn bind(core: &Arc<Core>, pods: Arc<Pods>) -> Result<Server> {
    let secure = match &core.options.serving_tls {
        Some(tls) => Some((listen(core.options.listen).await?, TlsAcceptor::from(Arc::new(tls_config(tls)?)))),
        None => None,
    };
    let health = match core.options.healthz_listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    Ok(Server {
        api: Arc::new(Api {
            core: core.clone(),
            pods,
            auth: Auth::new(core.client.clone(), &core.options.node_name),
            removals: Removals::default(),
        }),
        secure,
        health,
    })
}

fn tls_config(tls: &ServingTls) -> Result<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let wrong = |e: &dyn std::fmt::Display| Error::Options(format!("kubelet TLS: {e}"));
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&tls.client_ca_pem) {
        roots.add(certificate.map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|e| wrong(&e))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(&e))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(tls.certificate.clone());
    // Upgrades need HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

impl Server {
    /// The address of the secure port, once bound.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        self.secure.as_ref().and_then(|(listener, _)| listener.local_addr().ok())
    }

    /// Serves until cancelled.
    pub(crate) async fn run(self, cancel: CancellationToken) {
        let health = async {
            match self.health {
                Some(listener) => serve_plain(listener, routes::health(self.api.clone())).await,
                None => std::future::pending().await,
            }
        };
        let secure = async {
            match self.secure {
                Some((listener, acceptor)) => serve_tls(listener, acceptor, routes::all(self.api.clone()), &cancel).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = health => {}
            () = secure => {}
        }
    }
}

async fn serve_plain(listener: TcpListener, router: Router) {
    if let Err(error) = axum::serve(listener, router).await {
        tracing::warn!(%error, "health port");
    }
}

async fn serve_tls(listener: TcpListener, acceptor: TlsAcceptor, router: Router, cancel: &CancellationToken) {
    let connections = Connections::new(BUDGET);
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let place = connections.admit(peer.ip());
        let (closed, cancel) = (place.closed(), cancel.clone());
        let connection = serve_connection(stream, acceptor.clone(), router.clone(), place);
        tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = closed.cancelled() => {}
                () = connection => {}
            }
        });
    }
}

async fn serve_connection(stream: TcpStream, acceptor: TlsAcceptor, router: Router, mut place: Place) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(tls)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
    let peer = Peer::of(tls.get_ref().1.peer_certificates());
    if peer.0.is_some() && !place.verify() {
        return;
    }
    let router = router.layer(axum::Extension(peer));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .serve_connection(TokioIo::new(tls), TowerToHyperService::new(router))
        .with_upgrades();
    let _ = connection.await;
}
