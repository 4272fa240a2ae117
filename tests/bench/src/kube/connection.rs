//! One connection, and requests on it.

use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::kube::Protocol;

/// The windows of HTTP/2 in Go's client, and so in client-go.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 30;

/// A connection to a server.
pub struct Connection {
    sender: Sender,
    authority: Arc<str>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// How an answer is encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    Json,
    Protobuf,
    Table,
}

/// A request that changes something.
pub struct Write<'a> {
    pub method: Method,
    pub path: &'a str,
    pub content_type: &'static str,
    pub body: Bytes,
}

impl Form {
    /// As tables show it.
    pub fn title(self) -> &'static str {
        match self {
            Form::Json => "JSON",
            Form::Protobuf => "protobuf",
            Form::Table => "Table",
        }
    }

    fn accept(self) -> &'static str {
        match self {
            Form::Json => "application/json",
            Form::Protobuf => "application/vnd.kubernetes.protobuf",
            Form::Table => "application/json;as=Table;v=v1;g=meta.k8s.io",
        }
    }
}

impl<'a> Write<'a> {
    /// A new object.
    pub fn create(path: &'a str, body: Bytes) -> Write<'a> {
        Write { method: Method::POST, path, content_type: "application/json", body }
    }
}

impl Connection {
    /// Connects, and shakes hands.
    pub async fn open(authority: &str, tls: Arc<ClientConfig>, protocol: Protocol) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host).trim_matches(['[', ']']);
        let stream = TokioIo::new(TlsConnector::from(tls).connect(ServerName::try_from(host.to_owned())?, stream).await?);
        let sender = match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(stream).await?;
                tokio::spawn(connection);
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                    .initial_stream_window_size(STREAM_WINDOW_BYTES)
                    .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                    .handshake(stream)
                    .await?;
                tokio::spawn(connection);
                Sender::Http2(sender)
            }
        };
        Ok(Connection { sender, authority: authority.into() })
    }

    /// Another sender on the same connection; only HTTP/2 has such.
    pub fn share(&self) -> Option<Connection> {
        let Sender::Http2(sender) = &self.sender else { return None };
        Some(Connection { sender: Sender::Http2(sender.clone()), authority: self.authority.clone() })
    }

    /// Writes, and drops the answer.
    pub async fn write(&mut self, write: Write<'_>) -> anyhow::Result<()> {
        let what = format!("{} {}", write.method, write.path);
        let request = self.request(&write.method, write.path, Form::Json)?.header(http::header::CONTENT_TYPE, write.content_type);
        let response = self.send(request.body(Full::new(write.body))?).await?;
        whole(checked(response).await.context(what)?).await.map(drop)
    }

    /// Reads whole.
    pub async fn read(&mut self, path: &str, form: Form) -> anyhow::Result<Vec<Bytes>> {
        whole(self.stream(path, form).await?).await
    }

    /// Reads an object.
    pub async fn object(&mut self, path: &str) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::from_slice(&self.read(path, Form::Json).await?.concat())?)
    }

    /// The body of an answer, as it comes.
    pub async fn stream(&mut self, path: &str, form: Form) -> anyhow::Result<Incoming> {
        let request = self.request(&Method::GET, path, form)?.body(Full::default())?;
        let response = self.send(request).await?;
        checked(response).await.with_context(|| format!("GET {path}"))
    }

    fn request(&self, method: &Method, path: &str, form: Form) -> anyhow::Result<http::request::Builder> {
        let request = Request::builder().method(method).header(http::header::ACCEPT, form.accept());
        Ok(match self.sender {
            Sender::Http1(_) => request.uri(path).header(http::header::HOST, &*self.authority),
            Sender::Http2(_) => request.uri(format!("https://{}{path}", self.authority)),
        })
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Incoming>> {
        Ok(match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        })
    }
}

async fn checked(response: Response<Incoming>) -> anyhow::Result<Incoming> {
    let status = response.status();
    if status.is_success() {
        return Ok(response.into_body());
    }
    let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    anyhow::bail!("{status}: {}", String::from_utf8_lossy(&body))
}

async fn whole(mut body: Incoming) -> anyhow::Result<Vec<Bytes>> {
    let mut pieces = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            pieces.push(data);
        }
    }
    Ok(pieces)
}
