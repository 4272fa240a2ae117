//! Faults that do not kill: servers that stand still and wake up, networks that are cut, one way or again and again, strangers at
//! the peer port, folders of other clusters, slow members, wrong clocks. Nothing here may end a process, show an old value as a
//! new one, or do anything twice.
//!
//! `TRIREME_FAULT_ROUNDS` makes each longer than its few rounds (`ops/test chaos`).

mod clients;
mod clocks;
mod crowd;
mod partitions;
mod strangers;
mod three;

use std::time::Duration;

use anyhow::{Context, ensure};
use rand::Rng;
use serde_json::{Value, json};
use tokio::task::block_in_place;
use trireme_e2e::process::Pending;
use trireme_harness::eventually;

use clients::Clients;
use crowd::Crowd;
use three::{Three, get, homes, send};

/// Until something that must come has come. Generous: the machine may be busy.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a leader stands still: several elections.
const STANDSTILL: Duration = Duration::from_secs(3);
const MARKER: &str = "/api/v1/namespaces/default/configmaps";

/// How often a fault is made, where it is made more than once.
fn rounds(few: usize) -> anyhow::Result<usize> {
    std::env::var("TRIREME_FAULT_ROUNDS").map_or(Ok(few), |rounds| rounds.parse()).context("TRIREME_FAULT_ROUNDS: expected a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stands_still_and_wakes_up_shows_nothing_old_and_writes_nothing() -> anyhow::Result<()> {
    let homes = homes("127.0.51.1")?;
    let mut three = Three::start(&homes)?;
    let clients = Clients::start(&three).await?;
    let mut crowd = Crowd::start(&three).await?;
    block_in_place(|| {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "marker"}});
        send(&three.servers[0], "POST", MARKER, &map)
    })?;
    for round in 0..rounds(2)? {
        clients.go_on(&[0, 1, 2], 10).await?;
        let (leader, term) = three.leader().await?;
        let others = three.but(leader);
        // Work for its controllers and its scheduler, in the middle of which it is stopped.
        crowd.grow(&three.servers[others[0]], 3)?;
        let delay = Duration::from_millis(rand::rng().random_range(0..60));
        tokio::time::sleep(delay).await;
        three.signal(leader, "STOP")?;
        let stood = stand_still(&three, &clients, leader, term, round).await;
        three.signal(leader, "CONT")?;
        let (successor, later) = stood?.awake(&three, leader).await?;
        three.all_well().await.with_context(|| format!("after {leader} woke up"))?;
        crowd.settle(&three.servers[leader]).await?;
        println!(
            "round {round}: server {leader} led term {term}, stopped after {} ms; server {successor} leads term {later}",
            delay.as_millis()
        );
    }
    nobody_waits_for_a_slow_follower(&three, &clients).await?;
    println!("{}", clients.judge(&three).await?);
    Ok(())
}

/// A follower that stands still most of the time: while it does, the two others acknowledge writes.
async fn nobody_waits_for_a_slow_follower(three: &Three<'_>, clients: &Clients) -> anyhow::Result<()> {
    let (leader, _) = three.leader().await?;
    let slow = three.but(leader)[0];
    for _ in 0..rounds(5)? {
        three.signal(slow, "STOP")?;
        let went_on = clients.go_on(&three.but(slow), 20).await;
        three.signal(slow, "CONT")?;
        went_on.with_context(|| format!("with server {slow} standing still"))?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    clients.go_on(&[slow], 10).await
}

/// What was asked of a server that stands still.
struct Asked {
    reads: tokio::task::JoinHandle<usize>,
    marker: Pending,
    /// The revision of the write that set the marker before the marker was asked for.
    revision: i64,
    successor: (usize, u64),
}

/// While a server stands still another leads and writes are acknowledged; then it is asked for the newest.
async fn stand_still(three: &Three<'_>, clients: &Clients, leader: usize, term: u64, round: usize) -> anyhow::Result<Asked> {
    let since = tokio::time::Instant::now();
    let others = three.but(leader);
    let successor = three.agreed(&others, term).await?;
    clients.go_on(&others, 20).await?;
    tokio::time::sleep_until(since + STANDSTILL).await;
    let marked = block_in_place(|| {
        let data = json!({"data": {"round": round.to_string()}});
        send(&three.servers[others[1]], "PATCH", &format!("{MARKER}/marker"), &data)
    })?;
    let marker = three.servers[leader].admin_later(&[&format!("{MARKER}/marker")])?;
    Ok(Asked { reads: clients.reads(leader, 20), marker, revision: revision_of(&marked)?, successor })
}

impl Asked {
    /// It is awake: whatever it answers is not older than what was acknowledged elsewhere, and it does answer.
    async fn awake(self, three: &Three<'_>, woken: usize) -> anyhow::Result<(usize, u64)> {
        let waited = block_in_place(|| self.marker.answer());
        let again = || get(&three.servers[woken], &format!("{MARKER}/marker"));
        let again = block_in_place(|| eventually("an answer of the server that woke up", LIMIT, again))?;
        // The request that waited may have been given up with its connection.
        let waited = waited.ok().filter(|answer| answer.code == 200).map(|answer| serde_json::from_str(&answer.body)).transpose()?;
        for found in waited.iter().chain([&again]) {
            let revision = revision_of(found)?;
            ensure!(revision >= self.revision, "a stale read: revision {revision}, acknowledged was {}", self.revision);
        }
        // What these clients were told is in the history, which is checked at the end.
        let answered = self.reads.await?;
        println!("{} of the reads that waited for it were answered", answered + waited.iter().count());
        Ok(self.successor)
    }
}

fn revision_of(object: &Value) -> anyhow::Result<i64> {
    Ok(object["metadata"]["resourceVersion"].as_str().context("resourceVersion")?.parse()?)
}
