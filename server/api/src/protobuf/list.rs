//! Lists, encoded item by item: the encoded items are held in memory, not their values.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::tables::Message;
use super::{MAGIC, ProtobufError, encode, message_of, wire};
use crate::gvk::GroupVersionKind;

/// Bytes of items that make one piece.
const PIECE_BYTES: usize = 128 << 10;

/// Makes the protobuf form of a list. Every list has its metadata as field 1 and its items as field 2.
pub struct ListEncoder {
    item: Message,
    pieces: Vec<Bytes>,
    piece: Vec<u8>,
    bytes: usize,
}

impl ListEncoder {
    /// A list of objects of the kind `item`.
    ///
    /// # Errors
    /// The kind has no protobuf form.
    pub fn new(item: &GroupVersionKind) -> Result<ListEncoder, ProtobufError> {
        let item = message_of(item).ok_or_else(|| ProtobufError::Kind(item.to_string()))?;
        Ok(ListEncoder { item, pieces: Vec::new(), piece: Vec::new(), bytes: 0 })
    }

    /// The message of an item.
    ///
    /// # Errors
    /// Its JSON does not fit its kind.
    pub fn item(&self, object: &Map<String, Value>) -> Result<Vec<u8>, ProtobufError> {
        let mut message = Vec::with_capacity(1024);
        encode::message(object, self.item, 1, &mut message)?;
        Ok(message)
    }

    /// Adds the message of an item.
    pub fn push(&mut self, message: &[u8]) {
        wire::put_bytes(&mut self.piece, 2, message);
        if self.piece.len() >= PIECE_BYTES {
            self.cut();
        }
    }

    /// The list of `kind` in `api_version`, in pieces.
    ///
    /// # Errors
    /// The metadata cannot be encoded as ListMeta.
    pub fn finish(mut self, api_version: &str, kind: &str, metadata: &Map<String, Value>) -> Result<Vec<Bytes>, ProtobufError> {
        self.cut();
        let list_meta =
            Message::named("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta").ok_or_else(|| ProtobufError::Kind(kind.to_owned()))?;
        let mut meta = Vec::with_capacity(64);
        encode::message(metadata, list_meta, 1, &mut meta)?;
        let mut first = Vec::with_capacity(meta.len() + 8);
        wire::put_bytes(&mut first, 1, &meta);
        let mut type_meta = Vec::with_capacity(64);
        wire::put_bytes(&mut type_meta, 1, api_version.as_bytes());
        wire::put_bytes(&mut type_meta, 2, kind.as_bytes());
        let mut head = Vec::with_capacity(type_meta.len() + first.len() + 32);
        head.extend_from_slice(MAGIC);
        wire::put_bytes(&mut head, 1, &type_meta);
        wire::put_bytes_head(&mut head, 2, first.len() + self.bytes);
        head.extend_from_slice(&first);
        let mut tail = Vec::with_capacity(8);
        wire::put_bytes(&mut tail, 3, b"");
        wire::put_bytes(&mut tail, 4, b"");
        let mut pieces = Vec::with_capacity(self.pieces.len() + 2);
        pieces.push(head.into());
        pieces.append(&mut self.pieces);
        pieces.push(tail.into());
        Ok(pieces)
    }

    fn cut(&mut self) {
        if !self.piece.is_empty() {
            self.bytes += self.piece.len();
            self.pieces.push(std::mem::take(&mut self.piece).into());
        }
    }
}
