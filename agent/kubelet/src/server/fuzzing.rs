//! The streams' decoders on random input.

use bytes::Bytes;
use futures::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::{spdy::Reader, websocket};

pub(crate) async fn spdy(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    while let Ok(Some(_)) = reader.next().await {}
}

pub(crate) async fn websocket(bytes: &[u8]) {
    websocket::decode_in_all_forms(Bytes::copy_from_slice(bytes));
    let (ours, mut theirs) = tokio::io::duplex(bytes.len().max(1) + 4096);
    if theirs.write_all(bytes).await.is_err() || theirs.shutdown().await.is_err() {
        return;
    }
    let limits = WebSocketConfig::default().max_message_size(Some(websocket::MAX_MESSAGE_BYTES));
    let mut socket = WebSocketStream::from_raw_socket(ours, Role::Server, Some(limits)).await;
    // Answers to pings go into the buffer of the other side, which has room for them.
    while let Some(Ok(message)) = socket.next().await {
        websocket::decode_in_all_forms(message.into_data());
    }
}
