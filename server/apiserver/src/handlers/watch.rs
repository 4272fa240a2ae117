//! watch: a stream of changes from a revision on.
//!
//! A watcher pulls from the shared window of its resource and sends the shared frames; behind the window it reads the
//! store's history. It is never skipped: what can no longer be read ends the stream with 410.
//! <https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes>

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Response};
use jiff::Timestamp;
use rand::Rng;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use trireme_api::protobuf;
use trireme_api::status::Status;
use trireme_raft::{StoreError, WatchError};

use super::Context;
use super::read::is_storage_version;
use crate::cache::History;
use crate::cache::{Cached, Change, Changes, EventType, FRAME_TAIL};
use crate::encode;
use crate::error::Answer;
use crate::metrics::GaugeGuard;
use crate::negotiate::{Encoding, Form, Transform};
use crate::query::ListOptions;
use crate::respond::{self, Body};
use crate::rows::{Row, View};
use crate::selection::Selection;
use crate::server::Server;
use crate::transform::{self, IncludeObject};

/// Changes taken from the window at once.
const BATCH: usize = 256;
/// A watch without `timeoutSeconds` ends after this, and up to as much again.
const DEFAULT_TIMEOUT_SECS: u64 = 1800;
/// How often progress is announced to those who asked for it.
const BOOKMARK_EVERY: Duration = Duration::from_secs(45);
/// The first announcement comes soon: a server that has just become the leader opens its watches anew to learn that its
/// caches are complete, and must not have to list for that.
const FIRST_BOOKMARK: Duration = Duration::from_millis(100);
/// How often a watcher looks whether the server still has contact to its cluster.
const CONTACT_EVERY: Duration = Duration::from_secs(10);
/// How long a watch goes on without that contact.
const CONTACT_PATIENCE: Duration = Duration::from_secs(30);

/// Answers a watch.
pub async fn watch(ctx: &Context) -> Answer<Response<Body>> {
    let (view, row) = ctx.stored()?;
    let options = ListOptions::parse(&ctx.query, true)?;
    let selection = Selection::parse(view, &ctx.info.version, &options.label_selector, &options.field_selector)?;
    let include = IncludeObject::parse(&ctx.query)?;
    let registry = &ctx.server.registry;
    let initial = match options.send_initial_events {
        Some(wanted) => wanted,
        None => options.resource_version.unwrap_or(0) == 0,
    };
    match options.resource_version {
        None => {
            registry.refresh(row).await?;
        }
        Some(0) => {}
        Some(at_least) if initial => registry.wait_for(at_least).await?,
        Some(_) => {}
    }
    ctx.reauthorize().await?;
    let prefix = row.scope_prefix(&ctx.info.namespace);
    let mut watcher = Watcher {
        server: ctx.server.clone(),
        view: view.clone(),
        row: row.clone(),
        version: ctx.info.version.clone(),
        raw: ctx.form.transform == Transform::None
            && ctx.form.encoding == Encoding::Json
            && is_storage_version(view, row, &ctx.info.version),
        form: ctx.form,
        include,
        // A path names one object only in the old form /watch/...; else the name came from the selector and is checked there too.
        name: ctx.info.name.clone(),
        selection,
        prefix,
        position: options.resource_version.unwrap_or(0),
        changed: row.cache.subscribe(),
        history: None,
        queue: VecDeque::new(),
        bookmarks: options.allow_watch_bookmarks,
        deadline: Instant::now() + timeout(options.timeout_secs),
        next_bookmark: Instant::now() + FIRST_BOOKMARK,
        lost_contact: None,
        finished: false,
        columns_sent: false,
        _guard: ctx.server.metrics.long_running_guard(&ctx.info),
    };
    if initial {
        watcher.queue_initial(options.send_initial_events == Some(true));
    } else if watcher.position == 0 {
        watcher.position = registry.cache.ingested();
    }
    let pieces = futures::stream::unfold(watcher, |mut watcher| async move {
        let piece = watcher.next().await?;
        Some((Ok(piece), watcher))
    });
    let mut response = Response::new(respond::stream(pieces));
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static(match ctx.form.encoding {
            Encoding::Protobuf => protobuf::WATCH_CONTENT_TYPE,
            _ => "application/json",
        }),
    );
    Ok(response)
}

