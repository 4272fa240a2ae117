//! One object as the cache holds it: its JSON, encoded once, and the small index that selectors need.
//!
//! The JSON lies inside the watch frame of its natural event type, so that object, list item and watch event are slices of
//! one shared buffer and nothing is encoded twice (D5).

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::value::RawValue;

use crate::storage::cache::item::Item;

/// What opens every payload that this server writes: kind and apiVersion come first, then the metadata.
const METADATA: &[u8] = b"\"metadata\":{";

/// How an event is called on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// The object is new to the watcher.
    Added,
    /// The object changed.
    Modified,
    /// The object left: deleted, or no longer selected.
    Deleted,
}

impl EventType {
    /// Upstream's name.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Added => "ADDED",
            EventType::Modified => "MODIFIED",
            EventType::Deleted => "DELETED",
        }
    }

    /// The bytes of a frame before the object.
    pub fn frame_head(self) -> &'static [u8] {
        match self {
            EventType::Added => b"{\"type\":\"ADDED\",\"object\":",
            EventType::Modified => b"{\"type\":\"MODIFIED\",\"object\":",
            EventType::Deleted => b"{\"type\":\"DELETED\",\"object\":",
        }
    }
}

/// The bytes of a frame after the object.
pub const FRAME_TAIL: &[u8] = b"}\n";

/// An object of the storage version, ready to be sent.
#[derive(Debug)]
pub struct Cached {
    frame: Bytes,
    frame_type: EventType,
    /// Where `"metadata":{` begins inside the object.
    metadata_at: usize,
    /// Length of the resourceVersion member that was spliced in.
    spliced: usize,
    /// Revision of this state of the object.
    pub revision: i64,
    /// Namespace, or empty.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
    /// Labels, sorted by key.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// Values of the selectable fields, in the order of the row's list of them.
    pub fields: Box<[Box<str>]>,
    /// The object as an item of a protobuf list in the storage version.
    pub item: Item,
}

/// A payload that is no object as this server writes them.
#[derive(Debug, thiserror::Error)]
#[error("stored payload holds no metadata")]
pub struct NoMetadata;

impl Cached {
    /// Splices the resourceVersion into `payload` and wraps it in the frame of `frame_type`.
    pub fn new(
        payload: &[u8],
        revision: i64,
        frame_type: EventType,
        namespace: &str,
        name: &str,
        labels: Box<[(Box<str>, Box<str>)]>,
        fields: Box<[Box<str>]>,
    ) -> Result<Cached, NoMetadata> {
        let metadata_at = find(payload, METADATA).ok_or(NoMetadata)?;
        let at = metadata_at + METADATA.len();
        let (before, after) = payload.split_at(at);
        let member = if after.first() == Some(&b'}') {
            format!("\"resourceVersion\":\"{revision}\"")
        } else {
            format!("\"resourceVersion\":\"{revision}\",")
        };
        let head = frame_type.frame_head();
        let mut frame = BytesMut::with_capacity(head.len() + payload.len() + member.len() + FRAME_TAIL.len());
        frame.put_slice(head);
        frame.put_slice(before);
        frame.put_slice(member.as_bytes());
        frame.put_slice(after);
        frame.put_slice(FRAME_TAIL);
        Ok(Cached {
            frame: frame.freeze(),
            frame_type,
            metadata_at,
            spliced: member.len(),
            revision,
            namespace: namespace.into(),
            name: name.into(),
            labels,
            fields,
            item: Item::default(),
        })
    }

    /// The same content under another revision and event type: what a deletion shows.
    pub fn restamped(&self, revision: i64, frame_type: EventType) -> Cached {
        let object = self.json();
        let at = self.metadata_at + METADATA.len();
        let mut payload = Vec::with_capacity(object.len());
        payload.extend_from_slice(&object[..at]);
        payload.extend_from_slice(&object[at + self.spliced..]);
        Cached::new(&payload, revision, frame_type, &self.namespace, &self.name, self.labels.clone(), self.fields.clone())
            .expect("invariant: a cached object has metadata")
    }

    /// The same state of the object in another version.
    pub fn converted(&self, payload: &[u8], labels: Box<[(Box<str>, Box<str>)]>, fields: Box<[Box<str>]>) -> Result<Cached, NoMetadata> {
        Cached::new(payload, self.revision, self.frame_type, &self.namespace, &self.name, labels, fields)
    }

    /// The object's JSON, with its resourceVersion.
    pub fn json(&self) -> Bytes {
        self.frame.slice(self.frame_type.frame_head().len()..self.frame.len() - FRAME_TAIL.len())
    }

    /// The object's JSON without the opening brace, kind and apiVersion: a list item is `{` and this. Built-in lists
    /// carry kind and apiVersion only once.
    pub fn json_from_metadata(&self) -> Bytes {
        let start = self.frame_type.frame_head().len() + self.metadata_at;
        self.frame.slice(start..self.frame.len() - FRAME_TAIL.len())
    }

    /// The JSON of the object's metadata, found without parsing it.
    pub fn metadata_json(&self) -> Result<Bytes, serde_json::Error> {
        let from_metadata = self.json_from_metadata();
        let rest = &from_metadata[METADATA.len() - 1..];
        let metadata = serde_json::Deserializer::from_slice(rest).into_iter::<&RawValue>().next().transpose()?;
        let length = metadata.map_or(0, |metadata| metadata.get().len());
        Ok(from_metadata.slice(METADATA.len() - 1..METADATA.len() - 1 + length))
    }

    /// The shared frame if it has this type.
    pub fn frame(&self, event_type: EventType) -> Option<Bytes> {
        (event_type == self.frame_type).then(|| self.frame.clone())
    }

    /// Bytes held.
    pub fn size(&self) -> usize {
        self.frame.len() + 256
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.binary_search_by(|(k, _)| (**k).cmp(key)).ok().map(|at| &*self.labels[at].1)
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn splices_once_and_restamps() {
        let payload = br#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"},"spec":{"metadata":{"x":1}}}"#;
        let o = Cached::new(payload, 7, EventType::Added, "n", "a", Box::new([]), Box::new([])).unwrap();
        assert_eq!(
            o.json(),
            &br#"{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"7","name":"a"},"spec":{"metadata":{"x":1}}}"#[..]
        );
        assert_eq!(o.metadata_json().unwrap(), &br#"{"resourceVersion":"7","name":"a"}"#[..]);
        assert_eq!(o.json_from_metadata(), &br#""metadata":{"resourceVersion":"7","name":"a"},"spec":{"metadata":{"x":1}}}"#[..]);
        let gone = o.restamped(1234, EventType::Deleted);
        let frame = String::from_utf8(gone.frame(EventType::Deleted).unwrap().to_vec()).unwrap();
        assert!(
            frame.starts_with(
                r#"{"type":"DELETED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"1234","name":"a"}"#
            )
        );
        assert!(frame.ends_with("}}}}\n"));
        assert!(gone.frame(EventType::Added).is_none());
    }
}
