//! The WebSocket side of exec, attach and port-forward.
//!
//! `v4.channel.k8s.io`: the first byte of a binary message is its channel (0 stdin, 1 stdout, 2 stderr, 3 error, 4 resize).
//! `v5` adds `[255, channel]`, which ends a channel. The oldest form, `channel.k8s.io`, has no document on the error channel: only a
//! failure is told there, as text. The `base64` forms send text messages: the channel as a digit, then base64. `SPDY/3.1+portforward.k8s.io` is a whole SPDY connection inside binary messages.
//! Answers to <https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/4006-transition-spdy-to-websockets>.

use axum::{
    RequestExt,
    extract::{
        Request,
        ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code},
    },
    http::{HeaderValue, StatusCode, header::SEC_WEBSOCKET_PROTOCOL},
    response::Response,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::{
    request::refuse,
    spdy::{Frame, Reader, Writer},
    upstream::{Upstream, Wanted, dial},
};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// The end of a command is a short document.
const MAX_STATUS_BYTES: usize = 64 << 10;

/// Each port has two channels, and a channel's number is one byte.
const MAX_PORTS: usize = 127;
/// A message of a client is in memory as a whole.
pub(super) const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// How a client wants its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Form {
    base64: bool,
    /// Only failures are reported on the error channel, as text.
    plain_status: bool,
}

impl Form {
    const BINARY: Form = Form { base64: false, plain_status: false };

    fn of(protocol: Option<&HeaderValue>) -> Form {
        match protocol.and_then(|p| p.to_str().ok()) {
            Some("v4.base64.channel.k8s.io") => Form { base64: true, plain_status: false },
            Some("base64.channel.k8s.io") => Form { base64: true, plain_status: true },
            Some("channel.k8s.io") | None => Form { base64: false, plain_status: true },
            Some(_) => Form::BINARY,
        }
    }

    fn encode(self, channel: u8, data: &[u8]) -> Message {
        if self.base64 {
            return Message::Text(format!("{channel}{}", STANDARD.encode(data)).into());
        }
        let mut message = BytesMut::with_capacity(data.len() + 1);
        message.put_u8(channel);
        message.put_slice(data);
        Message::Binary(message.freeze())
    }

    /// Channel and data of a message of the client; None for what is neither.
    fn decode(self, message: Bytes) -> Option<(u8, Bytes)> {
        let first = *message.first()?;
        if !self.base64 {
            return Some((first, message.slice(1..)));
        }
        Some((first.checked_sub(b'0').filter(|digit| *digit < 10)?, STANDARD.decode(&message[1..]).ok()?.into()))
    }
}

/// What a client's message means in each form.
#[cfg(feature = "fuzzing")]
pub(super) fn decode_in_all_forms(message: Bytes) {
    for protocol in ["v4.channel.k8s.io", "v4.base64.channel.k8s.io", "base64.channel.k8s.io", "channel.k8s.io"] {
        let form = Form::of(Some(&HeaderValue::from_static(protocol)));
        if let Some((channel, data)) = form.decode(message.clone()) {
            // Only digits have a place in the text forms.
            let shown = if form.base64 { channel % 10 } else { channel };
            let again = form.decode(form.encode(shown, &data).into_data());
            assert_eq!(again, Some((shown, data)), "{protocol}");
        }
    }
    drop(plain_status(&message));
}

/// What the oldest form tells of a command's end: nothing of a success.
fn plain_status(document: &[u8]) -> Option<String> {
    let status: serde_json::Value = serde_json::from_slice(document).ok()?;
    (status["status"] != "Success").then(|| status["message"].as_str().unwrap_or_default().to_string())
}

/// A stream of the runtime and the channel that shows it to the client.
#[derive(Clone, Copy)]
struct Pair {
    channel: u8,
    stream: u32,
}

/// client-go takes any other end, also one without a code, for a broken connection.
fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: close_code::NORMAL, reason: Utf8Bytes::default() }))
}

async fn upgrade(request: Request) -> Result<WebSocketUpgrade, Response> {
    request
        .extract::<WebSocketUpgrade, _>()
        .await
        .map(|upgrade| upgrade.max_message_size(MAX_MESSAGE_BYTES))
        .map_err(|rejection| refuse(StatusCode::BAD_REQUEST, format!("unable to upgrade: {rejection}")))
}

