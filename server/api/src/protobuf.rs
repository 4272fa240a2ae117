//! Kubernetes' protobuf format of API objects, to and from JSON values.
//!
//! Go clients send `application/vnd.kubernetes.protobuf`: the magic bytes `k8s\0` and a `runtime.Unknown` message that
//! names the kind and holds the object's own message. Tables of field numbers, generated from published definitions, drive
//! both directions; there are no types. What a message decodes to is what Go's JSON would have shown of it: fields that Go
//! writes although they are zero are dropped where its JSON omits them. Kinds without a table (custom resources, Tables)
//! have no protobuf form. No input makes it panic or nest without bound.
//!
//! <https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding>

mod decode;
mod encode;
mod generated;
mod list;
mod special;
mod tables;
mod wire;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

pub use self::list::ListEncoder;
use self::tables::{Message, Shape, Target};
use self::wire::Reader;
use crate::gvk::{GroupVersion, GroupVersionKind};
use crate::schema::{self, Decoded, FieldValidation};
use crate::status::Status;

/// The media type.
pub const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// The media type of a watch's frames.
pub const WATCH_CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf;stream=watch";

/// What every encoded object starts with.
const MAGIC: &[u8; 4] = b"k8s\0";
/// How deep messages may nest: more than any object, less than the stack bears.
const MAX_DEPTH: usize = 200;

/// Why bytes are no object, or an object has no bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// No bytes at all.
    #[error("empty data")]
    Empty,
    /// The magic bytes are missing.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Prefix,
    /// The bytes end within a field.
    #[error("unexpected EOF")]
    Truncated,
    /// A number has more bytes than 64 bits need.
    #[error("proto: integer overflow")]
    Overflow,
    /// A field tag that means nothing.
    #[error("proto: illegal tag {0}")]
    Tag(u64),
    /// A field of another wire type than its definition's.
    #[error("proto: wrong wireType = {wire} for field {field}")]
    WireType {
        /// The wire type that was met.
        wire: u8,
        /// The field.
        field: &'static str,
    },
    /// Messages within messages without end.
    #[error("exceeded max depth")]
    Depth,
    /// A value that JSON cannot show, or a JSON value that does not fit its type.
    #[error("{field}: {problem}")]
    Value {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The envelope says that the content is encoded in some way.
    #[error("unsupported content encoding {0:?}")]
    Encoding(String),
    /// There is no message of this kind.
    #[error("no protobuf form of {0}")]
    Kind(String),
}

/// Whether objects of a kind have a protobuf form.
pub fn knows(gvk: &GroupVersionKind) -> bool {
    message_of(gvk).is_some()
}

fn message_of(gvk: &GroupVersionKind) -> Option<Message> {
    if let Some(ty) = schema::type_of(&gvk.group, &gvk.version, &gvk.kind) {
        return Message::named(ty.name());
    }
    // Made by the server only, hence not in the published schema.
    let partial = gvk.group == "meta.k8s.io" && matches!(gvk.kind.as_ref(), "PartialObjectMetadata" | "PartialObjectMetadataList");
    if partial { Message::named(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{}", gvk.kind)) } else { None }
}

/// The envelope: the kind that it names, and the object's message.
struct Envelope<'a> {
    api_version: String,
    kind: String,
    raw: &'a [u8],
}

fn open(body: &[u8]) -> Result<Envelope<'_>, ProtobufError> {
    if body.is_empty() {
        return Err(ProtobufError::Empty);
    }
    let content = body.strip_prefix(MAGIC).ok_or(ProtobufError::Prefix)?;
    let mut envelope = Envelope { api_version: String::new(), kind: String::new(), raw: &[] };
    let mut reader = Reader::new(content);
    while let Some((number, item)) = reader.next()? {
        match number {
            1 => {
                let mut reader = Reader::new(item.bytes("typeMeta")?);
                while let Some((number, item)) = reader.next()? {
                    match number {
                        1 => envelope.api_version = item.text("apiVersion")?,
                        2 => envelope.kind = item.text("kind")?,
                        _ => {}
                    }
                }
            }
            2 => envelope.raw = item.bytes("raw")?,
            3 => {
                let encoding = item.text("contentEncoding")?;
                if !encoding.is_empty() {
                    return Err(ProtobufError::Encoding(encoding));
                }
            }
            _ => {}
        }
    }
    Ok(envelope)
}

