//! An extension server: it believes the headers of a client with a certificate of the front proxy, and of nobody else.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use trireme_cluster::pki::{ClusterKeys, Profile};

/// Where it listens, and the authority of its certificate in PEM.
pub struct ExtensionServer {
    pub port: u16,
    pub ca: String,
}

/// Serves the group version `wardle.example.com/v1alpha1` under the name of a Service.
pub async fn serve(keys: &ClusterKeys, host: &str) -> ExtensionServer {
    super::log_to_stderr();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![host.to_owned()]).unwrap().self_signed(&key).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    let front_proxies = &Profile::FrontProxyClient.authority(keys).certificate_pem;
    roots.add(CertificateDer::from_pem_slice(front_proxies.as_bytes()).unwrap()).unwrap();
    let clients = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let tls = rustls::ServerConfig::builder()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
            });
        }
    });
    ExtensionServer { port, ca: certificate.pem() }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let document = match parts.uri.path() {
        "/apis/wardle.example.com/v1alpha1" => {
            json!({"kind": "APIResourceList", "groupVersion": "wardle.example.com/v1alpha1", "resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["create", "get", "list"]}]})
        }
        "/openapi/v3" => {
            let address = "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=7";
            json!({"paths": {"apis/wardle.example.com/v1alpha1": {"serverRelativeURL": address}, "version": {"serverRelativeURL": "/x"}}})
        }
        _ => {
            let all = |name: &str| parts.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>();
            json!({"asked": format!("{} {}", parts.method, parts.uri), "user": all("x-remote-user"), "groups": all("x-remote-group"),
                "authorization": all("authorization"), "body": serde_json::from_slice::<Value>(&body).unwrap_or_default()})
        }
    };
    Ok(Response::builder().header("content-type", "application/json").body(Full::new(Bytes::from(document.to_string()))).unwrap())
}
