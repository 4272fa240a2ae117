//! The HTTPS transport between two real TLS servers, of which one goes away.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::ConfigMap;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trireme_client::{Client, Credentials, HttpsOptions, HttpsTransport, Informer, InformerOptions, Transport};

struct Authority {
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    fn server_config(&self) -> Arc<rustls::ServerConfig> {
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &*self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }
}

/// A server that lists one ConfigMap named after itself and keeps watches open.
async fn serve(authority: &Authority, name: &'static str) -> (SocketAddr, CancellationToken) {
    serve_while(authority, name, Arc::new(AtomicBool::new(true))).await
}

/// The same, as long as it is `ready`; then it goes on answering and says that it is not.
async fn serve_while(authority: &Authority, name: &'static str, ready: Arc<AtomicBool>) -> (SocketAddr, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(authority.server_config());
    let dead = CancellationToken::new();
    let stop = dead.clone();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = tokio::select! {
                accepted = listener.accept() => accepted.unwrap(),
                () = stop.cancelled() => return,
            };
            let (acceptor, stop, ready) = (acceptor.clone(), stop.clone(), ready.clone());
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let mut answer = answer(name, &request);
                    if request.uri().path() == "/readyz" && !ready.load(Ordering::Relaxed) {
                        *answer.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
                    }
                    async move { Ok::<_, std::io::Error>(answer) }
                });
                let connection = builder.serve_connection(TokioIo::new(tls), service);
                tokio::select! {
                    _ = connection => {}
                    () = stop.cancelled() => {}
                }
            });
        }
    });
    (address, dead)
}

fn answer(name: &str, request: &http::Request<hyper::body::Incoming>) -> http::Response<UnsyncBoxBody<Bytes, std::io::Error>> {
    let query = request.uri().query().unwrap_or_default();
    let body = if query.contains("watch=true") {
        let stream = futures::stream::pending::<Result<http_body::Frame<Bytes>, std::io::Error>>();
        StreamBody::new(stream).boxed_unsync()
    } else {
        let from = query.split("resourceVersion=").nth(1).unwrap_or("0").split('&').next().unwrap();
        let revision = from.parse::<i64>().unwrap_or(0) + 1;
        let json = serde_json::json!({
            "metadata": {"resourceVersion": revision.to_string()},
            "items": [{"metadata": {"name": name, "namespace": "ns", "resourceVersion": "1"}}],
        });
        Full::new(Bytes::from(json.to_string())).map_err(|never| match never {}).boxed_unsync()
    };
    http::Response::new(body)
}

async fn who_answers(client: &Client) -> String {
    let list = client.list::<ConfigMap>(None, &trireme_client::ListOptions::default()).await.unwrap();
    list.items[0].metadata.name.clone().unwrap()
}

#[tokio::test]
async fn requests_and_watches_move_to_the_server_that_lives() {
    let authority = Authority::new();
    let (one, kill_one) = serve(&authority, "one").await;
    let (two, kill_two) = serve(&authority, "two").await;
    let transport = HttpsTransport::new(HttpsOptions {
        servers: vec![format!("https://{one}"), format!("https://{two}")],
        ca_pem: authority.issuer.pem(),
        credentials: Credentials::Token("t".to_owned()),
    })
    .unwrap();
    let client = Client::new(Arc::new(transport.clone()));

    let first = who_answers(&client).await;
    let (kill_first, kill_second) = if first == "one" { (kill_one, kill_two) } else { (kill_two, kill_one) };
    let cancel = CancellationToken::new();
    let informer: Arc<Informer<ConfigMap>> = Informer::start(client.clone(), InformerOptions::default(), cancel.clone());
    informer.wait_synced().await;
    assert!(informer.get("ns", &first).is_some());

    kill_first.cancel();
    let started = Instant::now();
    let second = who_answers(&client).await;
    assert_ne!(second, first);
    assert!(started.elapsed() < Duration::from_secs(2), "took {:?}", started.elapsed());

    // The other one's answer to a fresh list shows that the watch moved.
    informer.ensure_revision(informer.last_revision() + 1, Duration::from_millis(200)).await;
    assert!(informer.get("ns", &second).is_some());

    kill_second.cancel();
    let error = client.get::<ConfigMap>(Some("ns"), "x").await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    transport.set_servers(&[]).unwrap();
    let error = client.get::<ConfigMap>(Some("ns"), "x").await.unwrap_err();
    assert_eq!(error.to_string(), "no API server is configured");
    cancel.cancel();
}

#[tokio::test]
async fn a_server_that_lost_its_cluster_is_left_for_one_that_is_ready() {
    let authority = Authority::new();
    let (one_is, two_is) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
    let (one, stop_one) = serve_while(&authority, "one", one_is.clone()).await;
    let (two, stop_two) = serve_while(&authority, "two", two_is.clone()).await;
    let transport = HttpsTransport::new(HttpsOptions {
        servers: vec![format!("https://{one}"), format!("https://{two}")],
        ca_pem: authority.issuer.pem(),
        credentials: Credentials::Token("t".to_owned()),
    })
    .unwrap();
    let client = Client::new(Arc::new(transport.clone()));
    let cancel = CancellationToken::new();
    let checking = tokio::spawn({
        let (transport, cancel) = (transport.clone(), cancel.clone());
        async move { transport.check_health(cancel).await }
    });
    let first = who_answers(&client).await;
    if first == "one" { &one_is } else { &two_is }.store(false, Ordering::Relaxed);
    let end = Instant::now() + Duration::from_secs(30);
    while who_answers(&client).await == first {
        assert!(Instant::now() < end, "it stays with {first}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cancel.cancel();
    checking.await.unwrap();
    stop_one.cancel();
    stop_two.cancel();
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_trusted() {
    let (address, stop) = serve(&Authority::new(), "foreign").await;
    let transport = HttpsTransport::new(HttpsOptions {
        servers: vec![format!("https://{address}")],
        ca_pem: Authority::new().issuer.pem(),
        credentials: Credentials::Anonymous,
    })
    .unwrap();
    let request = http::Request::builder().uri("/version").body(Bytes::new()).unwrap();
    let error = transport.send(request).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    let wrong = HttpsTransport::new(HttpsOptions {
        servers: vec!["http://plain:80".to_owned()],
        ca_pem: String::new(),
        credentials: Credentials::Anonymous,
    });
    assert!(wrong.is_err(), "plain HTTP is refused");
    stop.cancel();
}
