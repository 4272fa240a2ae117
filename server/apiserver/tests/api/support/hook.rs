//! An HTTPS server that answers one JSON document with another: a webhook, or a site with documents.

use std::sync::Arc;

use base64::Engine;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde_json::Value;
use tokio::net::TcpListener;

/// A webhook and what it was asked.
pub struct Hook {
    pub url: String,
    pub ca: String,
    /// The `request` of each review.
    pub asked: Arc<Mutex<Vec<Value>>>,
    pub connections: Arc<Mutex<usize>>,
}

/// Answers each document with what `answer` makes of it.
pub async fn serve(answer: impl Fn(Value) -> BoxFuture<'static, Value> + Send + Sync + 'static) -> Hook {
    serve_paths(move |_, question| answer(question)).await
}

/// The same for an answer that depends on the path too. A request without a body is asked with null.
pub async fn serve_paths(answer: impl Fn(&str, Value) -> BoxFuture<'static, Value> + Send + Sync + 'static) -> Hook {
    super::log_to_stderr();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let ca = base64::engine::general_purpose::STANDARD.encode(certificate.pem());
    let (asked, connections): (Arc<Mutex<Vec<Value>>>, Arc<Mutex<usize>>) = Default::default();
    let (log, count, answer) = (asked.clone(), connections.clone(), Arc::new(answer));
    tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        while let Ok((stream, _)) = listener.accept().await {
            *count.lock() += 1;
            let (acceptor, log, answer) = (acceptor.clone(), log.clone(), answer.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request: Request<Incoming>| {
                    let (log, answer) = (log.clone(), answer.clone());
                    async move {
                        let path = request.uri().path().to_owned();
                        let body = request.into_body().collect().await?.to_bytes();
                        let question: Value = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
                        log.lock().push(question["request"].clone());
                        let answer = answer(&path, question).await;
                        Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from(answer.to_string()))))
                    }
                });
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Hook { url: format!("https://localhost:{port}/check"), ca, asked, connections }
}
