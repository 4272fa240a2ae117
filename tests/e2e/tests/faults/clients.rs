//! Clients of the etcd API: readers, writers and watchers at every server, and the history of what they were told, which the
//! checker of the simulation judges.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures::StreamExt;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use trireme_chaos::{
    history::{Answer, Call, Final, Kv, Said, Transaction},
    invariants,
    sim::{
        load::{found, request},
        recorder::{Recorder, event, kv},
        trace::Trace,
        watcher::prefix_end,
    },
};
use trireme_proto::etcd::{self, kv_client::KvClient, watch_client::WatchClient, watch_request::RequestUnion};

use super::{LIMIT, three::Three};

/// All keys of these clients.
const PREFIX: &str = "k/";
/// What is written last.
const END: &str = "k/end";
const REGISTERS: u32 = 5;
/// A call that takes longer is given up: its outcome is unknown.
const CALL: Duration = Duration::from_secs(5);
/// Between two calls of one client.
const PACE: Duration = Duration::from_millis(25);

/// The clients of three servers.
pub struct Clients {
    shared: Arc<Shared>,
    channels: Vec<Channel>,
    workers: Vec<JoinHandle<()>>,
    watchers: Vec<JoinHandle<()>>,
}

struct Shared {
    recorder: Arc<Recorder>,
    began: Instant,
    stop: AtomicBool,
    /// Acknowledged writes, by server.
    acknowledged: [AtomicU64; 3],
    /// Where each watcher is.
    reached: [AtomicI64; 3],
}

/// One client at one server.
struct Client {
    shared: Arc<Shared>,
    name: String,
    server: usize,
    kv: KvClient<Channel>,
    count: u64,
}

impl Clients {
    /// Starts a watcher and two clients at each server.
    pub async fn start(three: &Three<'_>) -> anyhow::Result<Self> {
        let seed: u64 = rand::rng().random();
        println!("clients: seed {seed}");
        let channels = (0..3).map(|server| three.channel(server)).collect::<anyhow::Result<Vec<_>>>()?;
        let shared = Arc::new(Shared {
            recorder: Recorder::new(Arc::new(Trace::new(false))),
            began: Instant::now(),
            stop: AtomicBool::new(false),
            acknowledged: Default::default(),
            reached: Default::default(),
        });
        let first = KvClient::new(channels[0].clone()).range(range(0)).await?.into_inner();
        let from = first.header.context("no header")?.revision + 1;
        let mut clients = Self { shared, channels, workers: Vec::new(), watchers: Vec::new() };
        for server in 0..3 {
            clients.watchers.push(tokio::spawn(watch(clients.shared.clone(), server, clients.channels[server].clone(), from)));
            for n in 0..2 {
                let client = clients.client(&format!("c{n}"), server);
                clients.workers.push(tokio::spawn(client.work(StdRng::seed_from_u64(seed ^ (server * 2 + n) as u64))));
            }
        }
        Ok(clients)
    }

    fn client(&self, name: &str, server: usize) -> Client {
        let kv = KvClient::new(self.channels[server].clone());
        Client { shared: self.shared.clone(), name: format!("{name}@{server}"), server, kv, count: 0 }
    }

