//! The WebSocket side of exec, attach and port-forward.
//!
//! `v4.channel.k8s.io`: the first byte of a binary message is its channel (0 stdin, 1 stdout, 2 stderr, 3 error, 4 resize).
//! `v5` adds `[255, channel]`, which ends a channel. `SPDY/3.1+portforward.k8s.io` is a whole SPDY connection inside binary messages.
//! Answers to <https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/4006-transition-spdy-to-websockets>.

use axum::{
    RequestExt,
    extract::{
        Request,
        ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code},
    },
    http::{HeaderValue, StatusCode},
    response::Response,
};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::{
    routes::refuse,
    spdy::{Frame, Reader, Writer},
    streams::{Upstream, Wanted, dial},
};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

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
        .map_err(|rejection| refuse(StatusCode::BAD_REQUEST, format!("unable to upgrade: {rejection}")))
}

/// Bridges exec or attach.
pub(crate) async fn remote_command(request: Request, url: String, wanted: Wanted) -> Result<Response, Response> {
    let socket = upgrade(request).await?.protocols(["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"]);
    if socket.selected_protocol().is_none() {
        return Err(refuse(
            StatusCode::FORBIDDEN,
            "unable to upgrade: unable to negotiate protocol: client supports none of [v5.channel.k8s.io v4.channel.k8s.io]",
        ));
    }
    let (upstream, _) =
        dial(&url, &[HeaderValue::from_static("v4.channel.k8s.io")]).await.map_err(|e| refuse(StatusCode::INTERNAL_SERVER_ERROR, e))?;
    Ok(socket.on_upgrade(move |socket| async move {
        if let Err(error) = bridge_command(socket, upstream, wanted).await {
            tracing::debug!(%error, "a stream ended early");
        }
    }))
}

async fn bridge_command(socket: WebSocket, upstream: Upstream, wanted: Wanted) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
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
    sink.send(Message::Binary(Bytes::copy_from_slice(&[first]))).await?;
    pump(sink, source, Reader::new(read), writer, pairs).await
}

/// Moves messages both ways until either side ends.
async fn pump(
    mut sink: SplitSink<WebSocket, Message>,
    mut source: SplitStream<WebSocket>,
    mut reader: Reader<ReadHalf<Upstream>>,
    mut writer: Writer<WriteHalf<Upstream>>,
    pairs: Vec<Pair>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // Pings of the runtime are answered by the half that writes to it.
    let (pings, mut pinged) = tokio::sync::mpsc::channel::<u32>(8);
    let outward = async {
        while let Some(frame) = reader.next().await? {
            match frame {
                Frame::Data { stream, data, .. } if !data.is_empty() => {
                    let Some(pair) = pairs.iter().find(|p| p.stream == stream) else { continue };
                    let mut message = BytesMut::with_capacity(data.len() + 1);
                    message.put_u8(pair.channel);
                    message.put_slice(&data);
                    sink.send(Message::Binary(message.freeze())).await?;
                }
                Frame::Ping(id) => {
                    let _ = pings.try_send(id);
                }
                Frame::GoAway => break,
                Frame::Data { .. } | Frame::Reset { .. } => {}
            }
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
            match (data.first(), data.get(1)) {
                (Some(&CLOSE), Some(channel)) => {
                    if let Some(pair) = pairs.iter().find(|p| p.channel == *channel) {
                        writer.finish(pair.stream).await?;
                    }
                }
                (Some(channel), Some(_)) => {
                    if let Some(pair) = pairs.iter().find(|p| p.channel == *channel) {
                        writer.data(pair.stream, &data[1..]).await?;
                    }
                }
                _ => {}
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

async fn bridge_ports(socket: WebSocket, upstream: Upstream, ports: Vec<u16>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
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
                // Nothing is ever said on it by us; the runtime waits for its end.
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
    pump(sink, source, Reader::new(read), writer, pairs).await
}

/// The client speaks SPDY inside the messages: unwrap one way, wrap the other.
async fn tunnel(socket: WebSocket, upstream: Upstream) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
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
