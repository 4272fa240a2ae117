//! Calls to webhooks: HTTPS through the server's egress, connections kept for the next call.
//!
//! Owns that a webhook's certificate is verified with the authority of its configuration only, that no redirect is followed, and that
//! the size of an answer is limited.
//! A Service is resolved to endpoints in this process: the server may be no node.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio_rustls::TlsConnector;
use trireme_api::meta;

use super::{Egress, Place, Stream, authority, services};
use crate::storage::lookup::ObjectReader;

/// The longest answer.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Connections that wait for the next call, of one webhook.
const IDLE_OF_ONE: usize = 8;
/// Webhooks whose connections wait.
const IDLE_WEBHOOKS: usize = 256;

/// The address of a webhook, and the authority that its certificate must be signed by.
#[derive(Debug)]
pub struct ClientConfig {
    target: Target,
    path_and_query: String,
    tls: Arc<rustls::ClientConfig>,
    /// Tells configurations apart whose connections must not be mixed.
    key: String,
    /// The name that its certificate must have, if it is not the host's.
    server_name: Option<String>,
    /// Our credentials.
    authorization: Option<HeaderValue>,
}

#[derive(Debug)]
enum Target {
    Host(String, u16),
    Service { namespace: String, name: String, port: u16 },
}

type Sender = SendRequest<Full<Bytes>>;

/// Calls webhooks.
pub struct Client {
    egress: Arc<dyn Egress>,
    reader: Arc<dyn ObjectReader>,
    idle: Mutex<HashMap<String, Vec<Sender>>>,
}

// === impl ClientConfig ===

impl ClientConfig {
    /// Parses a `clientConfig` of an admission or a conversion webhook.
    ///
    /// # Errors
    /// Why no webhook can be reached by it.
    pub fn parse(config: &Value) -> Result<ClientConfig, String> {
        let bundle = meta::str_at(config, &["caBundle"]);
        let tls = tls(bundle)?;
        let (target, path_and_query) = match meta::get(config, &["service"]).filter(|service| service.is_object()) {
            Some(service) => service_target(service),
            None => url_target(meta::str_at(config, &["url"]))?,
        };
        let key = format!("{} {path_and_query} {bundle}", target.host());
        Ok(ClientConfig { target, path_and_query, tls, key, server_name: None, authorization: None })
    }

    /// A webhook outside the cluster at an `https` URL, with its own TLS and credentials.
    ///
    /// # Errors
    /// It is no such URL.
    pub fn outside(
        url: &str,
        tls: Arc<rustls::ClientConfig>,
        server_name: Option<String>,
        authorization: Option<HeaderValue>,
    ) -> Result<ClientConfig, String> {
        let (target, path_and_query) = url_target(url)?;
        let key = url.to_owned();
        Ok(ClientConfig { target, path_and_query, tls, key, server_name, authorization })
    }

    /// The URL as messages show it.
    pub fn url(&self) -> String {
        let port = match &self.target {
            Target::Host(_, port) | Target::Service { port, .. } => port,
        };
        format!("https://{}:{port}{}", self.target.host(), self.path_and_query)
    }
}

impl Target {
    /// The name that its certificate must have.
    fn host(&self) -> String {
        match self {
            Target::Host(host, _) => host.clone(),
            Target::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
        }
    }
}

fn service_target(service: &Value) -> (Target, String) {
    let text = |field: &str| meta::str_at(service, &[field]).to_owned();
    let port = meta::i64_at(service, &["port"]).and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
    let path = text("path");
    let path = if path.starts_with('/') { path } else { format!("/{path}") };
    (Target::Service { namespace: text("namespace"), name: text("name"), port }, path)
}

fn url_target(url: &str) -> Result<(Target, String), String> {
    let uri: Uri = url.parse().map_err(|error| format!("{url:?}: {error}"))?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("https")).ok_or_else(|| format!("{url:?} is no https URL"))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok((Target::Host(host.trim_matches(['[', ']']).to_owned(), uri.port_u16().unwrap_or(443)), path.to_owned()))
}

