//! A watch: the body of a response, cut into lines, each one event.

use bytes::{Buf, Bytes, BytesMut};
use futures::Stream;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::{Body, Error, Status, decode::from_text};

/// One event of a watch.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent<T> {
    /// The object was added to the selection.
    Added(T),
    /// The object changed.
    Modified(T),
    /// The object left the selection or was deleted; its last content.
    Deleted(T),
    /// Nothing else happened up to this resourceVersion.
    Bookmark {
        /// Up to where.
        resource_version: String,
    },
    /// The watch cannot go on.
    Error(Status),
}

/// Longest line we accept: an object may be 1.5 MiB in the store, and an event carries little beside it.
const MAX_LINE_BYTES: usize = 16 << 20;

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type")]
    type_: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BookmarkObject {
    metadata: BookmarkMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BookmarkMeta {
    resource_version: String,
}

pub(crate) fn decode_event<T: DeserializeOwned>(line: &[u8]) -> Result<WatchEvent<T>, Error> {
    let decode = |source| Error::Decode { what: "a watch event".to_owned(), source };
    let frame: Frame<'_> = serde_json::from_slice(line).map_err(decode)?;
    let object = frame.object.get();
    Ok(match frame.type_ {
        "ADDED" => WatchEvent::Added(from_text(object).map_err(decode)?),
        "MODIFIED" => WatchEvent::Modified(from_text(object).map_err(decode)?),
        "DELETED" => WatchEvent::Deleted(from_text(object).map_err(decode)?),
        "BOOKMARK" => {
            let bookmark: BookmarkObject = serde_json::from_str(object).map_err(decode)?;
            WatchEvent::Bookmark { resource_version: bookmark.metadata.resource_version }
        }
        "ERROR" => {
            WatchEvent::Error(serde_json::from_str(object).unwrap_or_else(|_| Status { message: object.to_owned(), ..Status::default() }))
        }
        other => return Err(Error::Body(format!("unknown watch event type {other:?}"))),
    })
}

/// Cuts a body into lines. Ends with `Ok(None)` when the body ends.
pub(crate) struct Lines {
    body: Body,
    buffer: BytesMut,
    scanned: usize,
}

impl Lines {
    pub(crate) fn new(body: Body) -> Self {
        Self { body, buffer: BytesMut::new(), scanned: 0 }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(at) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.scanned + at).freeze();
                self.buffer.advance(1);
                self.scanned = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(Some(line));
            }
            self.scanned = self.buffer.len();
            if self.buffer.len() > MAX_LINE_BYTES {
                return Err(Error::Body("a watch event is too long".to_owned()));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(Error::Body(error.to_string())),
                None if self.buffer.is_empty() => return Ok(None),
                None => {
                    self.scanned = 0;
                    let rest = self.buffer.split().freeze();
                    return Ok(Some(rest).filter(|line| !line.iter().all(u8::is_ascii_whitespace)));
                }
            }
        }
    }
}

pub(crate) fn events<T: DeserializeOwned + Send + 'static>(
    lines: Lines,
) -> impl Stream<Item = Result<WatchEvent<T>, Error>> + Send + Unpin {
    Box::pin(futures::stream::unfold(Some(lines), |lines| async move {
        let mut lines = lines?;
        match lines.next().await {
            Ok(Some(line)) => match decode_event(&line) {
                Ok(event) => Some((Ok(event), Some(lines))),
                Err(error) => Some((Err(error), None)),
            },
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    }))
}