/// Bridges exec or attach.
pub(crate) async fn remote_command(request: Request, url: String, wanted: Wanted) -> Result<Response, Response> {
    let asks = request.headers().contains_key(SEC_WEBSOCKET_PROTOCOL);
    let known = ["v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io"];
    let socket = upgrade(request).await?.protocols(known);
    if asks && socket.selected_protocol().is_none() {
        let text = format!("unable to upgrade: unable to negotiate protocol: client supports none of [{}]", known.join(" "));
        return Err(refuse(StatusCode::FORBIDDEN, text));
    }
    let form = Form::of(socket.selected_protocol());
    let (upstream, _) =
        dial(&url, &[HeaderValue::from_static("v4.channel.k8s.io")]).await.map_err(|e| refuse(StatusCode::INTERNAL_SERVER_ERROR, e))?;
    Ok(socket.on_upgrade(move |socket| async move {
        if let Err(error) = bridge_command(socket, upstream, wanted, form).await {
            tracing::debug!(%error, "a stream ended early");
        }
    }))
}

async fn bridge_command(socket: WebSocket, upstream: Upstream, wanted: Wanted, form: Form) -> Result<(), Ended> {
    let (read, write) = tokio::io::split(upstream);
    let mut writer = Writer::new(write);
    let mut pairs = Vec::new();
    // The runtime waits for exactly these streams, the error stream first.
    let all = [
        (ERROR, "error", true),
        (STDIN, "stdin", wanted.stdin),
        (STDOUT, "stdout", wanted.stdout),
        (STDERR, "stderr", wanted.stderr),
        (RESIZE, "resize", wanted.tty),
    ];
    for (channel, name, is_wanted) in all {
        if is_wanted {
            pairs.push(Pair { channel, stream: writer.open(&[("streamtype", name)]).await? });
        }
    }
    let (mut sink, source) = socket.split();
    // An empty message tells the client that the other side is there.
    let first = if wanted.stdout {
        STDOUT
    } else if wanted.stderr {
        STDERR
    } else {
        ERROR
    };
    sink.send(form.encode(first, &[])).await?;
    pump(sink, source, Reader::new(read), writer, pairs, form).await
}

/// Why a stream ended early.
type Ended = Box<dyn std::error::Error + Send + Sync>;

/// Moves messages both ways until either side ends.
async fn pump(
    mut sink: SplitSink<WebSocket, Message>,
    mut source: SplitStream<WebSocket>,
    mut reader: Reader<ReadHalf<Upstream>>,
    mut writer: Writer<WriteHalf<Upstream>>,
    pairs: Vec<Pair>,
    form: Form,
) -> Result<(), Ended> {
    // Pings of the runtime are answered by the half that writes to it.
    let (pings, mut pinged) = tokio::sync::mpsc::channel::<u32>(8);
    let outward = async {
        let mut status = Vec::new();
        while let Some(frame) = reader.next().await? {
            match frame {
                Frame::Data { stream, data, .. } if !data.is_empty() => {
                    let Some(pair) = pairs.iter().find(|p| p.stream == stream) else { continue };
                    if form.plain_status && pair.channel == ERROR {
                        status.extend_from_slice(&data[..data.len().min(MAX_STATUS_BYTES.saturating_sub(status.len()))]);
                        continue;
                    }
                    sink.send(form.encode(pair.channel, &data)).await?;
                }
                Frame::Ping(id) => {
                    let _ = pings.try_send(id);
                }
                Frame::GoAway => break,
                Frame::Data { .. } | Frame::Reset { .. } => {}
            }
        }
        if let Some(failure) = plain_status(&status) {
            sink.send(form.encode(ERROR, failure.as_bytes())).await?;
        }
        let _ = sink.send(goodbye()).await;
        sink.close().await?;
        Ok(())
    };
    let inward = async {
        loop {
            let message = tokio::select! {
                Some(id) = pinged.recv() => {
                    writer.pong(id).await?;
                    continue;
                }
                message = source.next() => message,
            };
            let data = match message {
                Some(Ok(Message::Binary(data))) => data,
                Some(Ok(Message::Text(text))) => Bytes::from(text),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(()),
            };
            let Some((channel, data)) = form.decode(data) else { continue };
            let stream_of = |channel: u8| pairs.iter().find(|p| p.channel == channel).map(|p| p.stream);
            if channel == CLOSE {
                if let Some(stream) = data.first().and_then(|channel| stream_of(*channel)) {
                    writer.finish(stream).await?;
                }
            } else if let Some(stream) = stream_of(channel).filter(|_| !data.is_empty()) {
                writer.data(stream, &data).await?;
            }
        }
    };
    // When the client leaves, both connections close with it; when the runtime is done, what it said has been sent.
    tokio::select! {
        result = outward => result,
        result = inward => result,
    }
}

