//! Watches: many on one stream, from now and from the past, filtered, cut, cancelled, with progress.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Streaming};
use trireme_etcd::EtcdOptions;
use trireme_proto::etcd;
use trireme_proto::etcd::watch_client::WatchClient;
use trireme_proto::etcd::watch_request::RequestUnion;

use crate::server::{PATIENCE, Server, bytes, prefix_end, put_op};

/// A stream and its requests.
struct Watching {
    requests: mpsc::Sender<etcd::WatchRequest>,
    answers: Streaming<etcd::WatchResponse>,
}

impl Watching {
    async fn open(server: &Server) -> Watching {
        let (requests, stream) = mpsc::channel(64);
        let mut request = Request::new(ReceiverStream::new(stream));
        // What kube-apiserver asks for.
        request.metadata_mut().insert("hasleader", "true".parse().unwrap());
        let answers = WatchClient::new(server.channel.clone()).watch(request).await.unwrap().into_inner();
        Watching { requests, answers }
    }

    async fn ask(&self, request: RequestUnion) {
        self.requests.send(etcd::WatchRequest { request_union: Some(request) }).await.unwrap();
    }

    async fn next(&mut self) -> etcd::WatchResponse {
        tokio::time::timeout(PATIENCE, self.answers.message()).await.expect("an answer in time").unwrap().unwrap()
    }

    /// Creates a watcher and returns its id.
    async fn create(&mut self, create: etcd::WatchCreateRequest) -> i64 {
        self.ask(RequestUnion::CreateRequest(create)).await;
        let created = self.next().await;
        assert!(created.created && !created.canceled && created.events.is_empty(), "{created:?}");
        created.watch_id
    }

    /// Events until there are `n`.
    async fn events(&mut self, n: usize) -> Vec<etcd::Event> {
        let mut events = Vec::new();
        while events.len() < n {
            events.extend(self.next().await.events);
        }
        assert_eq!(events.len(), n, "{events:?}");
        events
    }
}

fn under(text: &str) -> etcd::WatchCreateRequest {
    etcd::WatchCreateRequest { key: bytes(text), range_end: prefix_end(text), ..Default::default() }
}

