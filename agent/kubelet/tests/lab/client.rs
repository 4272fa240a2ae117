//! A client of the kubelet API: plain requests and WebSocket streams over TLS, with a bearer token.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::{SinkExt, StreamExt};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};
use trireme_kubelet::ServingTls;

struct Certificates {
    certificate: rustls::pki_types::CertificateDer<'static>,
    tls: ServingTls,
}

#[derive(Debug)]
struct One(Arc<rustls::sign::CertifiedKey>);

impl rustls::server::ResolvesServerCert for One {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(self.0.clone())
    }
}

fn certificates() -> &'static Certificates {
    static ALL: std::sync::OnceLock<Certificates> = std::sync::OnceLock::new();
    ALL.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_string()]).unwrap();
        let key = rustls::crypto::ring::sign::any_supported_type(&rustls::pki_types::PrivateKeyDer::Pkcs8(
            made.signing_key.serialize_der().into(),
        ))
        .unwrap();
        let certificate = made.cert.der().clone();
        let certified = rustls::sign::CertifiedKey::new(vec![certificate.clone()], key);
        Certificates {
            certificate,
            tls: ServingTls { certificate: Arc::new(One(Arc::new(certified))), client_ca_pem: made.cert.pem().into_bytes() },
        }
    })
}

/// What the kubelet serves with.
pub fn serving_tls() -> ServingTls {
    certificates().tls.clone()
}

async fn connect(address: SocketAddr) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(certificates().certificate.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("127.0.0.1").unwrap(), tcp).await.unwrap()
}

/// Status and body of one request.
pub async fn get(address: SocketAddr, path: &str, token: &str) -> (u16, String) {
    let mut stream = connect(address).await;
    let auth = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: k\r\n{auth}Connection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_string())
}

#[derive(Debug, Default)]
pub struct Run {
    pub stdout: String,
    pub stderr: String,
    pub status: serde_json::Value,
}

/// Runs a command; sends `input` and ends stdin, if there is input.
pub async fn exec(address: SocketAddr, path: &str, protocol: &str, input: Option<&str>) -> Run {
    let mut request = format!("wss://127.0.0.1{path}").into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
    request.headers_mut().insert("Authorization", "Bearer good".parse().unwrap());
    let (mut socket, response) = tokio_tungstenite::client_async(request, connect(address).await).await.unwrap();
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], protocol);
    if let Some(input) = input {
        socket.send(Message::binary([&[0], input.as_bytes()].concat())).await.unwrap();
        socket.send(Message::binary(vec![255, 0])).await.unwrap();
    }
    let mut run = Run::default();
    let collect = async {
        while let Some(Ok(message)) = socket.next().await {
            let Message::Binary(data) = message else { continue };
            let text = String::from_utf8_lossy(&data[1..]).into_owned();
            match data[0] {
                1 => run.stdout.push_str(&text),
                2 => run.stderr.push_str(&text),
                3 if !text.is_empty() => run.status = serde_json::from_str(&text).unwrap(),
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), collect).await.expect("the stream ends with the command");
    run
}

/// Runs a command; all binary messages that come back, as channel and text.
pub async fn messages(address: SocketAddr, path: &str, protocol: &str) -> Vec<(u8, String)> {
    let mut request = format!("wss://127.0.0.1{path}").into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
    request.headers_mut().insert("Authorization", "Bearer good".parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::client_async(request, connect(address).await).await.unwrap();
    let mut all = Vec::new();
    let collect = async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Binary(data) = message {
                all.push((data[0], String::from_utf8_lossy(&data[1..]).into_owned()));
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), collect).await.expect("the stream ends with the command");
    all
}
