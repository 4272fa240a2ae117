//! Clients of the etcd API that write down what they asked and what they were told, and watches that write down everything.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::StreamExt;
use rand::{Rng, rngs::StdRng};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use trireme_chaos::{
    history::{Answer, Call, Kv, Said, Transaction},
    sim::{load::request, recorder, recorder::Recorder, watcher::prefix_end},
};
use trireme_proto::etcd::{
    self, kv_client::KvClient, request_op::Request, response_op::Response, watch_client::WatchClient, watch_request::RequestUnion,
};

/// After this time without an answer the outcome of a call is unknown.
const ANSWER: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(1);
/// Between two attempts at servers that are not there.
const RETRY: Duration = Duration::from_millis(20);
/// Longest pause of a client between two calls, in milliseconds.
const PACE_MS: u64 = 8;
const REGISTERS: usize = 8;
/// Of a large value: it spans pages of the disk and blocks of the journal.
const LARGE_BYTES: usize = 48 << 10;

/// What clients and watches share.
pub struct Load {
    pub recorder: Arc<Recorder>,
    /// Where this generation's keys begin.
    pub prefix: String,
    endpoints: Vec<Endpoint>,
    began: Instant,
    stopped: AtomicBool,
    told: Mutex<Told>,
}

/// What clients were told, for those who wait for it.
#[derive(Default)]
struct Told {
    /// When each client's last acknowledged write was sent.
    latest: BTreeMap<String, Instant>,
    /// When each acknowledged write was sent and answered.
    writes: Vec<(Instant, Instant)>,
    /// How far each watch has come.
    watched: BTreeMap<usize, i64>,
}

// === impl Load ===

impl Load {
    pub fn new(prefix: String, endpoints: Vec<Endpoint>, recorder: Arc<Recorder>, began: Instant) -> Arc<Load> {
        Arc::new(Load { recorder, prefix, endpoints, began, stopped: AtomicBool::new(false), told: Mutex::default() })
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// How long after `moment` the first write sent since then was acknowledged.
    pub fn gap(&self, moment: Instant) -> Option<Duration> {
        self.told().writes.iter().filter(|(sent, _)| *sent >= moment).map(|(_, answered)| *answered - moment).min()
    }

    /// Whether the watches under this number have told of a revision.
    pub fn watched(&self, watch: usize, revision: i64) -> bool {
        self.told().watched.get(&watch).is_some_and(|seen| *seen >= revision)
    }

    /// Clients that have had a write acknowledged that was sent after `moment`.
    pub fn writers_since(&self, moment: Instant) -> usize {
        self.told().latest.values().filter(|sent| **sent >= moment).count()
    }

    /// The time is only for people, so it may be behind.
    fn tick(&self) {
        self.recorder.set_now(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX));
    }
}

/// One client: at one server until that fails it, then at the next.
pub struct Client {
    pub name: String,
    pub load: Arc<Load>,
    pub server: usize,
    pub random: StdRng,
    pub count: usize,
}

// === impl Client ===

impl Client {
    /// Calls until the load is stopped.
    pub async fn run(mut self) {
        let mut known: Vec<Kv> = Vec::new();
        while !self.load.stopped() {
            let Some(mut channel) = self.connect().await else { continue };
            while !self.load.stopped() {
                let pause = self.random.random_range(0..PACE_MS);
                tokio::time::sleep(Duration::from_millis(pause)).await;
                let answer = match self.choose(&known) {
                    Some(transaction) => self.write(&mut channel, transaction).await,
                    None => self.read(&mut channel).await,
                };
                match answer {
                    Answer::Read(_, found) => known = found,
                    Answer::Conflict(_, found) => {
                        known.retain(|kv| found.iter().all(|found| found.key != kv.key));
                        known.extend(found);
                    }
                    Answer::Unknown(_) => break,
                    _ => {}
                }
            }
            self.server += 1;
        }
    }

    /// Connects before the call: a request that could not be sent was certainly not executed.
    async fn connect(&mut self) -> Option<KvClient<Channel>> {
        let endpoint = self.load.endpoints[self.server % self.load.endpoints.len()].clone();
        match timeout(CONNECT, endpoint.connect()).await {
            Ok(Ok(channel)) => Some(KvClient::new(channel).max_decoding_message_size(usize::MAX)),
            _ => {
                self.server += 1;
                tokio::time::sleep(RETRY).await;
                None
            }
        }
    }

