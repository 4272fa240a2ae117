//! The body of a list, in the form that was asked for.
//!
//! It is made piece by piece while the client reads: a large list is never held as values, and other requests run between two
//! pieces. A protobuf list names its length first, so its items are held as encoded messages.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, header};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use trireme_api::gvk::GroupVersionKind;
use trireme_api::protobuf::{self, ListEncoder};
use trireme_api::status::Status;

use crate::catalog::rows::View;
use crate::catalog::transform;
use crate::catalog::unmanaged::Unmanaged;
use crate::error::Answer;
use crate::http::negotiate::{Encoding, Form, Transform};
use crate::http::query::IncludeObject;
use crate::http::respond::{self, Body, BoxError};
use crate::storage::cache::Cached;
use crate::storage::encode;

/// A list is sent in pieces of about this size.
const PIECE_BYTES: usize = 128 * 1024;
/// Objects encoded in a row before other tasks get their turn.
const ENCODED_AT_ONCE: usize = 64;

/// How the objects of a list are shown.
pub struct ListBody {
    /// The resource as it was addressed.
    pub view: View,
    /// The version that was asked for.
    pub version: String,
    /// The form that was asked for.
    pub form: Form,
    /// What rows of a Table show of their object.
    pub include: IncludeObject,
    /// Whether the cached bytes are in this version.
    pub as_cached: bool,
}

// === impl ListBody ===

impl ListBody {
    /// The response with `objects` and the list's `metadata`.
    pub async fn response(self, objects: Vec<Arc<Cached>>, metadata: Value) -> Answer<Response<Body>> {
        match (self.form.transform, self.form.encoding) {
            (_, Encoding::Yaml) => self.whole(&objects, &metadata),
            (Transform::None, Encoding::Json) if self.as_cached => {
                let is_typed = self.is_typed();
                let head = self.head(&metadata);
                json_pieces(head, objects, move |object, out| {
                    if is_typed {
                        out.extend_from_slice(b"{");
                        out.extend_from_slice(&object.json_from_metadata());
                    } else {
                        out.extend_from_slice(&object.json());
                    }
                    Ok(())
                })
            }
            (Transform::None | Transform::PartialMetadata | Transform::PartialMetadataList, Encoding::Protobuf)
                if protobuf::knows(&self.item_gvk()) =>
            {
                self.protobuf(objects, &metadata).await
            }
            (Transform::Table, Encoding::Json) if self.as_cached && self.is_typed() && self.include != IncludeObject::Object => {
                let head = self.head(&metadata);
                let now = Timestamp::now();
                json_pieces(head, objects, move |object, out| self.table_row(object, now, out))
            }
            (Transform::PartialMetadata | Transform::PartialMetadataList, Encoding::Json) if self.as_cached => {
                let head = self.head(&metadata);
                json_pieces(head, objects, move |object, out| {
                    let metadata = object.metadata_json().map_err(Status::internal)?;
                    transform::push_partial_metadata(out, &metadata, self.form);
                    Ok(())
                })
            }
            _ => {
                let head = self.head(&metadata);
                let now = Timestamp::now();
                json_pieces(head, objects, move |object, out| {
                    out.extend_from_slice(&encode::object_json(&self.item(object, now)?));
                    Ok(())
                })
            }
        }
    }

    fn is_typed(&self) -> bool {
        self.view.definition.schema.is_typed()
    }

    /// The kind of the items.
    fn item_gvk(&self) -> GroupVersionKind {
        match (self.form.transform, self.view.resource.gvk(&self.version)) {
            (Transform::None, Some(gvk)) => gvk,
            (Transform::None, None) => self.view.resource.storage_gvk(),
            _ => GroupVersionKind::new("meta.k8s.io", if self.form.v1beta1 { "v1beta1" } else { "v1" }, "PartialObjectMetadata"),
        }
    }

    /// apiVersion and kind of the list.
    fn list_type(&self) -> (String, &str) {
        match self.form.transform {
            Transform::None => (self.item_gvk().api_version(), &self.view.resource.list_kind),
            Transform::Table => (self.form.meta_api_version().to_owned(), "Table"),
            _ => (self.form.meta_api_version().to_owned(), "PartialObjectMetadataList"),
        }
    }

    /// One item as a value.
    fn item(&self, object: &Cached, now: Timestamp) -> Answer<Value> {
        let value = serde_json::from_slice(&object.json()).map_err(Status::internal)?;
        let mut value = transform::to_version(&self.view, &self.version, value)?;
        Ok(match self.form.transform {
            Transform::None => {
                if self.is_typed() {
                    transform::strip_type(&mut value);
                }
                value
            }
            Transform::Table => transform::table_row(&self.view, &value, self.form, self.include, now),
            _ => transform::partial_metadata(&value, self.form),
        })
    }