fn told(event: &etcd::Event) -> (i32, String, String) {
    let kv = event.kv.as_ref().unwrap();
    (event.r#type, String::from_utf8(kv.key.to_vec()).unwrap(), String::from_utf8(kv.value.to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_carries_many_watchers_each_with_its_own_wishes() {
    let server = Server::start().await;
    let mut stream = Watching::open(&server).await;
    let before = server.put("a/1", "old").await;
    let plain = stream.create(under("a/")).await;
    let full = stream.create(etcd::WatchCreateRequest { prev_kv: true, ..under("a/") }).await;
    let puts = stream.create(etcd::WatchCreateRequest { filters: vec![1], ..under("a/") }).await;
    let ends = stream.create(etcd::WatchCreateRequest { filters: vec![0], ..under("a/") }).await;
    let past = stream.create(etcd::WatchCreateRequest { start_revision: before, watch_id: 77, ..under("a/") }).await;
    assert_eq!([plain, full, puts, ends, past], [0, 1, 2, 3, 77]);
    let first = stream.next().await;
    assert_eq!((first.watch_id, first.events.len(), told(&first.events[0])), (77, 1, (0, "a/1".into(), "old".into())));
    server.put("b/1", "elsewhere").await;
    let changed = server.put("a/1", "new").await;
    let mut kv = server.kv();
    kv.delete_range(etcd::DeleteRangeRequest { key: bytes("a/1"), ..Default::default() }).await.unwrap();
    let mut seen: std::collections::BTreeMap<i64, Vec<etcd::Event>> = Default::default();
    while seen.values().map(Vec::len).sum::<usize>() < 8 {
        let answer = stream.next().await;
        assert!(answer.header.unwrap().revision >= changed);
        seen.entry(answer.watch_id).or_default().extend(answer.events);
    }
    let both = [(0, "a/1".to_owned(), "new".to_owned()), (1, "a/1".to_owned(), String::new())];
    for id in [plain, full, past] {
        assert_eq!(seen[&id].iter().map(told).collect::<Vec<_>>(), both, "watcher {id}");
    }
    assert_eq!(seen[&puts].iter().map(told).collect::<Vec<_>>(), both[..1]);
    assert_eq!(seen[&ends].iter().map(told).collect::<Vec<_>>(), both[1..]);
    assert!(seen[&plain].iter().all(|event| event.prev_kv.is_none()));
    let previous: Vec<_> = seen[&full].iter().map(|event| event.prev_kv.clone().unwrap().value).collect();
    assert_eq!(previous, ["old", "new"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_are_cancelled_and_bad_ones_refused() {
    let server = Server::start().await;
    let mut stream = Watching::open(&server).await;
    let id = stream.create(etcd::WatchCreateRequest { watch_id: 5, ..under("a") }).await;
    stream.ask(RequestUnion::CreateRequest(etcd::WatchCreateRequest { watch_id: 5, ..under("a") })).await;
    let refused = stream.next().await;
    assert!(refused.created && refused.canceled && refused.cancel_reason.contains("duplicate watch ID"), "{refused:?}");
    let empty = etcd::WatchCreateRequest { key: bytes("b"), range_end: bytes("a"), ..Default::default() };
    stream.ask(RequestUnion::CreateRequest(empty)).await;
    let refused = stream.next().await;
    assert_eq!((refused.watch_id, refused.cancel_reason.as_str()), (-1, "mvcc: watcher range is empty"));
    stream.ask(RequestUnion::CancelRequest(etcd::WatchCancelRequest { watch_id: id })).await;
    let cancelled = stream.next().await;
    assert!(cancelled.canceled && cancelled.watch_id == 5 && cancelled.compact_revision == 0);
    server.put("a", "unseen").await;
    // The id is free again, and nothing of the old watcher comes any more.
    let id = stream.create(etcd::WatchCreateRequest { watch_id: 5, ..under("a") }).await;
    server.put("a", "seen").await;
    assert_eq!((id, told(&stream.events(1).await[0]).2.as_str()), (5, "seen"));
    assert_eq!(server.store.counters().watchers.load(std::sync::atomic::Ordering::Relaxed), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_from_what_is_compacted_ends_and_says_where_to_begin() {
    let server = Server::start().await;
    let first = server.put("a", "1").await;
    let last = server.put("a", "2").await;
    server.store.compact(last).await.unwrap();
    let mut stream = Watching::open(&server).await;
    let id = stream.create(etcd::WatchCreateRequest { start_revision: first, ..under("a") }).await;
    let ended = stream.next().await;
    assert_eq!((ended.watch_id, ended.canceled, ended.created, ended.compact_revision), (id, true, false, last));
    assert_eq!(ended.cancel_reason, "etcdserver: mvcc: required revision has been compacted");
    let id = stream.create(etcd::WatchCreateRequest { start_revision: last, ..under("a") }).await;
    let answer = stream.next().await;
    assert_eq!((answer.watch_id, told(&answer.events[0]).2.as_str()), (id, "2"));
    // A watch of the future begins there.
    stream.create(etcd::WatchCreateRequest { start_revision: last + 2, ..under("b") }).await;
    server.put("b", "too early").await;
    server.put("b", "in time").await;
    assert_eq!(told(&stream.events(1).await[0]).2, "in time");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told_when_asked_for_and_by_itself() {
    let server = Server::with(EtcdOptions { progress_interval: Duration::from_millis(100), ..Default::default() }).await;
    let mut stream = Watching::open(&server).await;
    let quiet = stream.create(under("a")).await;
    let revision = server.put("b", "elsewhere").await;
    stream.ask(RequestUnion::ProgressRequest(etcd::WatchProgressRequest {})).await;
    let progress = stream.next().await;
    assert_eq!((progress.watch_id, progress.header.unwrap().revision, progress.events.len()), (-1, revision, 0));
    let notified = stream.create(etcd::WatchCreateRequest { progress_notify: true, ..under("a") }).await;
    assert_ne!(quiet, notified);
    let progress = stream.next().await;
    assert_eq!((progress.watch_id, progress.header.unwrap().revision, progress.canceled), (notified, revision, false));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_transactions_are_cut_for_who_can_put_them_together() {
    let server = Server::start().await;
    let mut stream = Watching::open(&server).await;
    let whole = stream.create(under("a/")).await;
    let cut = stream.create(etcd::WatchCreateRequest { fragment: true, prev_kv: true, ..under("a/") }).await;
    let value = "x".repeat(300 << 10);
    let write = || etcd::TxnRequest { success: (0..4).map(|i| put_op(&format!("a/{i}"), &value)).collect(), ..Default::default() };
    let mut kv = server.kv();
    kv.txn(write()).await.unwrap();
    let revision = kv.txn(write()).await.unwrap().into_inner().header.unwrap().revision;
    // The second transaction's events and what was before them are more than 2 MiB.
    let (mut fragments, mut events, mut whole_events) = (Vec::new(), 0, 0);
    while events < 8 || whole_events < 8 {
        let answer = stream.next().await;
        match answer.watch_id {
            id if id == whole => {
                assert!(!answer.fragment);
                whole_events += answer.events.len();
            }
            id if id == cut => {
                events += answer.events.len();
                fragments.push((answer.fragment, answer.events.last().unwrap().kv.as_ref().unwrap().mod_revision));
            }
            other => panic!("watcher {other}"),
        }
    }
    assert!(fragments.iter().any(|(fragment, at)| *fragment && *at == revision), "{fragments:?}");
    assert!(!fragments.last().unwrap().0, "{fragments:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_late_misses_nothing() {
    let server = Server::start().await;
    let mut stream = Watching::open(&server).await;
    stream.create(under("a/")).await;
    let value = "x".repeat(20 << 10);
    // Beyond what the store keeps in memory for watches, and all windows.
    for i in 0..300 {
        server.put(&format!("a/{i}"), &value).await;
    }
    let events = stream.events(300).await;
    let expected: Vec<_> = (0..300).map(|i| format!("a/{i}")).collect();
    assert_eq!(events.iter().map(|event| told(event).1).collect::<Vec<_>>(), expected);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_the_server() {
    let server = Server::start().await;
    let mut stream = Watching::open(&server).await;
    stream.create(under("a")).await;
    server.stop().await;
    let ended = tokio::time::timeout(PATIENCE, stream.answers.message()).await.unwrap().unwrap_err();
    assert_eq!((ended.code(), ended.message()), (Code::Unavailable, "etcdserver: server stopped"));
}
