//! exec, attach and port-forward: from whatever the client speaks to the SPDY/3.1 that the runtime's streaming server speaks.
//!
//! A client that speaks SPDY itself is spliced through byte for byte; one that speaks WebSocket is bridged (`websocket`).

use axum::{
    body::Body,
    extract::Request,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CONNECTION, HOST, UPGRADE},
    },
    response::Response,
};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{
    routes::{flag, refuse},
    websocket,
};

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
    pub(crate) fn of(query: &Vec<(String, String)>) -> Result<Wanted, Response> {
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

/// Serves exec and attach.
pub(crate) async fn remote_command(request: Request, url: String, wanted: Wanted) -> Result<Response, Response> {
    match upgrade_of(request.headers()).as_deref() {
        Some("websocket") => websocket::remote_command(request, url, wanted).await,
        Some("spdy/3.1") => splice(request, &url).await,
        _ => Err(refuse(
            StatusCode::BAD_REQUEST,
            "unable to upgrade: missing upgrade headers in request: \"Upgrade\" must be websocket or SPDY/3.1",
        )),
    }
}

/// Serves port-forward.
pub(crate) async fn port_forward(request: Request, url: String, ports: Vec<u16>) -> Result<Response, Response> {
    match upgrade_of(request.headers()).as_deref() {
        Some("websocket") => websocket::port_forward(request, url, ports).await,
        Some("spdy/3.1") => splice(request, &url).await,
        _ => Err(refuse(
            StatusCode::BAD_REQUEST,
            "unable to upgrade: missing upgrade headers in request: \"Upgrade\" must be websocket or SPDY/3.1",
        )),
    }
}

fn upgrade_of(headers: &HeaderMap) -> Option<String> {
    headers.get(UPGRADE)?.to_str().ok().map(str::to_ascii_lowercase)
}

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
        let body = http_body_util::BodyExt::collect(response.into_body()).await.map(|b| b.to_bytes()).unwrap_or_default();
        return Err(format!("the runtime's streaming server answered {status}: {}", String::from_utf8_lossy(&body).trim()));
    }
    let headers = response.headers().clone();
    let upgraded = hyper::upgrade::on(response).await.map_err(|e| e.to_string())?;
    Ok((TokioIo::new(upgraded), headers))
}

/// Connects a client that speaks SPDY/3.1 with the runtime, which does too.
async fn splice(mut request: Request, url: &str) -> Result<Response, Response> {
    let protocols: Vec<HeaderValue> = request.headers().get_all("X-Stream-Protocol-Version").iter().cloned().collect();
    let (mut upstream, headers) = dial(url, &protocols).await.map_err(|e| refuse(StatusCode::INTERNAL_SERVER_ERROR, e))?;
    let on_upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match on_upgrade.await {
            Ok(client) => {
                let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut upstream).await;
            }
            Err(error) => tracing::debug!(%error, "a client went away before its stream began"),
        }
    });
    let mut response =
        Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header(CONNECTION, "Upgrade").header(UPGRADE, "SPDY/3.1");
    if let Some(protocol) = headers.get("X-Stream-Protocol-Version") {
        response = response.header("X-Stream-Protocol-Version", protocol);
    }
    response.body(Body::empty()).map_err(|e| refuse(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}
