//! Writers that keep a ledger: which writes were acknowledged, which were refused, and which outcomes are unknown.
//!
//! Each writer owns its keys and every update names the resourceVersion it replaces, so that a write whose outcome is
//! unknown is decided by the next read, and a late one can never overwrite an acknowledged one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, api::PostParams};

/// Between two writes of one writer: the machine has other work too.
const PAUSE: Duration = Duration::from_millis(5);
const KEYS: usize = 8;
/// Tells the writers' objects from others.
pub const LABEL: (&str, &str) = ("load", "yes");

/// An acknowledged write.
#[derive(Debug, Clone)]
pub struct Ack {
    pub key: String,
    pub value: String,
    pub started: Instant,
    pub finished: Instant,
}

/// What became of every write so far.
#[derive(Debug, Default)]
pub struct Ledger {
    pub acknowledged: BTreeMap<i64, Ack>,
    pub unknown: BTreeSet<String>,
    pub refused: BTreeSet<String>,
    /// When each writer's last acknowledged write was sent.
    pub latest: BTreeMap<String, Instant>,
}

/// What the writers share.
#[derive(Debug, Default)]
pub struct Load {
    ledger: Mutex<Ledger>,
    highest: AtomicI64,
    stopped: AtomicBool,
}

impl Load {
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The highest acknowledged resourceVersion.
    pub fn highest(&self) -> i64 {
        self.highest.load(Ordering::SeqCst)
    }

    /// How long after `moment` the first write sent since `from` was acknowledged.
    pub fn gap(&self, moment: Instant, from: Instant) -> Option<Duration> {
        let ledger = self.ledger();
        ledger.acknowledged.values().filter(|ack| ack.started >= from).map(|ack| ack.finished - moment).min()
    }