    fn value(&mut self, bytes: usize) -> String {
        self.count += 1;
        long(&format!("{}-{}", self.name, self.count), bytes)
    }

    fn register(&mut self) -> String {
        format!("{}r{}", self.load.prefix, self.random.random_range(0..REGISTERS))
    }

    /// The next write; none for a read.
    fn choose(&mut self, known: &[Kv]) -> Option<Transaction> {
        let mut transaction = Transaction::default();
        match self.random.random_range(0..100) {
            0..45 => transaction.puts = vec![(self.register(), self.value(0))],
            45..60 => {
                // On what it knows, which may be old.
                let key = self.register();
                let modified = known.iter().find(|kv| kv.key == key).map_or(0, |kv| kv.modified);
                transaction.expect = vec![(key.clone(), modified)];
                transaction.puts = vec![(key, self.value(0))];
            }
            60..68 => {
                let (one, other) = (format!("{}r0", self.load.prefix), format!("{}r5", self.load.prefix));
                transaction.puts = vec![(one, self.value(0)), (other, self.value(0))];
            }
            68..72 => transaction.deletes = vec![self.register()],
            72..76 => {
                let (key, bytes) =
                    (format!("{}large{}", self.load.prefix, self.random.random_range(0..3)), self.random.random_range(1..LARGE_BYTES));
                transaction.puts = vec![(key, self.value(bytes))];
            }
            _ => return None,
        }
        Some(transaction)
    }

    pub async fn write(&mut self, channel: &mut KvClient<Channel>, transaction: Transaction) -> Answer {
        let sent = Instant::now();
        self.load.tick();
        let wire = request(&transaction);
        // The history has large values by their names and lengths.
        let number = self.load.recorder.begin(&self.name, Call::Write(short_transaction(transaction)));
        let answer = match timeout(ANSWER, channel.txn(wire)).await {
            Ok(Ok(response)) => {
                let response = response.into_inner();
                let revision = response.header.unwrap_or_default().revision;
                match response.succeeded {
                    true => Answer::Written(revision),
                    false => Answer::Conflict(revision, found(&response.responses)),
                }
            }
            Ok(Err(status)) => Answer::Unknown(status.message().to_owned()),
            Err(_) => Answer::Unknown("no answer".into()),
        };
        self.load.recorder.end(number, answer.clone());
        if matches!(answer, Answer::Written(_)) {
            let mut told = self.load.told();
            told.latest.insert(self.name.clone(), sent);
            told.writes.push((sent, Instant::now()));
        }
        answer
    }

    /// A linearizable read of the registers.
    async fn read(&mut self, channel: &mut KvClient<Channel>) -> Answer {
        let prefix = format!("{}r", self.load.prefix);
        self.load.tick();
        let number = self.load.recorder.begin(&self.name, Call::Read(prefix.clone()));
        let answer = match timeout(ANSWER, channel.range(range(&prefix, false))).await {
            Ok(Ok(response)) => {
                let response = response.into_inner();
                Answer::Read(response.header.unwrap_or_default().revision, response.kvs.iter().map(short_kv).collect())
            }
            // A read changes nothing.
            Ok(Err(status)) => Answer::Unknown(status.message().to_owned()),
            Err(_) => Answer::Unknown("no answer".into()),
        };
        self.load.recorder.end(number, answer.clone());
        answer
    }
}

/// All keys with a prefix; a local read is answered by the server's own state, whatever the others have.
pub fn range(prefix: &str, local: bool) -> etcd::RangeRequest {
    etcd::RangeRequest {
        key: Bytes::copy_from_slice(prefix.as_bytes()),
        range_end: prefix_end(prefix),
        serializable: local,
        ..etcd::RangeRequest::default()
    }
}

fn found(responses: &[etcd::ResponseOp]) -> Vec<Kv> {
    let ranges = responses.iter().filter_map(|response| match &response.response {
        Some(Response::ResponseRange(range)) => Some(range.kvs.iter().map(short_kv)),
        _ => None,
    });
    ranges.flatten().collect()
}