    /// A row of a Table of a built-in kind: its metadata is copied as it is.
    fn table_row(&self, object: &Cached, now: Timestamp, out: &mut BytesMut) -> Answer<()> {
        let json = object.json();
        let unmanaged = Unmanaged::parse(&json).map_err(Status::internal)?;
        let row = transform::table_row(&self.view, &unmanaged.object, self.form, IncludeObject::None, now);
        let row = serde_json::to_vec(&row).map_err(Status::internal)?;
        if self.include == IncludeObject::None {
            out.extend_from_slice(&row);
            return Ok(());
        }
        out.extend_from_slice(row.strip_suffix(b"}").unwrap_or(&row));
        out.extend_from_slice(b",\"object\":");
        transform::push_partial_metadata(out, unmanaged.metadata.as_bytes(), self.form);
        out.extend_from_slice(b"}");
        Ok(())
    }

    /// The JSON before the first item.
    fn head(&self, metadata: &Value) -> Vec<u8> {
        let (api_version, kind) = self.list_type();
        let mut list = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
        if self.form.transform == Transform::Table {
            list["columnDefinitions"] = transform::column_definitions(&self.view);
        }
        let mut head = encode::object_json(&list);
        head.pop();
        head.extend_from_slice(if self.form.transform == Transform::Table { b",\"rows\":[" } else { b",\"items\":[" });
        head
    }

    /// All of it as one value: for YAML, which is for people.
    fn whole(&self, objects: &[Arc<Cached>], metadata: &Value) -> Answer<Response<Body>> {
        let now = Timestamp::now();
        let items = objects.iter().map(|object| self.item(object, now)).collect::<Answer<Vec<Value>>>()?;
        let (api_version, kind) = self.list_type();
        let mut list = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
        if self.form.transform == Transform::Table {
            list["columnDefinitions"] = transform::column_definitions(&self.view);
            list["rows"] = Value::Array(items);
        } else {
            list["items"] = Value::Array(items);
        }
        Ok(respond::object(200, Encoding::Yaml, &list))
    }

    async fn protobuf(&self, objects: Vec<Arc<Cached>>, metadata: &Value) -> Answer<Response<Body>> {
        let now = Timestamp::now();
        let empty = Map::new();
        // Objects keep their items in the form that most clients ask for.
        let is_common = self.as_cached && self.form.transform == Transform::None;
        let mut list = ListEncoder::new(&self.item_gvk()).map_err(Status::internal)?;
        for some in objects.chunks(ENCODED_AT_ONCE) {
            for object in some {
                let make = || list.item(self.item(object, now)?.as_object().unwrap_or(&empty)).map_err(|e| Box::new(Status::internal(e)));
                let item = if is_common { object.item.get_or_make(make)? } else { make()?.into() };
                list.push(&item);
            }
            tokio::task::yield_now().await;
        }
        let (api_version, kind) = self.list_type();
        let pieces = list.finish(&api_version, kind, metadata.as_object().unwrap_or(&empty)).map_err(Status::internal)?;
        let length: usize = pieces.iter().map(Bytes::len).sum();
        let mut response = streamed(pieces.into_iter().map(Ok), protobuf::CONTENT_TYPE);
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        Ok(response)
    }
}

/// A JSON list: in one piece if it is small, else streamed. `write` appends one item.
fn json_pieces<W>(head: Vec<u8>, objects: Vec<Arc<Cached>>, write: W) -> Answer<Response<Body>>
where
    W: FnMut(&Cached, &mut BytesMut) -> Answer<()> + Send + 'static,
{
    let total: usize = objects.iter().map(|o| o.size()).sum();
    let mut pieces = Pieces { head, objects: objects.into_iter(), write, first: true, done: false };
    if total < PIECE_BYTES {
        let mut whole = BytesMut::new();
        for piece in pieces.by_ref() {
            whole.extend_from_slice(&piece?);
        }
        return Ok(respond::bytes(200, "application/json", whole.freeze()));
    }
    // An item that cannot be shown breaks the response off: the client must not take a part for the whole.
    let pieces = pieces.map(|piece| piece.map_err(|status| -> BoxError { status }));
    Ok(streamed(pieces, "application/json"))
}

fn streamed(pieces: impl Iterator<Item = Result<Bytes, BoxError>> + Send + 'static, content_type: &'static str) -> Response<Body> {
    let mut response = Response::new(respond::stream(futures::stream::iter(pieces)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

struct Pieces<W> {
    /// What stands before the items; empty once it was sent.
    head: Vec<u8>,
    objects: std::vec::IntoIter<Arc<Cached>>,
    write: W,
    first: bool,
    done: bool,
}

impl<W: FnMut(&Cached, &mut BytesMut) -> Answer<()>> Iterator for Pieces<W> {
    type Item = Answer<Bytes>;

    fn next(&mut self) -> Option<Answer<Bytes>> {
        if self.done {
            return None;
        }
        let mut piece = BytesMut::with_capacity(PIECE_BYTES.min(self.objects.len().saturating_mul(1024).saturating_add(512)));
        piece.extend_from_slice(&std::mem::take(&mut self.head));
        for object in self.objects.by_ref() {
            if !std::mem::take(&mut self.first) {
                piece.extend_from_slice(b",");
            }
            if let Err(status) = (self.write)(&object, &mut piece) {
                self.done = true;
                return Some(Err(status));
            }
            if piece.len() >= PIECE_BYTES {
                return Some(Ok(piece.freeze()));
            }
        }
        piece.extend_from_slice(b"]}\n");
        self.done = true;
        Some(Ok(piece.freeze()))
    }
}
