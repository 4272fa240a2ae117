//! The transport over HTTPS to a list of servers.
//!
//! Owns: which server is asked (one at a time, kept while it works), the health of each (of the one in use while
//! [`HttpsTransport::check_health`] runs, of others while they fail), and the credentials, all of which can be changed while requests run.
//! A connect error moves on to the next server within the same request; an error after sending does so only for reads. A host that
//! fails silently is noticed within a second: HTTP/2 pings keep data unacknowledged, and TCP times out soon. A process that hangs is
//! noticed by the missing replies to pings. In both cases its watches end, and the next request goes to another server.
//!
//! Must not: retry a write whose outcome is unknown.

mod connect;
mod health;
mod upgrade;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::{Mutex, RwLock};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{Body, BoxError, Transport, TransportError};
use connect::TlsConnector;
use health::Servers;

type Pool = HyperClient<TlsConnector, Full<Bytes>>;

const PING_INTERVAL: Duration = Duration::from_millis(250);
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two looks at a server that fails, and at the one in use.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
const PROBE_TIMEOUT: Duration = Duration::from_millis(800);
/// Ready, but an election is waited for: it is the same on every server.
const PROBE_PATH: &str = "/readyz?exclude=etcd";
/// A token file is read again after this time: the kubelet renews projected tokens in place.
const TOKEN_FILE_AGE: Duration = Duration::from_secs(60);

/// Who we are to the servers.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// No credentials: anonymous requests.
    Anonymous,
    /// A client certificate with its key, both PEM.
    Certificate {
        /// The certificate chain, leaf first.
        cert_pem: String,
        /// The private key.
        key_pem: String,
    },
    /// A bearer token.
    Token(String),
    /// A file with a bearer token, read again every minute.
    TokenFile(PathBuf),
}

/// What a transport needs to start.
#[derive(Clone, Debug)]
pub struct HttpsOptions {
    /// Base URLs, `https://host:port`.
    pub servers: Vec<String>,
    /// The authorities that may vouch for a server, PEM.
    pub ca_pem: String,
    /// The credentials of this client.
    pub credentials: Credentials,
}

/// The transport; clones share everything.
#[derive(Clone)]
pub struct HttpsTransport {
    shared: Arc<Shared>,
}

struct Shared {
    servers: Mutex<Servers>,
    link: RwLock<Arc<Link>>,
}

/// The state that depends on the credentials. A new link starts without connections.
struct Link {
    pool: Pool,
    tls: Arc<rustls::ClientConfig>,
    bearer: Bearer,
}

enum Bearer {
    None,
    Fixed(HeaderValue),
    File { path: PathBuf, read: Mutex<Option<(Instant, HeaderValue)>> },
}

impl HttpsTransport {
    /// A transport; does not connect yet.
    pub fn new(options: HttpsOptions) -> Result<Self, TransportError> {
        let servers = parse_servers(&options.servers)?;
        let link = Link::new(&options.ca_pem, &options.credentials)?;
        Ok(Self { shared: Arc::new(Shared { servers: Mutex::new(Servers::new(servers)), link: RwLock::new(Arc::new(link)) }) })
    }

    /// Changes the list of servers. Requests to a server that is no longer listed run to their end.
    pub fn set_servers(&self, servers: &[String]) -> Result<(), TransportError> {
        let servers = parse_servers(servers)?;
        self.shared.servers.lock().set(servers);
        Ok(())
    }

    /// The servers, the one in use first.
    #[must_use]
    pub fn servers(&self) -> Vec<String> {
        self.shared.servers.lock().order().iter().map(ToString::to_string).collect()
    }

    /// The server that the next request goes to first.
    #[must_use]
    pub fn current_server(&self) -> Option<String> {
        self.servers().into_iter().next()
    }

    /// Checks the health of the server in use twice a second, until cancelled: one that answers but is not ready (it lost its cluster) is
    /// left too.
    pub async fn check_health(&self, cancel: CancellationToken) {
        let mut period = tokio::time::interval(CHECK_INTERVAL);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = period.tick() => {}
                () = cancel.cancelled() => return,
            }
            // With a single server there is no alternative, and no need to probe.
            let order = self.shared.servers.lock().order();
            let [server, _, ..] = order.as_slice() else { continue };
            if !self.shared.probe(server).await {
                self.shared.failed(server);
            }
        }
    }

    /// Trusts other authorities and speaks with other credentials from the next request on.
    pub fn set_trust(&self, ca_pem: &str, credentials: &Credentials) -> Result<(), TransportError> {
        let link = Arc::new(Link::new(ca_pem, credentials)?);
        *self.shared.link.write() = link;
        Ok(())
    }
}

impl Transport for HttpsTransport {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'static, Result<Response<Body>, TransportError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.send(request).await })
    }
}

