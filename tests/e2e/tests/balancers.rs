//! The balancers in front of three servers: clients that know one address go on working while each server in turn, and the
//! balancer that holds the address, lose their power. A watch moves to another server and misses nothing.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{sync::Mutex, task::block_in_place};
use trireme_harness::{Cluster, Host, eventually};

/// Until something that must come has come.
const LIMIT: Duration = Duration::from_secs(60);
/// What a client waits for one answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries, as client-go's backoff begins.
const PAUSE: Duration = Duration::from_millis(100);
/// So many tries of one write before a client gives up.
const TRIES: u32 = 50;

const NAME: &str = "counter";

async fn client(cluster: &Cluster) -> anyhow::Result<Client> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// A writer that counts up, one number after the other, and what became of it.
#[derive(Default)]
struct Counter {
    acknowledged: AtomicU32,
    requests: AtomicU32,
    failed: AtomicU32,
    stop: AtomicBool,
}

impl Counter {
    /// Writes one number after the other. Each is the same write however often it is sent, so an unknown outcome is sent again.
    async fn write(&self, maps: Api<ConfigMap>) -> anyhow::Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            let next = self.acknowledged.load(Ordering::Relaxed) + 1;
            let patch = Patch::Merge(serde_json::json!({"data": {"n": next.to_string()}}));
            let mut tries = 0;
            while let Err(error) = self.once(&maps, &patch).await {
                self.failed.fetch_add(1, Ordering::Relaxed);
                tries += 1;
                ensure!(tries < TRIES, "number {next} was refused {tries} times: {error:#}");
                tokio::time::sleep(PAUSE).await;
            }
            self.acknowledged.store(next, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn once(&self, maps: &Api<ConfigMap>, patch: &Patch<serde_json::Value>) -> anyhow::Result<()> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        tokio::time::timeout(PATIENCE, maps.patch(NAME, &PatchParams::default(), patch)).await.context("no answer")??;
        Ok(())
    }
}

/// A watch that goes on where it was cut off, and all that it was told.
#[derive(Default)]
struct Watcher {
    seen: Mutex<Vec<u32>>,
    resumed: AtomicU32,
}

impl Watcher {
    async fn watch(&self, maps: Api<ConfigMap>, mut revision: String) -> anyhow::Result<()> {
        let params = WatchParams::default().fields(&format!("metadata.name={NAME}")).timeout(290);
        loop {
            // A connection that cannot be made, and one that breaks, are the same to a client: it comes again.
            if let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, maps.watch(&params, &revision)).await {
                let mut stream = std::pin::pin!(stream);
                while let Some(Ok(event)) = stream.next().await {
                    match event {
                        WatchEvent::Modified(map) | WatchEvent::Added(map) => {
                            let number = map.data.unwrap_or_default().get("n").context("no number")?.parse()?;
                            self.seen.lock().await.push(number);
                            revision = map.metadata.resource_version.context("no resourceVersion")?;
                        }
                        WatchEvent::Bookmark(mark) => revision = mark.metadata.resource_version,
                        WatchEvent::Error(status) => bail!("the watch cannot be resumed: {status:?}"),
                        WatchEvent::Deleted(_) => bail!("nobody deleted it"),
                    }
                }
            }
            self.resumed.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Writes are acknowledged again: some, after this moment.
async fn writes_go_on(counter: &Counter) -> anyhow::Result<()> {
    let (before, end) = (counter.acknowledged.load(Ordering::Relaxed), Instant::now() + LIMIT);
    while counter.acknowledged.load(Ordering::Relaxed) < before + 5 {
        ensure!(Instant::now() < end, "nothing was acknowledged after {before}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// The balancer that holds the address.
fn holder() -> anyhow::Result<Host> {
    for name in ["lb1", "lb2"] {
        let host = Host::named(name);
        if host.run("ip -o address show dev eth0").is_ok_and(|shown| shown.contains(" 10.77.0.100/")) {
            return Ok(host);
        }
    }
    bail!("no balancer holds the address")
}

fn ready(cluster: &Cluster, host: &Host) -> anyhow::Result<()> {
    let server = format!("--server=https://{}:6443", host.address()?);
    eventually(&format!("{} to be ready", host.name()), LIMIT, || cluster.kubectl(&[&server, "get", "--raw", "/readyz"])).map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_outlives_each_server_and_the_balancer_that_holds_it() -> anyhow::Result<()> {
    let cluster = Cluster::lab()?;
    let shown = std::fs::read_to_string(cluster.kubeconfig())?;
    ensure!(shown.contains("https://10.77.0.100:6443"), "the cluster is up without balancers: ops/up --vip");
    let ns = cluster.namespace("front")?;
    let maps: Api<ConfigMap> = Api::namespaced(client(&cluster).await?, ns.name());
    let mut map = ConfigMap { data: Some(BTreeMap::from([("n".into(), "0".into())])), ..Default::default() };
    map.metadata.name = Some(NAME.into());
    let made = maps.create(&PostParams::default(), &map).await?;

    let (counter, watcher) = (Arc::new(Counter::default()), Arc::new(Watcher::default()));
    let writing = tokio::spawn({
        let (counter, maps) = (counter.clone(), maps.clone());
        async move { counter.write(maps).await }
    });
    // A connection of its own, as another program would have.
    let theirs: Api<ConfigMap> = Api::namespaced(client(&cluster).await?, ns.name());
    let revision = made.metadata.resource_version.context("no resourceVersion")?;
    let watching = tokio::spawn({
        let watcher = watcher.clone();
        async move { watcher.watch(theirs, revision).await }
    });

    let mut hosts = ["s1", "s2", "s3"].map(Host::named).to_vec();
    hosts.push(block_in_place(holder)?);
    for host in &hosts {
        writes_go_on(&counter).await?;
        let (failed, moment) = (counter.failed.load(Ordering::Relaxed), Instant::now());
        block_in_place(|| host.power_off())?;
        writes_go_on(&counter).await.with_context(|| format!("with {} off", host.name()))?;
        let failed = counter.failed.load(Ordering::Relaxed) - failed;
        println!("{} off: {failed} requests failed, writes went on after {} ms", host.name(), moment.elapsed().as_millis());
        block_in_place(|| host.power_on())?;
        if host.name().starts_with('s') {
            block_in_place(|| ready(&cluster, host))?;
        } else {
            ensure!(block_in_place(holder)?.name() != host.name(), "{} took the address back", host.name());
        }
    }
    writes_go_on(&counter).await?;
    counter.stop.store(true, Ordering::Relaxed);
    writing.await??;

    let last = counter.acknowledged.load(Ordering::Relaxed);
    let end = Instant::now() + LIMIT;
    while watcher.seen.lock().await.last() != Some(&last) {
        if watching.is_finished() {
            watching.await??;
            bail!("the watch ended");
        }
        ensure!(Instant::now() < end, "the watch was told {:?} and not {last}", watcher.seen.lock().await.last());
        tokio::time::sleep(PAUSE).await;
    }
    watching.abort();
    let seen = watcher.seen.lock().await.clone();
    ensure!(seen == (1..=last).collect::<Vec<_>>(), "of 1 to {last} the watch told: {seen:?}");
    println!(
        "{} requests, {} failed and were sent again; {last} numbers written, all told in order; the watch moved {} times",
        counter.requests.load(Ordering::Relaxed),
        counter.failed.load(Ordering::Relaxed),
        watcher.resumed.load(Ordering::Relaxed)
    );
    Ok(())
}
