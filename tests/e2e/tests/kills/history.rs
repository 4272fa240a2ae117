//! The cluster's own account of what happened: watches that start once and are only ever resumed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use futures::StreamExt;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use kube::{
    Api, ResourceExt,
    api::{WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;

use super::load::{Ledger, read_back};

/// A server that is stopped, not dead, leaves its watches silent: look elsewhere then.
const SILENCE: Duration = Duration::from_secs(3);

/// Every event of a collection from one resourceVersion on, in order.
#[derive(Debug)]
pub struct History<T> {
    events: Arc<Mutex<Events<T>>>,
}

#[derive(Debug, Default)]
struct Events<T> {
    list: Vec<(i64, T)>,
    seen: i64,
}

impl<T> Clone for History<T> {
    fn clone(&self) -> Self {
        Self { events: self.events.clone() }
    }
}

impl<T> History<T>
where
    T: kube::Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    pub fn from(revision: i64) -> Self {
        Self { events: Arc::new(Mutex::new(Events { list: Vec::new(), seen: revision })) }
    }

    fn lock(&self) -> MutexGuard<'_, Events<T>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to which revision this account goes.
    pub fn seen(&self) -> i64 {
        self.lock().seen
    }

    /// The newest object.
    pub fn last(&self) -> Option<T> {
        self.lock().list.last().map(|(_, object)| object.clone())
    }

    pub fn all(&self) -> Vec<(i64, T)> {
        self.lock().list.clone()
    }

    /// Follows the collection through whichever server answers, for ever; only a broken promise ends it.
    pub async fn follow(self, servers: Vec<Api<T>>, params: WatchParams) -> anyhow::Result<()> {
        let mut server = 0;
        loop {
            let from = self.seen();
            if let Ok(stream) = servers[server].watch(&params, &from.to_string()).await {
                let mut stream = stream.boxed();
                while let Ok(Some(Ok(event))) = tokio::time::timeout(SILENCE, stream.next()).await {
                    self.take(event).with_context(|| format!("watch from {from}"))?;
                }
            }
            server = (server + 1) % servers.len();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn take(&self, event: WatchEvent<T>) -> anyhow::Result<()> {
        let mut events = self.lock();
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let revision = object.resource_version().context("no resourceVersion")?.parse()?;
                ensure!(revision > events.seen, "an event at {revision} after {}: {object:?}", events.seen);
                events.seen = revision;
                events.list.push((revision, object));
            }
            WatchEvent::Bookmark(mark) => {
                let revision: i64 = mark.metadata.resource_version.parse()?;
                ensure!(revision >= events.seen, "a bookmark at {revision} after {}", events.seen);
                events.seen = revision;
            }
            WatchEvent::Deleted(object) => bail!("nobody deletes, and yet: {object:?}"),
            WatchEvent::Error(status) if status.code == 410 => bail!("the history is gone: {status:?}"),
            WatchEvent::Error(_) => {}
        }
        Ok(())
    }
}

/// Holds the history against the ledger: each acknowledged write is in it, at its revision and with its value, and
/// nothing else but writes in doubt, each once.
pub fn judge(history: &[(i64, ConfigMap)], ledger: &Ledger) -> anyhow::Result<BTreeMap<String, (i64, String)>> {
    let mut newest = BTreeMap::new();
    let mut happened = BTreeSet::new();
    let mut seen = BTreeMap::new();
    for (revision, map) in history {
        let (_, value) = read_back(map)?;
        ensure!(!ledger.refused.contains(&value), "{value} was refused, and yet it is stored at {revision}");
        ensure!(happened.insert(value.clone()), "{value} was stored twice, again at {revision}");
        match ledger.acknowledged.get(revision) {
            Some(ack) => ensure!(ack.value == value && ack.key == map.name_any(), "{revision}: acknowledged {ack:?}, stored {value}"),
            None => ensure!(
                ledger.unknown.contains(&value),
                "{value}, stored at {revision}, was acknowledged at another revision or never sent"
            ),
        }
        seen.insert(*revision, ());
        newest.insert(map.name_any(), (*revision, value));
    }
    for (revision, ack) in &ledger.acknowledged {
        ensure!(seen.contains_key(revision), "LOST: {} was acknowledged at {revision}", ack.value);
    }
    Ok(newest)
}

/// Who led, in the order of revisions: `<host>_<term>`. A deposed leader's renewal after its successor's would go back.
pub fn reigns(leases: &[(i64, Lease)]) -> anyhow::Result<Vec<(String, u64)>> {
    let mut reigns: Vec<(String, u64)> = Vec::new();
    for (revision, lease) in leases {
        let (host, term) = reign(lease).context("a Lease without a holder")?;
        match reigns.last() {
            Some((last, at)) if *at == term => ensure!(*last == host, "{revision}: {host} and {last} lead in term {term}"),
            Some((last, at)) => {
                ensure!(*at < term, "{revision}: {host} wrote in term {term}, after {last} in term {at}");
                reigns.push((host, term));
            }
            None => reigns.push((host, term)),
        }
    }
    Ok(reigns)
}

/// Host and term of a leader's Lease.
pub fn reign(lease: &Lease) -> Option<(String, u64)> {
    let holder = lease.spec.as_ref()?.holder_identity.as_ref()?;
    let (host, term) = holder.rsplit_once('_')?;
    Some((host.to_owned(), term.parse().ok()?))
}

/// A check that never finds anything proves nothing.
#[test]
fn lost_changed_refused_and_repeated_writes_are_found() {
    let now = std::time::Instant::now();
    let map = |value: &str, revision: i64| {
        let mut map = ConfigMap { data: Some(BTreeMap::from([("value".into(), value.into())])), ..Default::default() };
        map.metadata.name = Some("k".into());
        map.metadata.resource_version = Some(revision.to_string());
        (revision, map)
    };
    let ack = |value: &str| super::load::Ack { key: "k".into(), value: value.into(), started: now, finished: now };
    let mut ledger = Ledger::default();
    ledger.acknowledged.extend([(5, ack("a")), (7, ack("b"))]);
    ledger.unknown.insert("u".into());
    ledger.refused.insert("r".into());
    let newest = judge(&[map("a", 5), map("b", 7), map("u", 9)], &ledger).unwrap();
    assert_eq!(newest["k"], (9, "u".to_owned()));
    for (what, history) in [
        ("LOST", vec![map("a", 5)]),
        ("acknowledged Ack", vec![map("a", 5), map("x", 7)]),
        ("refused", vec![map("a", 5), map("b", 7), map("r", 9)]),
        ("twice", vec![map("a", 5), map("b", 7), map("b", 9)]),
        ("never sent", vec![map("a", 5), map("b", 7), map("x", 9)]),
    ] {
        let found = judge(&history, &ledger).unwrap_err().to_string();
        assert!(found.contains(what), "{what}: {found}");
    }
}