impl Shared {
    async fn send(self: Arc<Self>, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        let link = Arc::clone(&self.link.read());
        let order = self.servers.lock().order();
        let idempotent = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        let mut last = TransportError::Config("no API server is configured".to_owned());
        for server in order {
            let attempt = aim(&request, &server, link.authorization().await)?;
            match link.pool.request(attempt).await {
                Ok(response) => {
                    self.servers.lock().worked(&server);
                    // A watch that breaks must not begin again where it broke.
                    let shared = Arc::downgrade(&self);
                    let broken = move |error: hyper::Error| -> BoxError {
                        if let Some(shared) = shared.upgrade() {
                            shared.failed(&server);
                        }
                        error.into()
                    };
                    return Ok(response.map(|body| body.map_err(broken).boxed_unsync()));
                }
                Err(error) => {
                    tracing::debug!(%server, %error, "request failed");
                    self.failed(&server);
                    let connect = error.is_connect();
                    last =
                        if connect { TransportError::Connect(chain(&error).into()) } else { TransportError::Broken(chain(&error).into()) };
                    if !connect && !idempotent {
                        return Err(last);
                    }
                }
            }
        }
        Err(last)
    }

    /// Notes the failure and watches the server until it is well again.
    fn failed(self: &Arc<Self>, server: &Uri) {
        if !self.servers.lock().failed(server) {
            return;
        }
        let weak = Arc::downgrade(self);
        let server = server.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(PROBE_INTERVAL).await;
                let Some(shared) = weak.upgrade() else { return };
                if !shared.servers.lock().is_failing(&server) {
                    return;
                }
                if shared.probe(&server).await {
                    shared.servers.lock().worked(&server);
                    return;
                }
            }
        });
    }

    async fn probe(&self, server: &Uri) -> bool {
        let link = Arc::clone(&self.link.read());
        let request = Request::builder().uri(PROBE_PATH).body(Bytes::new()).unwrap_or_default();
        let Ok(request) = aim(&request, server, None) else { return false };
        matches!(
            tokio::time::timeout(PROBE_TIMEOUT, link.pool.request(request)).await,
            Ok(Ok(response)) if response.status().is_success()
        )
    }
}

impl Link {
    fn new(ca_pem: &str, credentials: &Credentials) -> Result<Self, TransportError> {
        let tls = connect::tls_config(ca_pem, identity(credentials)?)?;
        let pool = HyperClient::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(8)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http2_adaptive_window(true)
            .build(TlsConnector::new(tls.clone()));
        let bearer = match credentials {
            Credentials::Token(token) => Bearer::Fixed(bearer_value(token)?),
            Credentials::TokenFile(path) => Bearer::File { path: path.clone(), read: Mutex::new(None) },
            Credentials::Anonymous | Credentials::Certificate { .. } => Bearer::None,
        };
        Ok(Self { pool, tls, bearer })
    }

    async fn authorization(&self) -> Option<HeaderValue> {
        match &self.bearer {
            Bearer::None => None,
            Bearer::Fixed(value) => Some(value.clone()),
            Bearer::File { path, read } => {
                let known = read.lock().clone();
                if let Some((at, value)) = &known
                    && at.elapsed() < TOKEN_FILE_AGE
                {
                    return Some(value.clone());
                }
                // An unreadable file keeps the token that we know.
                let fresh = tokio::fs::read_to_string(path)
                    .await
                    .ok()
                    .and_then(|token| bearer_value(token.trim()).ok())
                    .or(known.map(|(_, value)| value))?;
                *read.lock() = Some((Instant::now(), fresh.clone()));
                Some(fresh)
            }
        }
    }
}

/// The client certificate and key, parsed.
type ClientIdentity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(credentials: &Credentials) -> Result<Option<ClientIdentity>, TransportError> {
    let Credentials::Certificate { cert_pem, key_pem } = credentials else { return Ok(None) };
    let chain = CertificateDer::pem_slice_iter(cert_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TransportError::Config(format!("the client certificate is no PEM: {error}")))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
        .map_err(|error| TransportError::Config(format!("the client key is no PEM: {error}")))?;
    Ok(Some((chain, key)))
}

fn bearer_value(token: &str) -> Result<HeaderValue, TransportError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| TransportError::Config("the bearer token has characters that no header may have".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn parse_servers(servers: &[String]) -> Result<Vec<Uri>, TransportError> {
    let mut seen = HashMap::new();
    let mut parsed = Vec::with_capacity(servers.len());
    for server in servers {
        let uri: Uri = server
            .trim_end_matches('/')
            .parse()
            .map_err(|error| TransportError::Config(format!("{server:?} is no server URL: {error}")))?;
        if uri.scheme_str() != Some("https") || uri.authority().is_none() {
            return Err(TransportError::Config(format!("{server:?} is no server URL: want https://host:port")));
        }
        if seen.insert(uri.to_string(), ()).is_none() {
            parsed.push(uri);
        }
    }
    Ok(parsed)
}

/// The request, sent to this server.
fn aim(request: &Request<Bytes>, server: &Uri, authorization: Option<HeaderValue>) -> Result<Request<Full<Bytes>>, TransportError> {
    let mut parts = server.clone().into_parts();
    parts.path_and_query = request.uri().path_and_query().cloned();
    let uri = Uri::from_parts(parts).map_err(|error| TransportError::Config(error.to_string()))?;
    let mut aimed = Request::new(Full::new(request.body().clone()));
    *aimed.method_mut() = request.method().clone();
    *aimed.uri_mut() = uri;
    *aimed.headers_mut() = request.headers().clone();
    if let Some(value) = authorization {
        aimed.headers_mut().entry(AUTHORIZATION).or_insert(value);
    }
    Ok(aimed)
}

/// The error with its causes: hyper's own text says only which step failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