/// A value that begins with its name and is so much longer, in a way that says how much.
fn long(name: &str, bytes: usize) -> String {
    match bytes {
        0 => name.to_owned(),
        _ => format!("{name}~{bytes}:{}", "x".repeat(bytes)),
    }
}

/// A value without its length, if it is as it was written.
fn short(value: &str) -> String {
    let Some((head, padding)) = value.split_once(':') else { return value.to_owned() };
    let whole =
        head.split_once('~').is_some_and(|(_, bytes)| bytes.parse() == Ok(padding.len())) && padding.bytes().all(|byte| byte == b'x');
    if whole { head.to_owned() } else { format!("{head} DAMAGED") }
}

fn short_transaction(mut transaction: Transaction) -> Transaction {
    for (_, value) in &mut transaction.puts {
        *value = short(value);
    }
    transaction
}

/// A record as the history has it.
pub fn short_kv(kv: &etcd::KeyValue) -> Kv {
    let kv = recorder::kv(kv);
    Kv { value: short(&kv.value), ..kv }
}

/// Follows a server for ever. The watch's number modulo the count of servers selects the server. A watch that is cut off starts again at
/// the beginning of the generation, so that it receives every event again.
pub async fn watch(load: Arc<Load>, watch: usize, from: i64) {
    let server = watch % load.endpoints.len();
    for attempt in 0.. {
        if let Ok(Ok(channel)) = timeout(CONNECT, load.endpoints[server].clone().connect()).await {
            let (name, member) = (format!("{}w{watch}.{attempt}", load.prefix), format!("s{}", server + 1));
            let number = load.recorder.watch(&name, &member, &load.prefix, from);
            let said = follow(&load, watch, number, channel, from).await;
            load.recorder.said(number, said);
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow(load: &Load, watch: usize, number: usize, channel: Channel, from: i64) -> Said {
    let create = etcd::WatchCreateRequest {
        key: Bytes::copy_from_slice(load.prefix.as_bytes()),
        range_end: prefix_end(&load.prefix),
        start_revision: from,
        prev_kv: true,
        ..etcd::WatchCreateRequest::default()
    };
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let request = etcd::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    if sender.send(request).await.is_err() {
        return Said::Ended("not sent".into());
    }
    let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
    let mut stream = match client.watch(ReceiverStream::new(receiver)).await {
        Ok(response) => response.into_inner(),
        Err(status) => return Said::Ended(status.message().to_owned()),
    };
    loop {
        match stream.next().await {
            Some(Ok(response)) if response.compact_revision > 0 => return Said::Compacted(response.compact_revision),
            Some(Ok(response)) if response.canceled => return Said::Ended(response.cancel_reason),
            Some(Ok(response)) => {
                let events: Vec<_> = response
                    .events
                    .iter()
                    .map(|event| {
                        let mut event = recorder::event(event);
                        event.kv.value = short(&event.kv.value);
                        if let Some(before) = &mut event.before {
                            before.value = short(&before.value);
                        }
                        event
                    })
                    .collect();
                // Its header may be ahead of what it has sent, so what it has reached is what it has sent.
                if let Some(reached) = events.iter().map(|event| event.kv.modified).max() {
                    load.tick();
                    load.recorder.said(number, Said::Batch(reached, events));
                    load.told().watched.insert(watch, reached);
                }
            }
            Some(Err(status)) => return Said::Ended(status.message().to_owned()),
            None => return Said::Ended("end of stream".into()),
        }
    }
}

#[test]
fn large_values_are_remembered_by_name_and_length() {
    assert_eq!(short(&long("c1-7", 3)), "c1-7~3");
    assert_eq!(short("c1-7~3:xxy"), "c1-7~3 DAMAGED");
    assert_eq!(short("c1-7~3:xx"), "c1-7~3 DAMAGED");
    assert_eq!(short("c1-7"), "c1-7");
    let transaction = Transaction { puts: vec![("k".into(), long("v", 9))], ..Transaction::default() };
    let Some(Request::RequestPut(put)) = request(&transaction).success[0].request.clone() else { unreachable!() };
    assert_eq!(put.value.len(), "v~9:".len() + 9);
    assert_eq!(short_transaction(transaction).puts[0].1, "v~9");
}
