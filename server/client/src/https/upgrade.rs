//! A connection of its own to one server, for another protocol than HTTP.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, HOST, UPGRADE};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tower::Service;

use super::connect::TlsConnector;
use super::{HttpsTransport, Link, chain};
use crate::TransportError;

/// How long a server may take to switch.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

impl HttpsTransport {
    /// Asks one server (a base URL, listed or not) for `path` and for an upgrade to `protocol`; the connection carries that protocol from
    /// then on. It keeps the credentials it was made with.
    pub async fn upgrade(&self, server: &str, path: &'static str, protocol: &'static str) -> Result<TokioIo<Upgraded>, TransportError> {
        let link = Arc::clone(&self.shared.link.read());
        match tokio::time::timeout(ANSWER_TIMEOUT, upgrade(&link, server, path, protocol)).await {
            Ok(upgraded) => upgraded,
            Err(_) => {
                Err(TransportError::Connect(format!("{server} did not switch to {protocol} in {} s", ANSWER_TIMEOUT.as_secs()).into()))
            }
        }
    }
}

async fn upgrade(link: &Link, server: &str, path: &'static str, protocol: &'static str) -> Result<TokioIo<Upgraded>, TransportError> {
    let uri: Uri = server.parse().map_err(|error| TransportError::Config(format!("{server:?} is no server URL: {error}")))?;
    let host = uri.authority().ok_or_else(|| TransportError::Config(format!("{server:?} is no server URL")))?;
    let host = HeaderValue::from_str(host.as_str()).map_err(|error| TransportError::Config(error.to_string()))?;
    let mut tls = (*link.tls).clone();
    // HTTP/2 has no such upgrade.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let io = TlsConnector::new(Arc::new(tls)).call(uri).await.map_err(TransportError::Connect)?;
    let broken = |error: hyper::Error| TransportError::Broken(chain(&error).into());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(broken)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection ended before its upgrade");
        }
    });
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = Uri::from_static(path);
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(protocol));
    if let Some(value) = link.authorization().await {
        headers.insert(AUTHORIZATION, value);
    }
    let response = sender.send_request(request).await.map_err(broken)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(TransportError::Connect(format!("{server} answers {} to an upgrade to {protocol}", response.status()).into()));
    }
    hyper::upgrade::on(response).await.map(TokioIo::new).map_err(broken)
}
