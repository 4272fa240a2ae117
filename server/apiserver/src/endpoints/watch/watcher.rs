//! One watch: where it stands, and what it reads next.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use trireme_api::status::Status;
use trireme_raft::{StoreError, WatchError};

use crate::catalog::rows::Row;
use crate::endpoints::watch::encoder::Encoder;
use crate::endpoints::watch::schedule::{Schedule, Wake};
use crate::endpoints::watch::scope::Scope;
use crate::endpoints::watch::shown::Shown;
use crate::error::Answer;
use crate::metrics::WatchCounters;
use crate::storage::cache::{Cache, Cached, Change, Changes, EventType, History, Subscription};

/// Changes taken from the window at once.
const BATCH: usize = 256;
/// Events that can be sent at once make one piece until it has this size: with one event more it usually fits a frame and a TLS record.
/// HTTP/2 makes a frame, a record and a system call of each piece, which cost more than the copy.
const PIECE_BYTES: usize = 15 << 10;
/// What both hold.
const RECORD_BYTES: usize = 16 << 10;

/// The state at the start that has not been sent yet: pointers to shared objects.
struct Initial {
    objects: std::vec::IntoIter<Arc<Cached>>,
    announce_end: bool,
}

/// A stream of events.
pub struct Watcher {
    cache: Arc<Cache>,
    row: Arc<Row>,
    scope: Scope,
    shown: Shown,
    encoder: Encoder,
    schedule: Schedule,
    counters: WatchCounters,
    /// Everything up to this revision has been taken.
    position: i64,
    changed: Subscription,
    initial: Option<Initial>,
    /// Taken and not sent yet: at most one batch.
    pending: VecDeque<Change>,
    history: Option<History>,
    bookmark_due: bool,
    finished: bool,
}

impl Watcher {
    /// A watcher of what follows `position`.
    pub fn new(
        cache: Arc<Cache>,
        row: Arc<Row>,
        scope: Scope,
        shown: Shown,
        encoder: Encoder,
        schedule: Schedule,
        counters: WatchCounters,
        position: i64,
    ) -> Watcher {
        let changed = row.cache.subscribe(scope.interest());
        Watcher {
            cache,
            row,
            scope,
            shown,
            encoder,
            schedule,
            counters,
            position,
            changed,
            initial: None,
            pending: VecDeque::new(),
            history: None,
            bookmark_due: false,
            finished: false,
        }
    }

    /// Begins with the objects as they are now, and says when they have all been sent if `announce_end`.
    pub async fn begin_with_state(&mut self, announce_end: bool) -> Answer<()> {
        // Where a webhook converts, an object is looked at in the watched version.
        let as_cached = self.row.webhook.is_none();
        let keep = |object: &Cached| !as_cached || self.scope.sees(object);
        let (objects, revision) = self.row.cache.list(self.scope.prefix(), self.cache.ingested(), keep);
        let mut objects = self.shown.objects(objects).await?;
        objects.retain(|object| as_cached || self.scope.sees(object));
        self.position = revision;
        self.initial = Some(Initial { objects: objects.into_iter(), announce_end });
        Ok(())
    }

