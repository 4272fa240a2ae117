//! One watcher: which events it wants, and the answers they make.

use bytes::Bytes;
use futures::future::AbortHandle;
use prost::Message;
use trireme_proto::etcd;
use trireme_proto::etcd::event::EventType;
use trireme_proto::etcd::watch_create_request::FilterType;
use trireme_raft::WatchBatch;

use crate::hidden::HiddenKeys;
use crate::kv::MAX_REQUEST_BYTES;

/// Where a watcher that may be sent fragments is cut: what clients accept by default.
const FRAGMENT_BYTES: usize = MAX_REQUEST_BYTES + (512 << 10);

/// A watcher of a stream.
pub(super) struct Watcher {
    /// Ends its waiting.
    pub(super) running: AbortHandle,
    /// Everything up to this revision has been sent.
    pub(super) synced: i64,
    /// Whether it wants to hear that nothing happens.
    pub(super) progress_notify: bool,
    /// Whether it was sent something since it last heard that.
    pub(super) busy: bool,
    prev_kv: bool,
    puts: bool,
    deletes: bool,
    fragment: bool,
}

// === impl Watcher ===

impl Watcher {
    pub(super) fn new(request: &etcd::WatchCreateRequest, next_revision: i64, running: AbortHandle) -> Watcher {
        let filters: Vec<FilterType> = request.filters().collect();
        Watcher {
            running,
            synced: next_revision - 1,
            progress_notify: request.progress_notify,
            busy: false,
            prev_kv: request.prev_kv,
            puts: !filters.contains(&FilterType::Noput),
            deletes: !filters.contains(&FilterType::Nodelete),
            fragment: request.fragment,
        }
    }

    /// The answers that a batch makes: none, one, or one in fragments.
    pub(super) fn answers(&mut self, id: i64, batch: &WatchBatch, hidden: &HiddenKeys) -> Vec<etcd::WatchResponse> {
        self.synced = batch.revision;
        let events: Vec<etcd::Event> =
            batch.events.iter().filter(|event| self.wants(event, hidden)).map(|event| self.copy(event)).collect();
        if events.is_empty() {
            return Vec::new();
        }
        self.busy = true;
        let answer = |events, fragment| etcd::WatchResponse { watch_id: id, events, fragment, ..Default::default() };
        if !self.fragment {
            return vec![answer(events, false)];
        }
        let mut pieces = cut(events);
        let last = pieces.pop().unwrap_or_default();
        let mut answers: Vec<_> = pieces.into_iter().map(|piece| answer(piece, true)).collect();
        answers.push(answer(last, false));
        answers
    }

    fn wants(&self, event: &etcd::Event, hidden: &HiddenKeys) -> bool {
        let kind = match event.r#type() {
            EventType::Put => self.puts,
            EventType::Delete => self.deletes,
        };
        kind && event.kv.as_ref().is_some_and(|kv| !hidden.hides(&kv.key))
    }

    /// Shares key and value, and leaves out what was not asked for.
    fn copy(&self, event: &etcd::Event) -> etcd::Event {
        let prev_kv = if self.prev_kv { event.prev_kv.clone() } else { None };
        etcd::Event { r#type: event.r#type, kv: event.kv.clone(), prev_kv }
    }
}

/// Pieces that are small enough, each with one event at least.
fn cut(events: Vec<etcd::Event>) -> Vec<Vec<etcd::Event>> {
    let mut pieces: Vec<Vec<etcd::Event>> = Vec::new();
    let mut bytes = 0;
    for event in events {
        // Tag and length of the field.
        let size = event.encoded_len() + 6;
        bytes += size;
        match pieces.last_mut() {
            Some(piece) if bytes <= FRAGMENT_BYTES => piece.push(event),
            _ => {
                bytes = size;
                pieces.push(vec![event]);
            }
        }
    }
    pieces
}

/// The watched range of a request, as the store takes it: no key means the first there can be.
pub(super) fn range(request: &etcd::WatchCreateRequest) -> (Bytes, Bytes) {
    let key = if request.key.is_empty() { Bytes::from_static(&[0]) } else { request.key.clone() };
    (key, request.range_end.clone())
}