/// Decodes an object of the kind that its envelope names; `apiVersion` and `kind` are set from there.
pub fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = open(body)?;
    let unknown = || ProtobufError::Kind(format!("{}, Kind={}", envelope.api_version, envelope.kind));
    let gvk = GroupVersion::parse(&envelope.api_version).ok_or_else(unknown)?.with_kind(envelope.kind.clone());
    let mut object = raw_object(envelope.raw, &gvk)?;
    crate::meta::set_gvk(&mut object, &gvk);
    Ok(object)
}

fn raw_object(raw: &[u8], gvk: &GroupVersionKind) -> Result<Value, ProtobufError> {
    let message = message_of(gvk).ok_or_else(|| ProtobufError::Kind(gvk.to_string()))?;
    let mut object = Map::new();
    decode::message(raw, message, 0, &mut object)?;
    Ok(Value::Object(object))
}

/// Decodes a request body that should be of one of the kinds `expected`, as `schema::decode_any` does it with JSON.
pub(crate) fn decode_any(body: &[u8], expected: &[GroupVersionKind], validation: FieldValidation) -> Result<Decoded, Status> {
    let Some(default) = expected.first() else {
        return Err(Status::internal("no kind expected"));
    };
    let unrecognized = |error: &str| {
        let summary = schema::summary(body);
        Status::bad_request(format!("the object provided is unrecognized (must be of type {}): {error} ({summary})", default.kind))
    };
    let envelope = open(body).map_err(|e| unrecognized(&e.to_string()))?;
    let Some(mut group_version) = GroupVersion::parse(&envelope.api_version) else {
        return Err(unrecognized(&format!("unexpected GroupVersion string: {}", envelope.api_version)));
    };
    if envelope.api_version.is_empty() {
        group_version = default.group_version();
    }
    let kind = if envelope.kind.is_empty() { default.kind.clone() } else { envelope.kind.clone().into() };
    let given = group_version.with_kind(kind);
    schema::settle(&given, expected, validation, |ty| {
        let object = raw_object(envelope.raw, &given).map_err(|e| e.to_string())?;
        schema::conform_value(object, ty)
    })
}

/// Encodes an object of the kind that it names.
pub fn encode(object: &Value) -> Result<Vec<u8>, ProtobufError> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let unknown = || ProtobufError::Kind(format!("{api_version}, Kind={kind}"));
    let gvk = GroupVersion::parse(api_version).ok_or_else(unknown)?.with_kind(kind.to_owned());
    let message = message_of(&gvk).ok_or_else(unknown)?;
    let empty = Map::new();
    let mut raw = Vec::with_capacity(512);
    encode::message(object.as_object().unwrap_or(&empty), message, 0, &mut raw)?;
    let mut type_meta = Vec::with_capacity(64);
    wire::put_bytes(&mut type_meta, 1, api_version.as_bytes());
    wire::put_bytes(&mut type_meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(raw.len() + type_meta.len() + 24);
    out.extend_from_slice(MAGIC);
    wire::put_bytes(&mut out, 1, &type_meta);
    wire::put_bytes(&mut out, 2, &raw);
    wire::put_bytes(&mut out, 3, b"");
    wire::put_bytes(&mut out, 4, b"");
    Ok(out)
}

/// A watch event, framed by its length: its type, and an object as [`encode`] made it.
pub fn watch_frame(event_type: &str, object: &[u8]) -> Vec<u8> {
    let mut extension = Vec::with_capacity(object.len() + 8);
    wire::put_bytes(&mut extension, 1, object);
    let mut event = Vec::with_capacity(extension.len() + 32);
    wire::put_bytes(&mut event, 1, event_type.as_bytes());
    wire::put_bytes(&mut event, 2, &extension);
    let mut frame = Vec::with_capacity(event.len() + 4);
    let length = u32::try_from(event.len()).expect("invariant: objects are smaller than 4 GiB");
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&event);
    frame
}
