//! A document fetched over HTTPS from outside the cluster, once.
//!
//! Owns that the server's certificate is verified with the authorities of the caller only, that no redirect is followed, and that time and
//! size are limited.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, HeaderValue};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::{Egress, Place};

/// The largest document.
const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(15);

/// Gets the document behind an `https` URL.
///
/// # Errors
/// Why there is none, in one line with the URL.
pub async fn fetch(egress: &dyn Egress, tls: Arc<rustls::ClientConfig>, url: &str) -> Result<Bytes, String> {
    let answer = tokio::time::timeout(TIMEOUT, get(egress, tls, url)).await;
    answer.unwrap_or_else(|_| Err("no answer in time".to_owned())).map_err(|why| format!("Get {url:?}: {why}"))
}

async fn get(egress: &dyn Egress, tls: Arc<rustls::ClientConfig>, url: &str) -> Result<Bytes, String> {
    let uri: Uri = url.parse().map_err(text)?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("https")).ok_or("it is no https URL")?.trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(443);
    let stream = egress.connect(host, port, &Place::Elsewhere).await.map_err(text)?;
    let name = ServerName::try_from(host.to_owned()).map_err(text)?;
    let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(|error| format!("tls: {error}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = uri.path_and_query().map_or("/", |path| path.as_str()).parse().map_err(text)?;
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    request.headers_mut().insert(HOST, HeaderValue::from_str(authority).map_err(text)?);
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    let answer = async {
        let response = sender.send_request(request).await.map_err(text)?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("the server answered {status}"));
        }
        Ok(Limited::new(response.into_body(), DOCUMENT_BYTES_MAX).collect().await.map_err(text)?.to_bytes())
    };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => match ended {
            // The whole answer may have been read with the end of the connection.
            Ok(()) => answer.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}