    /// Waits until each of these servers has acknowledged so many more writes.
    pub async fn go_on(&self, servers: &[usize], writes: u64) -> anyhow::Result<()> {
        let count = |server: usize| self.shared.acknowledged[server].load(Ordering::SeqCst);
        let wanted: Vec<(usize, u64)> = servers.iter().map(|server| (*server, count(*server) + writes)).collect();
        let end = Instant::now() + LIMIT;
        while let Some((server, wanted)) = wanted.iter().find(|(server, wanted)| count(*server) < *wanted) {
            ensure!(Instant::now() < end, "server {server} acknowledges nothing more: {} of {wanted}", count(*server));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Linearizable reads at a server, all sent now; how many were answered, when they are over.
    pub fn reads(&self, server: usize, count: usize) -> JoinHandle<usize> {
        let clients: Vec<Client> = (0..count).map(|n| self.client(&format!("read{n}"), server)).collect();
        tokio::spawn(async move {
            let answers = clients.into_iter().map(|mut client| async move { client.read().await });
            let answers = futures::future::join_all(answers).await;
            answers.iter().filter(|answer| matches!(answer, Answer::Read(..))).count()
        })
    }

    /// Ends the load, waits until every watcher and every server has everything, and holds the history against every promise.
    pub async fn judge(mut self, three: &Three<'_>) -> anyhow::Result<String> {
        self.shared.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.await?;
        }
        let (leader, _) = three.leader().await?;
        let mut last = self.client("last", leader);
        let write = Transaction { puts: vec![(END.to_owned(), "the end".to_owned())], ..Transaction::default() };
        let Answer::Written(end) = last.write(write).await else { anyhow::bail!("the last write is not acknowledged") };
        for server in 0..3 {
            let limit = Instant::now() + LIMIT;
            while self.shared.reached[server].load(Ordering::SeqCst) < end {
                ensure!(Instant::now() < limit, "the watch at server {server} is not told of the end at {end}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let mut keys = KvClient::new(self.channels[server].clone());
            let found = keys.range(range(end)).await?.into_inner();
            let keys: Vec<Kv> = found.kvs.iter().map(kv).collect();
            self.shared.recorder.finish(Final { member: three.servers[server].place().name.clone(), revision: end, keys });
        }
        self.watchers.iter().for_each(JoinHandle::abort);
        let mut history = self.shared.recorder.history();
        // The API server's keys are in the same store.
        history.shared = true;
        let judging = Instant::now();
        let violations = invariants::check(&history);
        println!("judged after {:?}", judging.elapsed());
        ensure!(violations.is_empty(), "of {} operations: {violations:#?}", history.operations.len());
        let count = |wanted: fn(&Answer) -> bool| history.operations.iter().filter(|o| o.answer().is_some_and(wanted)).count();
        Ok(format!(
            "{} operations: {} writes acknowledged, {} reads, {} unknown; every promise kept",
            history.operations.len(),
            count(|answer| matches!(answer, Answer::Written(_))),
            count(|answer| matches!(answer, Answer::Read(..))),
            count(|answer| matches!(answer, Answer::Unknown(_))),
        ))
    }
}

impl Client {
    async fn work(mut self, mut random: StdRng) {
        let mut known: Vec<Kv> = Vec::new();
        while !self.shared.stop.load(Ordering::SeqCst) {
            self.count += 1;
            let key = format!("k/r{}", random.random_range(0..REGISTERS));
            let value = format!("{}-{}", self.name, self.count);
            let mut write = Transaction { puts: vec![(key.clone(), value.clone())], ..Transaction::default() };
            match random.random_range(0..100) {
                0..35 => {}
                // On what it read last, which may be old.
                35..55 => write.expect = vec![(key.clone(), known.iter().find(|kv| kv.key == key).map_or(0, |kv| kv.modified))],
                // Both or none; no value is written twice.
                55..60 => write.puts = ["k/r0", "k/r4"].map(|key| (key.to_owned(), format!("{value}-{key}"))).to_vec(),
                _ => {
                    if let Answer::Read(_, found) = self.read().await {
                        known = found;
                    }
                    tokio::time::sleep(PACE).await;
                    continue;
                }
            }
            if let Answer::Written(_) = self.write(write).await {
                self.shared.acknowledged[self.server].fetch_add(1, Ordering::SeqCst);
            }
            tokio::time::sleep(PACE).await;
        }
    }

    async fn write(&mut self, write: Transaction) -> Answer {
        let number = self.shared.begin(&self.name, Call::Write(write.clone()));
        let answer = match tokio::time::timeout(CALL, self.kv.txn(request(&write))).await {
            Ok(Ok(response)) => {
                let response = response.into_inner();
                let revision = response.header.unwrap_or_default().revision;
                match response.succeeded {
                    true => Answer::Written(revision),
                    false => Answer::Conflict(revision, found(&response.responses)),
                }
            }
            // The error may have occurred on the way back, after the write took effect.
            Ok(Err(status)) => Answer::Unknown(status.to_string()),
            Err(_) => Answer::Unknown("no answer".to_owned()),
        };
        self.shared.end(number, answer)
    }

    async fn read(&mut self) -> Answer {
        let number = self.shared.begin(&self.name, Call::Read(PREFIX.to_owned()));
        let answer = match tokio::time::timeout(CALL, self.kv.range(range(0))).await {
            Ok(Ok(response)) => {
                let response = response.into_inner();
                Answer::Read(response.header.unwrap_or_default().revision, response.kvs.iter().map(kv).collect())
            }
            Ok(Err(status)) => Answer::Refused(status.to_string()),
            Err(_) => Answer::Refused("no answer".to_owned()),
        };
        self.shared.end(number, answer)
    }
}

impl Shared {
    fn now(&self) {
        self.recorder.set_now(self.began.elapsed().as_millis() as u64);
    }

    fn begin(&self, client: &str, call: Call) -> usize {
        self.now();
        self.recorder.begin(client, call)
    }

    fn end(&self, number: usize, answer: Answer) -> Answer {
        self.now();
        self.recorder.end(number, answer.clone());
        answer
    }
}

/// All keys, now and linearizably, or as they were at a revision.
fn range(revision: i64) -> etcd::RangeRequest {
    etcd::RangeRequest { key: PREFIX.into(), range_end: prefix_end(PREFIX), revision, serializable: revision > 0, ..Default::default() }
}

/// Follows one server for ever; a watch that ends is resumed where it was.
async fn watch(shared: Arc<Shared>, server: usize, channel: Channel, mut next: i64) {
    loop {
        let number = shared.recorder.watch(&format!("w{server}"), &format!("{server}"), PREFIX, next);
        let ended = follow(&shared, server, channel.clone(), number, &mut next).await;
        shared.now();
        shared.recorder.said(number, ended);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn follow(shared: &Shared, server: usize, channel: Channel, number: usize, next: &mut i64) -> Said {
    let create = etcd::WatchCreateRequest {
        key: PREFIX.into(),
        range_end: prefix_end(PREFIX),
        start_revision: *next,
        prev_kv: true,
        ..Default::default()
    };
    let asked = etcd::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = futures::stream::iter([asked]).chain(futures::stream::pending());
    let mut answers = match WatchClient::new(channel).watch(requests).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return Said::Ended(status.to_string()),
    };
    loop {
        let answer = match answers.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return Said::Ended("it ended".to_owned()),
            Err(status) => return Said::Ended(status.to_string()),
        };
        if answer.canceled {
            return if answer.compact_revision > 0 { Said::Compacted(answer.compact_revision) } else { Said::Ended(answer.cancel_reason) };
        }
        let Some(last) = answer.events.last().and_then(|event| event.kv.as_ref()).map(|kv| kv.mod_revision) else { continue };
        shared.now();
        shared.recorder.said(number, Said::Batch(last, answer.events.iter().map(event).collect()));
        shared.reached[server].store(last, Ordering::SeqCst);
        *next = last + 1;
    }
}
