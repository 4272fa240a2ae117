//! A watch stream from its first request to its end.

use std::collections::{BTreeMap, VecDeque};

use futures::StreamExt;
use futures::future::{Abortable, Aborted, BoxFuture};
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};
use tonic::{Status, Streaming};
use trireme_proto::etcd;
use trireme_proto::etcd::watch_request::RequestUnion;
use trireme_raft::{StoreError, Watch, WatchBatch, WatchError};

use super::watcher::{Watcher, range};
use crate::backend::Backend;
use crate::error::{self, status};
use crate::hidden::Reach;

/// Watchers of one stream.
const MAX_WATCHERS: usize = 10_000;
/// Answers that wait to be sent before further requests are read.
const MAX_OUTBOX: usize = 1024;
/// The id in answers that are about no watcher, or all.
const NO_WATCHER: i64 = -1;

type Step = (i64, Watch, Result<WatchBatch, WatchError>);

/// The task of one stream.
pub(super) struct Session {
    backend: Backend,
    answers: mpsc::Sender<Result<etcd::WatchResponse, Status>>,
    outbox: VecDeque<etcd::WatchResponse>,
    watchers: BTreeMap<i64, Watcher>,
    running: FuturesUnordered<BoxFuture<'static, Result<Step, Aborted>>>,
    next_id: i64,
    /// The revision of a pending progress request: it is answered when all watchers have reached it.
    awaited: Option<i64>,
    progress: Option<Interval>,
}

// === impl Session ===

impl Session {
    pub(super) fn new(backend: Backend, answers: mpsc::Sender<Result<etcd::WatchResponse, Status>>) -> Session {
        Session {
            backend,
            answers,
            outbox: VecDeque::new(),
            watchers: BTreeMap::new(),
            running: FuturesUnordered::new(),
            next_id: 0,
            awaited: None,
            progress: None,
        }
    }

    pub(super) async fn run(mut self, mut requests: Streaming<etcd::WatchRequest>, needs_leader: bool) {
        let backend = self.backend.clone();
        let leader_lost = backend.leader_lost();
        tokio::pin!(leader_lost);
        let answers = self.answers.clone();
        let ended: Status = loop {
            let sending = !self.outbox.is_empty();
            tokio::select! {
                biased;
                () = backend.stopped() => break error::STOPPED.into(),
                () = &mut leader_lost, if needs_leader => break error::NO_LEADER.into(),
                place = answers.reserve(), if sending => match (place, self.outbox.pop_front()) {
                    (Ok(place), Some(answer)) => place.send(Ok(answer)),
                    _ => return,
                },
                request = requests.message(), if self.outbox.len() < MAX_OUTBOX => match request {
                    Ok(Some(request)) => self.asked(request),
                    // The client has gone, or is done.
                    Ok(None) | Err(_) => return,
                },
                Some(step) = self.running.next(), if !sending => {
                    if let Ok(step) = step {
                        self.stepped(step);
                    }
                }
                () = tick(&mut self.progress), if !sending => self.notify(),
            }
        };
        // A send fails where the client is gone.
        let _ = self.answers.send(Err(ended)).await;
    }

