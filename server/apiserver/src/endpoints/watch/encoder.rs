//! Events in the form that the client asked for. The common form is shared by all watchers and copied by none.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use serde_json::{Value, json};
use trireme_api::protobuf;
use trireme_api::status::Status;

use crate::catalog::rows::{Row, View};
use crate::catalog::transform;
use crate::endpoints::verbs::read::is_as_cached;
use crate::error::Answer;
use crate::http::negotiate::{Encoding, Form, Transform};
use crate::http::query::IncludeObject;
use crate::storage::cache::frames::Shape;
use crate::storage::cache::{Cached, Change, EventType, FRAME_TAIL};
use crate::storage::encode;

/// Encodes the events of one watch.
pub struct Encoder {
    view: View,
    row: Arc<Row>,
    version: String,
    form: Form,
    include: IncludeObject,
    /// Whether the shared frames can be sent as they are.
    shared: bool,
    /// Whether the metadata of the cached object is all that is sent, in JSON.
    only_metadata: bool,
    /// The key under which frames of this form are shared. None for Tables: their columns are sent once, and the ages in them change.
    shape: Option<Shape>,
    /// Whether a Table has shown its columns.
    columns_sent: bool,
}

impl Encoder {
    /// Events of `view` in `version`.
    pub fn new(view: View, row: Arc<Row>, version: &str, form: Form, include: IncludeObject) -> Encoder {
        let json_as_cached = form.encoding == Encoding::Json && is_as_cached(&view, &row, version);
        let shared = form.transform == Transform::None && json_as_cached;
        let only_metadata = json_as_cached && matches!(form.transform, Transform::PartialMetadata | Transform::PartialMetadataList);
        let gvk = view.resource.gvk(version).unwrap_or_else(|| row.storage_gvk());
        let shape = (form.transform != Transform::Table).then(|| Shape {
            protobuf: form.encoding == Encoding::Protobuf,
            metadata_only: (form.transform != Transform::None).then(|| form.meta_api_version()),
            api_version: gvk.api_version().into(),
        });
        Encoder { view, row, version: version.to_owned(), form, include, shared, only_metadata, shape, columns_sent: false }
    }

    /// An event of an object.
    pub fn event(&mut self, event_type: EventType, object: &Cached) -> Answer<Bytes> {
        if self.shared {
            return Ok(object.frame(event_type).unwrap_or_else(|| frame(event_type.frame_head(), &object.json())));
        }
        if self.only_metadata {
            let metadata = object.metadata_json().map_err(Status::internal)?;
            let mut json = BytesMut::with_capacity(metadata.len().saturating_add(128));
            transform::push_partial_metadata(&mut json, &metadata, self.form);
            return Ok(frame(event_type.frame_head(), &json));
        }
        let value = self.transformed(object)?;
        self.encode(event_type.as_str(), &value)
    }

    /// An event of a change, as it is to this watcher.
    pub fn change(&mut self, event_type: EventType, object: &Arc<Cached>, change: &Change) -> Answer<Bytes> {
        // An object that left the selection is shown with its old content, which other watchers do not see.
        let is_common = !self.shared && Arc::ptr_eq(object, &change.object);
        match self.shape.clone().filter(|_| is_common) {
            Some(shape) => change.frames.get_or_make(event_type, &shape, || self.event(event_type, object)),
            None => self.event(event_type, object),
        }
    }

    fn transformed(&mut self, object: &Cached) -> Answer<Value> {
        let value: Value = serde_json::from_slice(&object.json()).map_err(Status::internal)?;
        let value = transform::to_version(&self.view, &self.version, value)?;
        Ok(match self.form.transform {
            Transform::Table => {
                let metadata = json!({"resourceVersion": object.revision.to_string()});
                let columns = !std::mem::replace(&mut self.columns_sent, true);
                transform::table_of(&self.view, &[value], metadata, self.form, self.include, columns, Timestamp::now())
            }
            Transform::None => value,
            _ => transform::partial_metadata(&value, self.form),
        })
    }

    fn encode(&self, event_type: &str, object: &Value) -> Answer<Bytes> {
        if self.form.encoding == Encoding::Protobuf {
            let object = protobuf::encode(object).map_err(Status::internal)?;
            return Ok(protobuf::watch_frame(event_type, &object).into());
        }
        Ok(frame(format!("{{\"type\":\"{event_type}\",\"object\":").as_bytes(), &encode::object_json(object)))
    }

    /// The announcement that everything up to `position` has been sent; `initial_end` says that this was the state at the start.
    pub fn bookmark(&self, position: i64, initial_end: bool) -> Answer<Bytes> {
        let mut metadata = json!({"resourceVersion": position.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let gvk = self.view.resource.gvk(&self.version).unwrap_or_else(|| self.row.storage_gvk());
        let meta_version = self.form.meta_api_version();
        let object = match self.form.transform {
            Transform::None => json!({"kind": &*gvk.kind, "apiVersion": gvk.api_version(), "metadata": metadata}),
            Transform::Table => {
                json!({"kind": "Table", "apiVersion": meta_version, "metadata": metadata, "columnDefinitions": null, "rows": []})
            }
            _ => json!({"kind": "PartialObjectMetadata", "apiVersion": meta_version, "metadata": metadata}),
        };
        self.encode("BOOKMARK", &object)
    }

    /// The event that ends a stream.
    pub fn error(&self, status: &Status) -> Bytes {
        if self.form.encoding == Encoding::Protobuf {
            let object = serde_json::to_value(status).ok().and_then(|v| protobuf::encode(&v).ok());
            return protobuf::watch_frame("ERROR", &object.unwrap_or_default()).into();
        }
        frame(b"{\"type\":\"ERROR\",\"object\":", &serde_json::to_vec(status).unwrap_or_default())
    }
}

fn frame(head: &[u8], json: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(head.len().saturating_add(json.len()).saturating_add(FRAME_TAIL.len()));
    frame.put_slice(head);
    frame.put_slice(json);
    frame.put_slice(FRAME_TAIL);
    frame.freeze()
}