fn timeout(seconds: Option<u64>) -> Duration {
    // Spread, so that clients of a restarted server do not come back all at once.
    Duration::from_secs(seconds.unwrap_or_else(|| DEFAULT_TIMEOUT_SECS + rand::rng().random_range(0..DEFAULT_TIMEOUT_SECS)))
}

struct Watcher {
    server: Arc<Server>,
    view: View,
    row: Arc<Row>,
    version: String,
    /// Whether the shared frames can be sent as they are.
    raw: bool,
    form: Form,
    include: IncludeObject,
    name: String,
    selection: Selection,
    prefix: String,
    /// Everything up to this revision has been queued.
    position: i64,
    changed: watch::Receiver<i64>,
    history: Option<History>,
    queue: VecDeque<Bytes>,
    bookmarks: bool,
    deadline: Instant,
    next_bookmark: Instant,
    lost_contact: Option<Instant>,
    finished: bool,
    columns_sent: bool,
    _guard: GaugeGuard,
}

impl Watcher {
    /// The next piece of the response; None at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.queue.pop_front() {
                return Some(piece);
            }
            if self.finished || Instant::now() >= self.deadline || self.server.stopping.is_cancelled() {
                return None;
            }
            match self.history.take() {
                Some(history) => self.read_history(history).await,
                None => self.read_window().await,
            }
        }
    }

    fn queue_initial(&mut self, announce_end: bool) {
        let ingested = self.server.registry.cache.ingested();
        let (objects, revision) = self.row.cache.list(&self.prefix, ingested, |o| {
            self.selection.matches(&self.view, &self.row, o) && (self.name.is_empty() || *o.name == *self.name)
        });
        self.position = revision;
        for object in objects {
            self.send(EventType::Added, &object);
        }
        if announce_end {
            self.queue_bookmark(true);
        }
    }

    async fn read_window(&mut self) {
        self.changed.mark_unchanged();
        let ingested = self.server.registry.cache.ingested();
        match self.row.cache.changes(self.position, ingested, BATCH) {
            Changes::Ready(changes, covered) => {
                self.position = covered;
                if changes.is_empty() {
                    self.wait().await;
                } else {
                    self.take(changes);
                }
            }
            Changes::Behind(_) => match self.server.registry.cache.history(&self.row, self.position) {
                Ok(history) => self.history = Some(history),
                Err(error) => self.end_with(&gone(&error, self.position)),
            },
        }
    }

    async fn read_history(&mut self, mut history: History) {
        let next = tokio::time::timeout_at(self.deadline, history.next(&self.server.registry.cache, &self.row));
        match next.await {
            Ok(Ok((changes, covered))) => {
                self.take(changes);
                self.position = self.position.max(covered);
                // Back in the window?
                let ingested = self.server.registry.cache.ingested();
                if matches!(self.row.cache.changes(self.position, ingested, 1), Changes::Behind(_)) {
                    self.history = Some(history);
                }
            }
            Ok(Err(error)) => self.end_with(&gone(&error, self.position)),
            Err(_) => self.finished = true,
        }
    }

    /// Waits for a change, the end, or the time of a bookmark.
    async fn wait(&mut self) {
        let wake = self.deadline.min(Instant::now() + CONTACT_EVERY).min(if self.bookmarks { self.next_bookmark } else { self.deadline });
        let stopping = self.server.stopping.clone();
        tokio::select! {
            changed = self.changed.changed() => {
                if changed.is_err() {
                    self.finished = true;
                }
                return;
            }
            () = stopping.cancelled() => {
                self.finished = true;
                return;
            }
            () = tokio::time::sleep_until(wake) => {}
        }
        if self.server.has_contact() {
            self.lost_contact = None;
            if self.bookmarks && Instant::now() >= self.next_bookmark {
                // `position` may lag behind other resources' revisions: take the newest progress first.
                let ingested = self.server.registry.cache.ingested();
                if let Changes::Ready(changes, covered) = self.row.cache.changes(self.position, ingested, BATCH) {
                    self.take(changes);
                    self.position = covered;
                    self.queue_bookmark(false);
                }
                self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
            }
        } else if self.lost_contact.get_or_insert_with(Instant::now).elapsed() > CONTACT_PATIENCE {
            self.finished = true;
        }
    }

    /// Queues what the watcher's selection sees of some changes.
    fn take(&mut self, changes: Vec<Change>) {
        for change in changes {
            let sees = |o: &Cached| {
                (self.prefix.is_empty() || self.prefix.strip_suffix('/') == Some(&*o.namespace))
                    && (self.name.is_empty() || *o.name == *self.name)
                    && self.selection.matches(&self.view, &self.row, o)
            };
            let before = change.previous.as_deref().is_some_and(sees);
            let now = change.event_type != EventType::Deleted && sees(&change.object);
            match (before, now) {
                (false, true) => self.send(EventType::Added, &change.object),
                (true, true) => self.send(EventType::Modified, &change.object),
                (true, false) if change.event_type == EventType::Deleted => self.send(EventType::Deleted, &change.object),
                (true, false) => {
                    if let Some(previous) = &change.previous {
                        self.send(EventType::Deleted, &previous.restamped(change.revision, EventType::Deleted));
                    }
                }
                (false, false) => {}
            }
        }
    }

    fn send(&mut self, event_type: EventType, object: &Cached) {
        let frame = if self.raw {
            object.frame(event_type).unwrap_or_else(|| frame_of(event_type.frame_head(), &object.json()))
        } else {
            match self.transformed(object) {
                Ok(value) => self.frame(event_type.as_str(), &value),
                Err(status) => return self.end_with(&status),
            }
        };
        let labels = [&*self.view.resource.group, &self.version, &self.view.resource.plural];
        self.server.metrics.watch_events.with_label_values(&labels).inc();
        self.server.metrics.watch_bytes.with_label_values(&labels).observe(frame.len() as f64);
        self.queue.push_back(frame);
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

    /// An event in the negotiated encoding.
    fn frame(&mut self, event_type: &str, object: &Value) -> Bytes {
        if self.form.encoding == Encoding::Protobuf {
            match protobuf::encode(object) {
                Ok(object) => return protobuf::watch_frame(event_type, &object).into(),
                Err(error) => {
                    // A watcher must not miss an event: one that cannot be shown ends the stream.
                    self.finished = true;
                    return self.status_frame(&Status::internal(error));
                }
            }
        }
        frame_of(format!("{{\"type\":\"{event_type}\",\"object\":").as_bytes(), &encode::object_json(object))
    }

    fn status_frame(&self, status: &Status) -> Bytes {
        if self.form.encoding == Encoding::Protobuf {
            let object = serde_json::to_value(status).ok().and_then(|v| protobuf::encode(&v).ok());
            return protobuf::watch_frame("ERROR", &object.unwrap_or_default()).into();
        }
        frame_of(b"{\"type\":\"ERROR\",\"object\":", &serde_json::to_vec(status).unwrap_or_default())
    }

    fn queue_bookmark(&mut self, initial_end: bool) {
        let mut metadata = json!({"resourceVersion": self.position.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let gvk = self.view.resource.gvk(&self.version).unwrap_or_else(|| self.row.storage_gvk());
        let object = match self.form.transform {
            Transform::None => json!({"kind": &*gvk.kind, "apiVersion": gvk.api_version(), "metadata": metadata}),
            Transform::Table => {
                json!({"kind": "Table", "apiVersion": self.form.meta_api_version(), "metadata": metadata, "columnDefinitions": null, "rows": []})
            }
            _ => json!({"kind": "PartialObjectMetadata", "apiVersion": self.form.meta_api_version(), "metadata": metadata}),
        };
        let frame = self.frame("BOOKMARK", &object);
        self.queue.push_back(frame);
    }

    fn end_with(&mut self, status: &Status) {
        let frame = self.status_frame(status);
        self.queue.push_back(frame);
        self.finished = true;
    }
}

fn frame_of(head: &[u8], json: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(head.len() + json.len() + FRAME_TAIL.len());
    frame.put_slice(head);
    frame.put_slice(json);
    frame.put_slice(FRAME_TAIL);
    frame.freeze()
}

/// What a watcher learns whose revision is gone.
fn gone(error: &WatchError, position: i64) -> Status {
    match error {
        WatchError::Compacted { compact_revision } | WatchError::Store(StoreError::Compacted { compact_revision }) => {
            Status::expired(format!("too old resource version: {position} ({compact_revision})"))
        }
        WatchError::Reset => Status::expired(format!("too old resource version: {position} (the store was restored)")),
        other => Status::internal(other),
    }
}
