//! One HTTPS request to one server, outside the pooled client: the joiner has no certificate and perhaps no authority yet.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use trireme_client::once;

use crate::error::Error;

const WHOLE_REQUEST: Duration = Duration::from_secs(15);
const MAX_ANSWER: usize = 4 << 20;

/// Whether the server accepts connections.
pub(super) async fn reachable(server: &str) -> std::io::Result<()> {
    let authority = server.strip_prefix("https://").unwrap_or(server).trim_end_matches('/');
    timeout(Duration::from_secs(5), TcpStream::connect(authority)).await.map_err(std::io::Error::other)?.map(drop)
}

pub(super) struct Connection {
    authority: String,
    tls: Arc<ClientConfig>,
}

impl Connection {
    /// Accepts any certificate: only for fetching what is then checked against a hash.
    pub(super) fn unverified(server: &str) -> Result<Self, Error> {
        Self::with(server, once::believing_anyone().map_err(|e| Error::Join(e.to_string()))?)
    }

    /// Accepts certificates of this authority only.
    pub(super) fn verified(server: &str, ca_pem: &str) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()).flatten() {
            roots.add(certificate).map_err(|e| Error::Join(format!("CA of {server}: {e}")))?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::Join(e.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self::with(server, config)
    }

    fn with(server: &str, config: ClientConfig) -> Result<Self, Error> {
        let authority = server.strip_prefix("https://").ok_or_else(|| Error::Join(format!("{server}: expected https://HOST:PORT")))?;
        Ok(Self { authority: authority.trim_end_matches('/').to_owned(), tls: Arc::new(config) })
    }

    /// Status code and body.
    pub(super) async fn send(&self, method: &str, path: &str, authorization: Option<&str>, body: Vec<u8>) -> Result<(u16, Vec<u8>), Error> {
        let failed = |e: String| Error::Join(format!("https://{}: {e}", self.authority));
        match timeout(WHOLE_REQUEST, self.exchange(method, path, authorization, body)).await {
            Ok(result) => result.map_err(|e| failed(e.to_string())),
            Err(_) => Err(failed(format!("no answer within {} s", WHOLE_REQUEST.as_secs()))),
        }
    }

    async fn exchange(
        &self,
        method: &str,
        path: &str,
        authorization: Option<&str>,
        body: Vec<u8>,
    ) -> Result<(u16, Vec<u8>), Box<dyn std::error::Error + Send + Sync>> {
        let host = self.authority.rsplit_once(':').map_or(self.authority.as_str(), |(host, _)| host);
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
        let stream = TcpStream::connect(&self.authority).await?;
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await?;
        let mut request = Request::builder().method(method).uri(path).header("host", &self.authority);
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization).header("content-type", "application/json");
        }
        let answer = once::exchange(stream, request.body(Full::new(Bytes::from(body)))?, MAX_ANSWER).await?;
        if !answer.is_whole {
            return Err(format!("the answer is longer than {MAX_ANSWER} bytes").into());
        }
        Ok((answer.status, answer.body.to_vec()))
    }
}
