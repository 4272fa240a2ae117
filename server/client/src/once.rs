//! One HTTP/1.1 request over a connection of its own, outside the pooled transport: for targets other than the API server (probes), and
//! for an API server whose certificate is not trusted yet (a node that joins).
//!
//! Must not: decide which certificate to trust, or wait without limit. The caller gives the connection and the timeout.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::BoxError;

/// The response.
#[derive(Debug)]
pub struct OneAnswer {
    /// HTTP status code.
    pub status: u16,
    /// The headers of the answer.
    pub headers: http::HeaderMap,
    /// The body, or its beginning.
    pub body: Bytes,
    /// Whether that is all of it.
    pub is_whole: bool,
}

/// Sends the request and reads the answer, of its body no more than about `max_body_bytes`. The connection ends with it.
///
/// # Errors
/// Where the connection breaks.
pub async fn exchange<S, B>(stream: S, request: Request<B>, max_body_bytes: usize) -> Result<OneAnswer, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answered = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let mut body = response.into_body();
        let mut collected = Vec::new();
        while let Some(frame) = body.frame().await {
            collected.extend_from_slice(frame?.data_ref().map(|data| &data[..]).unwrap_or_default());
            if collected.len() > max_body_bytes {
                collected.truncate(max_body_bytes);
                return Ok(OneAnswer { status, headers, body: collected.into(), is_whole: false });
            }
        }
        Ok(OneAnswer { status, headers, body: collected.into(), is_whole: true })
    };
    tokio::pin!(answered);
    // Request and connection are polled together, so that dropping this future on a timeout ends both.
    tokio::select! {
        answer = &mut answered => answer,
        ended = connection => {
            ended?;
            answered.await
        }
    }
}

/// TLS that accepts any certificate whose key the peer holds.
///
/// # Errors
/// None that a build with ring has.
pub fn believing_anyone() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider))).with_no_client_auth())
}

/// Verifies that the peer holds its key, not who it is.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