/// Bridges port-forward: two channels for each port, or a tunnelled SPDY connection.
pub(crate) async fn port_forward(request: Request, url: String, ports: Vec<u16>) -> Result<Response, Response> {
    let socket = upgrade(request).await?.protocols([TUNNEL, "v4.channel.k8s.io", "portforward.k8s.io"]);
    let is_tunnel = socket.selected_protocol().is_some_and(|p| p == TUNNEL);
    if ports.len() > MAX_PORTS || ports.contains(&0) {
        return Err(refuse(
            StatusCode::BAD_REQUEST,
            format!("query parameter \"port\": expected at most {MAX_PORTS} ports from 1 to 65535"),
        ));
    }
    if !is_tunnel && ports.is_empty() {
        return Err(refuse(StatusCode::BAD_REQUEST, "query parameter \"port\" is required"));
    }
    let (upstream, _) =
        dial(&url, &[HeaderValue::from_static("portforward.k8s.io")]).await.map_err(|e| refuse(StatusCode::INTERNAL_SERVER_ERROR, e))?;
    Ok(socket.on_upgrade(move |socket| async move {
        let result = if is_tunnel { tunnel(socket, upstream).await } else { bridge_ports(socket, upstream, ports).await };
        if let Err(error) = result {
            tracing::debug!(%error, "a port-forward ended early");
        }
    }))
}

async fn bridge_ports(socket: WebSocket, upstream: Upstream, ports: Vec<u16>) -> Result<(), Ended> {
    let (read, write) = tokio::io::split(upstream);
    let mut writer = Writer::new(write);
    let (mut sink, source) = socket.split();
    let mut pairs = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let (text, request_id) = (port.to_string(), index.to_string());
        let Ok(data_channel) = u8::try_from(index * 2) else { break };
        for (channel, name) in [(data_channel + 1, "error"), (data_channel, "data")] {
            let stream = writer.open(&[("streamtype", name), ("port", &text), ("requestid", &request_id)]).await?;
            if name == "error" {
                // This side sends nothing on it; the runtime waits for its end.
                writer.finish(stream).await?;
            }
            pairs.push(Pair { channel, stream });
        }
        // Each channel begins with its port.
        for channel in [data_channel, data_channel + 1] {
            let [low, high] = port.to_le_bytes();
            sink.send(Message::Binary(Bytes::copy_from_slice(&[channel, low, high]))).await?;
        }
    }
    pump(sink, source, Reader::new(read), writer, pairs, Form::BINARY).await
}

/// The client speaks SPDY inside the messages: unwrap one way, wrap the other.
async fn tunnel(socket: WebSocket, upstream: Upstream) -> Result<(), Ended> {
    let (mut read, mut write) = tokio::io::split(upstream);
    let (mut sink, mut source) = socket.split();
    let outward = async {
        let mut buffer = vec![0_u8; 32 << 10];
        loop {
            let length = read.read(&mut buffer).await?;
            if length == 0 {
                let _ = sink.send(goodbye()).await;
                return Ok(());
            }
            sink.send(Message::Binary(Bytes::copy_from_slice(&buffer[..length]))).await?;
        }
    };
    let inward = async {
        while let Some(Ok(message)) = source.next().await {
            match message {
                Message::Binary(data) => write.write_all(&data).await?,
                Message::Close(_) => break,
                _ => {}
            }
        }
        Ok(())
    };
    tokio::select! {
        result = outward => result,
        result = inward => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conformance_the_oldest_form_tells_failures_only() {
        let form = |protocol: &'static str| Form::of(Some(&HeaderValue::from_static(protocol)));
        assert!(form("channel.k8s.io").plain_status && Form::of(None).plain_status);
        assert_eq!((form("v4.channel.k8s.io"), form("v5.channel.k8s.io")), (Form::BINARY, Form::BINARY));
        assert_eq!(plain_status(br#"{"status": "Success"}"#), None);
        assert_eq!(plain_status(br#"{"status": "Failure", "message": "exit code 7"}"#).as_deref(), Some("exit code 7"));
        assert_eq!(plain_status(b""), None);
        let base64 = form("v4.base64.channel.k8s.io");
        assert_eq!(base64.encode(STDOUT, b"hi"), Message::Text("1aGk=".into()));
        assert_eq!(base64.decode("0aGk=".into()), Some((STDIN, "hi".into())));
        assert_eq!((base64.decode("x".into()), base64.decode(Bytes::new()), base64.decode("0!".into())), (None, None, None));
        assert_eq!(Form::BINARY.decode(Bytes::from_static(&[0, b'a'])), Some((STDIN, "a".into())));
    }
}