    fn asked(&mut self, request: etcd::WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create),
            Some(RequestUnion::CancelRequest(cancel)) => {
                if let Some(watcher) = self.watchers.remove(&cancel.watch_id) {
                    watcher.running.abort();
                    self.answer(etcd::WatchResponse { watch_id: cancel.watch_id, canceled: true, ..Default::default() });
                    self.report_progress();
                }
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.awaited = Some(self.backend.store().revision());
                self.report_progress();
            }
            None => {}
        }
    }

    fn create(&mut self, request: etcd::WatchCreateRequest) {
        let (key, range_end) = range(&request);
        let refuse = |reason: &str| etcd::WatchResponse {
            watch_id: NO_WATCHER,
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..Default::default()
        };
        if request.watch_id != 0 && self.watchers.contains_key(&request.watch_id) {
            return self.answer(refuse("mvcc: duplicate watch ID provided on the WatchStream"));
        }
        let bounded = !range_end.is_empty() && range_end.as_ref() != [0];
        if bounded && range_end <= key {
            return self.answer(refuse("mvcc: watcher range is empty"));
        }
        if self.backend.hidden().reach(&key, &range_end) == Reach::Wholly {
            return self.answer(refuse(error::PERMISSION_DENIED.text()));
        }
        if self.watchers.len() >= MAX_WATCHERS {
            return self.answer(refuse("etcdserver: too many watchers on this stream"));
        }
        let watch = match self.backend.store().watch(key, range_end, request.start_revision) {
            Ok(watch) => Some(watch),
            Err(StoreError::Compacted { .. }) => None,
            Err(other) => return self.answer(refuse(status(other).message())),
        };
        let id = self.take_id(request.watch_id);
        self.answer(etcd::WatchResponse { watch_id: id, created: true, ..Default::default() });
        match watch {
            Some(watch) => self.start(id, watch, &request),
            None => self.compacted(id),
        }
    }

    fn take_id(&mut self, wanted: i64) -> i64 {
        if wanted != 0 {
            return wanted;
        }
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    fn start(&mut self, id: i64, watch: Watch, request: &etcd::WatchCreateRequest) {
        let (abort, registration) = futures::future::AbortHandle::new_pair();
        self.watchers.insert(id, Watcher::new(request, watch.next_revision(), abort));
        if request.progress_notify && self.progress.is_none() {
            let period = self.backend.options().progress_interval;
            let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            self.progress = Some(interval);
        }
        self.wait(id, watch, registration);
    }

    fn wait(&mut self, id: i64, mut watch: Watch, registration: futures::future::AbortRegistration) {
        let next = async move {
            let batch = watch.next().await;
            (id, watch, batch)
        };
        self.running.push(Box::pin(Abortable::new(next, registration)));
    }

    fn stepped(&mut self, (id, watch, result): Step) {
        match result {
            Ok(batch) => {
                let Some(watcher) = self.watchers.get_mut(&id) else { return };
                let answers = watcher.answers(id, &batch, self.backend.hidden());
                let (abort, registration) = futures::future::AbortHandle::new_pair();
                watcher.running = abort;
                for answer in answers {
                    self.answer_at(answer, batch.revision);
                }
                self.wait(id, watch, registration);
            }
            Err(WatchError::Compacted { .. }) => self.compacted(id),
            Err(WatchError::Shutdown) => self.ended(id, error::STOPPED.text()),
            Err(WatchError::Reset) => self.ended(id, "etcdserver: the store was reset"),
            Err(WatchError::Store(other)) => self.ended(id, status(other).message()),
        }
        self.report_progress();
    }

    /// Ends a watcher that needs what is gone.
    fn compacted(&mut self, id: i64) {
        self.watchers.remove(&id);
        self.answer(etcd::WatchResponse {
            watch_id: id,
            canceled: true,
            compact_revision: self.backend.store().compact_revision(),
            cancel_reason: error::COMPACTED.text().to_owned(),
            ..Default::default()
        });
    }

    fn ended(&mut self, id: i64, reason: &str) {
        self.watchers.remove(&id);
        self.answer(etcd::WatchResponse { watch_id: id, canceled: true, cancel_reason: reason.to_owned(), ..Default::default() });
    }

    /// Answers a pending progress request once all watchers have reached its revision.
    fn report_progress(&mut self) {
        let Some(awaited) = self.awaited else { return };
        if self.watchers.values().any(|watcher| watcher.synced < awaited) {
            return;
        }
        self.awaited = None;
        // Without watchers there is no progress to report.
        if !self.watchers.is_empty() {
            self.answer_at(etcd::WatchResponse { watch_id: NO_WATCHER, ..Default::default() }, awaited);
        }
    }

    /// Tells the watchers that want to know how far they are.
    fn notify(&mut self) {
        let mut quiet = Vec::new();
        for (id, watcher) in self.watchers.iter_mut().filter(|(_, watcher)| watcher.progress_notify) {
            if !std::mem::take(&mut watcher.busy) {
                quiet.push((*id, watcher.synced));
            }
        }
        let revision = self.backend.store().revision();
        for (id, synced) in quiet {
            // A watcher that starts at a future revision must not report progress beyond the current one.
            self.answer_at(etcd::WatchResponse { watch_id: id, ..Default::default() }, synced.min(revision));
        }
    }

    fn answer(&mut self, answer: etcd::WatchResponse) {
        self.answer_at(answer, self.backend.store().revision());
    }

    fn answer_at(&mut self, mut answer: etcd::WatchResponse, revision: i64) {
        answer.header = Some(self.backend.header(revision));
        self.outbox.push_back(answer);
    }
}

async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}
