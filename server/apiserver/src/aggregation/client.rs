//! Questions of this server itself to extension servers: small documents, with a bound and a deadline.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::identity;
use super::table::Remote;
use crate::egress::{Egress, Stream, services};
use crate::storage::lookup::ObjectReader;
use crate::user::{GROUP_MASTERS, UserInfo};

/// The user as whom the aggregator asks.
const USER: &str = "system:kube-aggregator";
/// The longest answer.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// How long an answer may take, as upstream's discovery check.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks.
pub struct Client {
    egress: Arc<dyn Egress>,
    reader: Arc<dyn ObjectReader>,
}

impl Client {
    /// By `egress`, with Services as `reader` knows them.
    pub fn new(egress: Arc<dyn Egress>, reader: Arc<dyn ObjectReader>) -> Client {
        Client { egress, reader }
    }

    /// The JSON at a path.
    ///
    /// # Errors
    /// Why there is no answer, or what its status is.
    pub async fn get(&self, remote: &Remote, path: &str) -> Result<Bytes, String> {
        let answer = tokio::time::timeout(TIMEOUT, self.answer(remote, path)).await;
        let (status, body) = answer.map_err(|_| format!("no answer within {} s", TIMEOUT.as_secs()))??;
        if status.is_success() { Ok(body) } else { Err(format!("bad status from https://{}{path}: {}", remote.host(), status.as_u16())) }
    }

    async fn answer(&self, remote: &Remote, path: &str) -> Result<(StatusCode, Bytes), String> {
        let stream = self.connect(remote).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
        let _ended_with_the_answer = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = path.parse().map_err(text)?;
        request.headers_mut().insert(HOST, HeaderValue::from_str(&remote.host()).map_err(text)?);
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        identity::set(request.headers_mut(), &UserInfo::new(USER, &[GROUP_MASTERS]))?;
        let response = sender.send_request(request).await.map_err(text)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(text)?.to_bytes();
        Ok((status, body))
    }

    async fn connect(&self, remote: &Remote) -> Result<Box<dyn Stream>, String> {
        let (host, port, place) = services::resolve(&*self.reader, &remote.namespace, &remote.service, remote.port)?;
        let stream = self.egress.connect(&host, port, &place).await.map_err(text)?;
        let name = ServerName::try_from(remote.host()).map_err(text)?;
        let stream = TlsConnector::from(remote.tls.clone()?).connect(name, stream).await.map_err(|error| format!("tls: {error}"))?;
        Ok(Box::new(stream))
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}