    /// Whether each of so many writers has had a write acknowledged that was sent after `moment`.
    pub fn all_write(&self, writers: usize, moment: Instant) -> bool {
        self.ledger().latest.values().filter(|sent| **sent >= moment).count() == writers
    }

    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    pub fn stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    fn acknowledge(&self, revision: i64, floor: i64, ack: Ack) -> anyhow::Result<()> {
        ensure!(revision > floor, "{} was acknowledged at {revision}, though {floor} had been before it was sent", ack.value);
        self.highest.fetch_max(revision, Ordering::SeqCst);
        if let Some(other) = self.ledger().acknowledged.insert(revision, ack.clone()) {
            bail!("resourceVersion {revision} was given to {other:?} and to {ack:?}");
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Key {
    /// resourceVersion and value of what is known to be stored.
    stored: Option<(i64, String)>,
    /// Writes upon `stored` whose outcome is unknown.
    doubts: Vec<String>,
}

/// One writer: its keys, and the servers in its order of preference.
pub struct Writer {
    name: String,
    load: Arc<Load>,
    servers: Vec<Api<ConfigMap>>,
    current: usize,
    keys: Vec<Key>,
    count: usize,
}

enum Outcome {
    Stored(Box<ConfigMap>),
    Refused,
    Conflict,
    Unknown,
}

impl Writer {
    pub fn new(name: &str, load: Arc<Load>, servers: Vec<Api<ConfigMap>>) -> Self {
        Self { name: name.to_owned(), load, servers, current: 0, keys: (0..KEYS).map(|_| Key::default()).collect(), count: 0 }
    }

    /// Writes until the load is stopped; then decides what is still in doubt.
    pub async fn run(mut self) -> anyhow::Result<()> {
        while !self.load.stopped() {
            self.write().await.with_context(|| format!("writer {}", self.name))?;
            // One in twenty is read back from wherever the writer is: an acknowledged write is seen by every later read.
            if self.count.is_multiple_of(20) {
                self.read(self.count / 20 % KEYS).await?;
            }
            tokio::time::sleep(PAUSE).await;
        }
        for key in 0..KEYS {
            self.read(key).await?;
        }
        Ok(())
    }

    async fn write(&mut self) -> anyhow::Result<()> {
        let key = self.count % KEYS;
        let name = format!("{}-{key}", self.name);
        let value = format!("{}-{}", self.name, self.count);
        self.count += 1;
        let mut map = ConfigMap { data: Some(BTreeMap::from([("value".into(), value.clone())])), ..Default::default() };
        map.metadata.name = Some(name.clone());
        map.metadata.labels = Some(BTreeMap::from([LABEL].map(|(key, value)| (key.into(), value.into()))));
        map.metadata.resource_version = self.keys[key].stored.as_ref().map(|(revision, _)| revision.to_string());
        let (floor, started) = (self.load.highest(), Instant::now());
        let api = &self.servers[self.current];
        let answer = match map.metadata.resource_version {
            Some(_) => api.replace(&name, &PostParams::default(), &map).await,
            None => api.create(&PostParams::default(), &map).await,
        };
        match outcome(answer)? {
            Outcome::Stored(map) => {
                let (revision, stored) = read_back(&map)?;
                ensure!(stored == value, "the answer to {value} says {stored}");
                self.keys[key] = Key { stored: Some((revision, value.clone())), doubts: Vec::new() };
                self.load.ledger().latest.insert(self.name.clone(), started);
                self.load.acknowledge(revision, floor, Ack { key: name, value, started, finished: Instant::now() })?;
            }
            Outcome::Refused => {
                self.load.ledger().refused.insert(value);
                self.move_on();
            }
            Outcome::Conflict => {
                ensure!(!self.keys[key].doubts.is_empty(), "{value}: nobody else writes {name}, and yet there is a conflict");
                self.load.ledger().refused.insert(value);
                self.read(key).await?;
            }
            Outcome::Unknown => {
                self.load.ledger().unknown.insert(value.clone());
                self.keys[key].doubts.push(value);
                self.move_on();
                self.read(key).await?;
            }
        }
        Ok(())
    }

    /// Reads a key until some server answers, and holds the answer against what may be there.
    async fn read(&mut self, key: usize) -> anyhow::Result<()> {
        let name = format!("{}-{key}", self.name);
        let end = Instant::now() + super::LIMIT;
        let found = loop {
            match self.servers[self.current].get_opt(&name).await {
                Ok(found) => break found,
                Err(kube::Error::Api(status)) if status.code < 429 => bail!("read of {name}: {status:?}"),
                Err(error) if Instant::now() > end => return Err(error).with_context(|| format!("nobody answers the read of {name}")),
                Err(_) => self.move_on(),
            }
            tokio::time::sleep(PAUSE).await;
        };
        let state = &mut self.keys[key];
        match (&state.stored, found.as_ref().map(read_back).transpose()?) {
            (None, None) => {}
            (Some(stored), Some(found)) if *stored == found => {}
            (stored, Some((revision, value)))
                if stored.as_ref().is_none_or(|(old, _)| revision > *old) && state.doubts.contains(&value) =>
            {
                *state = Key { stored: Some((revision, value)), doubts: Vec::new() };
            }
            (stored, found) => bail!("{name} reads {found:?}; acknowledged or seen was {stored:?}, in doubt {:?}", state.doubts),
        }
        Ok(())
    }

    fn move_on(&mut self) {
        self.current = (self.current + 1) % self.servers.len();
    }
}

fn outcome(answer: kube::Result<ConfigMap>) -> anyhow::Result<Outcome> {
    Ok(match answer {
        Ok(map) => Outcome::Stored(Box::new(map)),
        Err(kube::Error::Api(status)) => match status.code {
            409 => Outcome::Conflict,
            429 | 503 => Outcome::Refused,
            500 | 504 => Outcome::Unknown,
            _ => bail!("a write was answered with {status:?}"),
        },
        Err(_) => Outcome::Unknown,
    })
}

/// resourceVersion and value of a stored object.
pub fn read_back(map: &ConfigMap) -> anyhow::Result<(i64, String)> {
    let revision = map.metadata.resource_version.as_ref().context("no resourceVersion")?.parse()?;
    let value = map.data.as_ref().and_then(|data| data.get("value")).context("no value")?.clone();
    Ok((revision, value))
}
