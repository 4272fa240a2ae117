//! An answer sent over a WebSocket: what browsers use to follow a log.
//!
//! Owns the handshake and the framing of `binary.k8s.io` (each piece is a binary message) and `base64.binary.k8s.io` (each piece is a
//! text message, encoded). What the client sends is read and thrown away. Answers to upstream's `wsstream.Reader`.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use trireme_api::status::Status;

use crate::endpoints::context::Context;
use crate::error::Answer;
use crate::http::respond::Body;

/// The largest message that is read from a client, which has nothing to say.
const READ_BYTES_MAX: usize = 4096;

/// How pieces become messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// As they are.
    Binary,
    /// Base64, in text messages.
    Base64,
}

/// The subprotocol that is agreed upon, and its framing. A client that offers none gets binary messages.
pub fn agree(headers: &HeaderMap) -> Option<(Option<&'static str>, Framing)> {
    const KNOWN: [(&str, Framing); 2] = [("binary.k8s.io", Framing::Binary), ("base64.binary.k8s.io", Framing::Base64)];
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let offered: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).filter(|name| !name.is_empty()).collect();
    if offered.is_empty() {
        return Some((None, Framing::Binary));
    }
    let (name, framing) = offered.iter().find_map(|name| KNOWN.iter().find(|(known, _)| known == name))?;
    Some((Some(*name), *framing))
}

/// Switches the client's connection to a WebSocket and sends the body of `source` over it, then closes it.
pub fn stream(ctx: &Context, source: Response<hyper::body::Incoming>) -> Answer<Response<Body>> {
    let key = ctx.headers.get(SEC_WEBSOCKET_KEY).ok_or_else(|| Status::bad_request("Sec-WebSocket-Key is missing"))?;
    if ctx.headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        Err(Status::bad_request("only version 13 of the WebSocket protocol is supported"))?;
    }
    let (protocol, framing) = agree(&ctx.headers)
        .ok_or_else(|| Status::bad_request("no offered WebSocket subprotocol is supported: binary.k8s.io, base64.binary.k8s.io"))?;
    let Some(client) = ctx.upgrade.lock().take() else {
        return Err(Status::bad_request("Upgrade request required").into());
    };
    let (stopping, place) = (ctx.server.stopping.clone(), ctx.place.clone());
    tokio::spawn(async move {
        let _place = place;
        let client = match client.await {
            Ok(client) => TokioIo::new(client),
            Err(error) => return tracing::debug!(%error, "upgrade failed"),
        };
        let config = WebSocketConfig::default().max_message_size(Some(READ_BYTES_MAX)).max_frame_size(Some(READ_BYTES_MAX));
        let socket = WebSocketStream::from_raw_socket(client, Role::Server, Some(config)).await;
        tokio::select! {
            () = copy(socket, source.into_body(), framing) => {}
            () = stopping.cancelled() => {}
        }
    });
    let mut switched = Response::new(Body::default());
    *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = switched.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(Status::internal)?;
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    Ok(switched)
}

async fn copy<S>(socket: WebSocketStream<S>, mut source: hyper::body::Incoming, framing: Framing)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (mut sink, mut client) = socket.split();
    let sending = async {
        while let Some(Ok(frame)) = source.frame().await {
            let Ok(piece) = frame.into_data() else { continue };
            if sink.send(message(piece, framing)).await.is_err() {
                return;
            }
        }
        let _ = sink.close().await;
    };
    // Reading answers pings and notices that the client has gone.
    let reading = async { while let Some(Ok(_)) = client.next().await {} };
    tokio::select! {
        () = sending => {}
        () = reading => {}
    }
}

fn message(piece: Bytes, framing: Framing) -> Message {
    match framing {
        Framing::Binary => Message::Binary(piece),
        Framing::Base64 => Message::text(BASE64_STANDARD.encode(piece)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subprotocols_are_agreed_upon() {
        let agreed = |offered: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in offered {
                headers.append(SEC_WEBSOCKET_PROTOCOL, value.parse().unwrap());
            }
            agree(&headers)
        };
        assert_eq!(agreed(&[]), Some((None, Framing::Binary)));
        assert_eq!(agreed(&["x, binary.k8s.io"]), Some((Some("binary.k8s.io"), Framing::Binary)));
        assert_eq!(agreed(&["base64.binary.k8s.io,binary.k8s.io"]), Some((Some("base64.binary.k8s.io"), Framing::Base64)));
        assert_eq!(agreed(&["v4.channel.k8s.io"]), None);
    }
}