    /// The next piece of the response; `None` at the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.finished || self.schedule.is_over() {
                return None;
            }
            if let Some(piece) = self.taken_together() {
                return Some(piece);
            }
            let outcome = match self.history.take() {
                Some(history) => self.read_history(history).await,
                None => self.read_window().await,
            };
            match outcome {
                Ok(None) => {}
                Ok(Some(piece)) => return Some(piece),
                Err(status) => return Some(self.end_with(&status)),
            }
        }
    }

    /// Joins the events that were already taken from the cache into one buffer. A single event is passed on without a copy.
    fn taken_together(&mut self) -> Option<Bytes> {
        let first = self.taken()?;
        let mut together: Option<BytesMut> = None;
        let mut length = first.len();
        while length < PIECE_BYTES && !self.finished {
            let Some(next) = self.taken() else { break };
            let piece = together.get_or_insert_with(|| {
                let mut piece = BytesMut::with_capacity(RECORD_BYTES);
                piece.extend_from_slice(&first);
                piece
            });
            piece.extend_from_slice(&next);
            length = piece.len();
        }
        Some(together.map_or(first, BytesMut::freeze))
    }

    /// The next event of what has been taken already.
    fn taken(&mut self) -> Option<Bytes> {
        if let Some(initial) = &mut self.initial {
            if let Some(object) = initial.objects.next() {
                let frame = self.encoder.event(EventType::Added, &object);
                return Some(self.counted(frame));
            }
            let announce_end = initial.announce_end;
            self.initial = None;
            if announce_end {
                return Some(self.bookmark(true));
            }
        }
        while let Some(change) = self.pending.pop_front() {
            if let Some((event_type, object)) = self.scope.event(&change) {
                let frame = self.encoder.change(event_type, &object, &change);
                return Some(self.counted(frame));
            }
        }
        None
    }

    fn counted(&mut self, frame: Answer<Bytes>) -> Bytes {
        match frame {
            Ok(frame) => {
                self.counters.count(frame.len());
                frame
            }
            // A watcher must not miss an event: one that cannot be shown ends the stream.
            Err(status) => self.end_with(&status),
        }
    }

    fn bookmark(&mut self, initial_end: bool) -> Bytes {
        match self.encoder.bookmark(self.position, initial_end) {
            Ok(frame) => frame,
            Err(status) => self.end_with(&status),
        }
    }

    fn end_with(&mut self, status: &Status) -> Bytes {
        self.finished = true;
        self.encoder.error(status)
    }

    async fn read_window(&mut self) -> Answer<Option<Bytes>> {
        // The order matters: first the revision that the cache has passed, then whether a change up to it concerns this watch.
        let ingested = self.cache.ingested();
        if !self.changed.may_have_changed(self.position) {
            self.position = self.position.max(ingested);
            return self.idle().await;
        }
        match self.row.cache.changes(self.position, ingested, BATCH) {
            Changes::Ready(changes, covered) => {
                self.position = covered;
                if changes.is_empty() {
                    return self.idle().await;
                }
                self.take(changes).await?;
                Ok(None)
            }
            Changes::Behind(_) => {
                self.history = Some(self.cache.history(&self.row, self.position).map_err(|error| gone(&error, self.position))?);
                Ok(None)
            }
        }
    }

    /// Nothing new: announces the progress if that is due, or waits.
    async fn idle(&mut self) -> Answer<Option<Bytes>> {
        if std::mem::take(&mut self.bookmark_due) {
            return Ok(Some(self.bookmark(false)));
        }
        self.wait().await;
        Ok(None)
    }

    async fn read_history(&mut self, mut history: History) -> Answer<Option<Bytes>> {
        let next = history.next(&self.cache, &self.row);
        let Ok(next) = tokio::time::timeout_at(self.schedule.deadline(), next).await else { return Ok(None) };
        let (changes, covered) = next.map_err(|error| gone(&error, self.position))?;
        self.take(changes).await?;
        self.position = self.position.max(covered);
        // Back in the window?
        if matches!(self.row.cache.changes(self.position, self.cache.ingested(), 1), Changes::Behind(_)) {
            self.history = Some(history);
        }
        Ok(None)
    }

    /// Changes to be sent next. A webhook is waited for as long as the watch lasts.
    async fn take(&mut self, changes: Vec<Change>) -> Answer<()> {
        let deadline = self.schedule.deadline();
        match tokio::time::timeout_at(deadline, self.shown.changes(changes)).await {
            Ok(changes) => self.pending.extend(changes?),
            Err(_) => self.finished = true,
        }
        Ok(())
    }

    async fn wait(&mut self) {
        match self.schedule.wait(&mut self.changed).await {
            Wake::Look => {}
            Wake::End => self.finished = true,
            // `position` may lag behind the revisions of other resources: the newest progress is taken first.
            Wake::Bookmark => self.bookmark_due = true,
        }
    }
}

/// The status for a watcher whose revision is no longer available.
fn gone(error: &WatchError, position: i64) -> Box<Status> {
    Box::new(match error {
        WatchError::Compacted { compact_revision } | WatchError::Store(StoreError::Compacted { compact_revision }) => {
            Status::expired(format!("too old resource version: {position} ({compact_revision})"))
        }
        WatchError::Reset => Status::expired(format!("too old resource version: {position} (the store was restored)")),
        other => Status::internal(other),
    })
}
