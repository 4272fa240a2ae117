//! The runtime's end of a stream: which streams are asked for, and the connection on which they come.

use axum::{
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CONNECTION, HOST, UPGRADE},
    },
    response::Response,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::request::{flag, refuse};

/// At most this much of a refusal is read.
const MAX_REFUSAL_BYTES: usize = 4 << 10;

/// Which streams a client asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) tty: bool,
}

impl Wanted {
    /// From the query, in the kubelet's names or the API's.
    pub(crate) fn of(query: &[(String, String)]) -> Result<Wanted, Response> {
        let tty = flag(query, &["tty"]);
        let wanted = Wanted {
            stdin: flag(query, &["input", "stdin"]),
            stdout: flag(query, &["output", "stdout"]),
            // A terminal has one output.
            stderr: flag(query, &["error", "stderr"]) && !tty,
            tty,
        };
        if !wanted.stdin && !wanted.stdout && !wanted.stderr {
            return Err(refuse(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr"));
        }
        Ok(wanted)
    }
}

/// An upgraded connection to the runtime.
pub(crate) type Upstream = TokioIo<Upgraded>;

/// Asks the runtime's streaming server to speak SPDY/3.1 with this subprotocol.
pub(crate) async fn dial(url: &str, protocols: &[HeaderValue]) -> Result<(Upstream, HeaderMap), String> {
    let uri: axum::http::Uri = url.parse().map_err(|e| format!("the runtime's URL {url:?}: {e}"))?;
    let authority = uri.authority().ok_or_else(|| format!("the runtime's URL {url:?} names no host"))?.to_string();
    let stream = TcpStream::connect(&authority).await.map_err(|e| format!("connect to the runtime's streaming server: {e}"))?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    tokio::spawn(connection.with_upgrades());
    let mut builder = axum::http::Request::post(uri.path_and_query().map_or("/", |p| p.as_str()))
        .header(HOST, authority)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "SPDY/3.1");
    for protocol in protocols {
        builder = builder.header("X-Stream-Protocol-Version", protocol);
    }
    let request = builder.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_REFUSAL_BYTES).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        return Err(format!("the runtime's streaming server answered {status}: {}", String::from_utf8_lossy(&body).trim()));
    }
    let headers = response.headers().clone();
    let upgraded = hyper::upgrade::on(response).await.map_err(|e| e.to_string())?;
    Ok((TokioIo::new(upgraded), headers))
}