fn tls(bundle: &str) -> Result<Arc<rustls::ClientConfig>, String> {
    let roots = authority::roots(bundle)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
    Ok(Arc::new(config))
}

// === impl Client ===

impl Client {
    /// Calls by `egress`, with Services as `reader` knows them.
    pub fn new(egress: Arc<dyn Egress>, reader: Arc<dyn ObjectReader>) -> Client {
        Client { egress, reader, idle: Mutex::default() }
    }

    /// Posts `body`; `query` is added to the path. The answer's body, if it is a success.
    pub async fn post(&self, to: &ClientConfig, query: &str, body: Bytes) -> Result<Bytes, String> {
        // A connection that was idle may have ended meanwhile; nothing was processed then.
        while let Some(mut sender) = self.take(&to.key) {
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request(to, query, body.clone())?).await {
                Ok(response) => return self.finish(to, sender, response).await,
                // Not sent: the connection had ended before.
                Err(mut failed) => {
                    if failed.take_message().is_none() {
                        return Err(failed.into_error().to_string());
                    }
                }
            }
        }
        let stream = self.connect(to).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to a webhook ended");
            }
        });
        let response = sender.send_request(request(to, query, body)?).await.map_err(text)?;
        self.finish(to, sender, response).await
    }

    async fn finish(&self, to: &ClientConfig, sender: Sender, response: http::Response<hyper::body::Incoming>) -> Result<Bytes, String> {
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(text)?.to_bytes();
        if !status.is_success() {
            let start: String = String::from_utf8_lossy(&body).chars().take(200).collect();
            return Err(format!("the server answered {status}: {start}"));
        }
        let mut idle = self.idle.lock();
        if idle.len() >= IDLE_WEBHOOKS && !idle.contains_key(&to.key) {
            idle.clear();
        }
        let waiting = idle.entry(to.key.clone()).or_default();
        waiting.retain(|sender| !sender.is_closed());
        if waiting.len() < IDLE_OF_ONE && !sender.is_closed() {
            waiting.push(sender);
        }
        Ok(body)
    }

    fn take(&self, key: &str) -> Option<Sender> {
        self.idle.lock().get_mut(key)?.pop()
    }

    async fn connect(&self, to: &ClientConfig) -> Result<Box<dyn Stream>, String> {
        let (host, port, place) = self.resolve(&to.target)?;
        let stream = self.egress.connect(&host, port, &place).await.map_err(text)?;
        let name = to.server_name.clone().unwrap_or_else(|| to.target.host());
        let name = ServerName::try_from(name).map_err(text)?;
        let stream = TlsConnector::from(to.tls.clone()).connect(name, stream).await.map_err(|error| format!("tls: {error}"))?;
        Ok(Box::new(stream))
    }

    fn resolve(&self, target: &Target) -> Result<(String, u16, Place), String> {
        match target {
            Target::Host(host, port) => Ok((host.clone(), *port, Place::Elsewhere)),
            Target::Service { namespace, name, port } => services::resolve(&*self.reader, namespace, name, *port),
        }
    }
}

fn request(to: &ClientConfig, query: &str, body: Bytes) -> Result<Request<Full<Bytes>>, String> {
    let separator = match query {
        "" => "",
        _ if to.path_and_query.contains('?') => "&",
        _ => "?",
    };
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = format!("{}{separator}{query}", to.path_and_query).parse().map_err(text)?;
    if let Some(credentials) = &to.authorization {
        request.headers_mut().insert(AUTHORIZATION, credentials.clone());
    }
    request.headers_mut().insert(HOST, HeaderValue::from_str(&to.target.host()).map_err(text)?);
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request.headers_mut().insert(http::header::ACCEPT, HeaderValue::from_static("application/json"));
    Ok(request)
}

fn text(error: impl Display) -> String {
    error.to_string()
}
