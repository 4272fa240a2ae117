//! One HTTP request of a probe or hook: short, without proxies, and trusting any certificate, as upstream documents it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Empty;
use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction, HTTPHeader},
    apimachinery::pkg::util::intstr::IntOrString,
};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use trireme_client::once;

/// At most this much of an answer is read.
const MAX_BODY_BYTES: usize = 10 << 10;

/// A port by number or by its name in the container.
pub(crate) fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => match container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name)) {
            Some(port) => port.container_port,
            None => name.parse().map_err(|_| format!("couldn't find port: {name}"))?,
        },
    };
    u16::try_from(number).ok().filter(|n| *n > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

/// Sends the request of an action; returns status and (the beginning of the) body.
pub(crate) async fn get(action: &HTTPGetAction, container: &Container, pod_ip: &str, timeout: Duration) -> Result<(u16, Bytes), String> {
    let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(pod_ip);
    let port = port(&action.port, container)?;
    let tls = action.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https"));
    let path = action.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') { path.to_string() } else { format!("/{path}") };
    let shown = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
    let url = format!("{}://{shown}:{port}{path}", if tls { "https" } else { "http" });
    let headers = action.http_headers.as_deref().unwrap_or_default();
    match tokio::time::timeout(timeout, exchange(host, port, &shown, &path, tls, headers)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(why)) => Err(format!("Get {url:?}: {why}")),
        Err(_) => Err(format!("Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)")),
    }
}

async fn exchange(host: &str, port: u16, shown: &str, path: &str, tls: bool, headers: &[HTTPHeader]) -> Result<(u16, Bytes), String> {
    let tcp = dial(host, port).await?;
    if tls {
        // A probe asks whether somebody answers, not who.
        let config = once::believing_anyone().map_err(|e| e.to_string())?;
        let name = ServerName::try_from(host.to_string()).map_err(|e| e.to_string())?;
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|e| e.to_string())?;
        send(stream, shown, port, path, headers).await
    } else {
        send(tcp, shown, port, path, headers).await
    }
}

/// Opens a connection; errors read as Go's do.
pub(crate) async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((host, port)).await.map_err(|e| {
        let why = match e.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused".to_string(),
            std::io::ErrorKind::HostUnreachable => "no route to host".to_string(),
            std::io::ErrorKind::TimedOut => "connection timed out".to_string(),
            _ => e.to_string(),
        };
        let shown = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
        format!("dial tcp {shown}:{port}: connect: {why}")
    })
}

async fn send<S>(stream: S, host: &str, port: u16, path: &str, headers: &[HTTPHeader]) -> Result<(u16, Bytes), String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let mut request = http::Request::get(path);
    let has = |name: &str| headers.iter().any(|h| h.name.eq_ignore_ascii_case(name));
    for header in headers {
        request = request.header(&header.name, &header.value);
    }
    if !has("host") {
        request = request.header("Host", format!("{host}:{port}"));
    }
    if !has("user-agent") {
        request = request.header("User-Agent", "kube-probe/1.36");
    }
    if !has("accept") {
        request = request.header("Accept", "*/*");
    }
    let request = request.header("Connection", "close").body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let answer = once::exchange(stream, request, MAX_BODY_BYTES).await.map_err(|e| e.to_string())?;
    Ok((answer.status, answer.body))
}
