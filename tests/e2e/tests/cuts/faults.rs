//! Disks that are slow, that fail and that are full, under the same load and the same checks.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rand::{SeedableRng, rngs::StdRng};
use trireme_unsynced::Survivors;

use super::{Account, Generation};
use super::{
    CLIENTS, begin, judge,
    load::Load,
    site::{Site, places, until},
};

/// What a sync takes on a bad day.
const SLOW: Duration = Duration::from_millis(100);
/// What a full disk has left: too little for the upkeep of a store.
const LITTLE: u64 = 1 << 20;
const PLENTY: u64 = 3 << 30;

/// Clients that must get on: those whose server can't serve writes move to another, so all do.
async fn all_write(load: &Load, since: Instant) -> anyhow::Result<()> {
    until("every client to write", || async {
        ensure!(load.writers_since(since) == CLIENTS, "some client has none acknowledged");
        Ok(())
    })
    .await
}

fn all_live(site: &mut Site<'_>) -> anyhow::Result<()> {
    site.members.iter_mut().try_for_each(|member| member.lives())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_failing_and_full_disks_end_nobody() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let slow_secs =
        std::env::var("TRIREME_SLOW_SECS").map_or(Ok(10), |secs| secs.parse()).context("TRIREME_SLOW_SECS: expected a number")?;
    let places = places("127.0.31.1")?;
    let mut site = Site::found(&places).await?;
    let (mut past, mut account) = (Vec::new(), Account::default());
    let mut random = StdRng::seed_from_u64(1);

    let generation = begin(&site, 0, &mut random).await?;
    slow(&mut site, &generation, Duration::from_secs(slow_secs)).await.context("slow disks")?;
    judge(&site, generation, &mut past, &mut account).await?;

    let generation = begin(&site, 1, &mut random).await?;
    failing(&mut site, &generation).await.context("a failing disk")?;
    judge(&site, generation, &mut past, &mut account).await?;

    let generation = begin(&site, 2, &mut random).await?;
    full(&mut site, &generation).await.context("full disks")?;
    judge(&site, generation, &mut past, &mut account).await?;
    println!("disks: {account}");
    Ok(())
}

/// Every sync takes its time, everywhere: the same leader leads, and no process ends.
async fn slow(site: &mut Site<'_>, generation: &Generation, time: Duration) -> anyhow::Result<()> {
    all_write(&generation.load, Instant::now()).await?;
    let before = until("a leader", || site.leader()).await?;
    site.members.iter().for_each(|member| member.disk.delay_syncs(SLOW));
    let end = Instant::now() + time;
    while Instant::now() < end {
        let began = Instant::now();
        all_write(&generation.load, began).await?;
        all_live(site)?;
        let now = until("a leader", || site.leader()).await?;
        ensure!(now == before, "leader and term were {before:?}, are {now:?}");
    }
    site.members.iter().for_each(|member| member.disk.delay_syncs(Duration::ZERO));
    println!("syncs of {} ms everywhere for {} s: s{} leads on in term {}", SLOW.as_millis(), time.as_secs(), before.0 + 1, before.1);
    Ok(())
}

/// The leader's disk fails: another leads. With a disk that works the server is back: after a power cut, and by itself.
async fn failing(site: &mut Site<'_>, generation: &Generation) -> anyhow::Result<()> {
    let failed = fail_leader(site, generation).await?;
    // A process that was told of a failed sync does not trust its state again; what it left behind must be enough for its successor,
    // and what a failed sync has not saved must not be taken for saved.
    site.members[failed].disk.fail_syncs(false);
    site.members[failed].kill()?;
    site.members[failed].cut(Survivors::Nothing, 1)?;
    site.members[failed].start()?;
    site.ready().await?;

    let failed = fail_leader(site, generation).await?;
    site.members[failed].disk.fail_syncs(false);
    let healed = Instant::now();
    site.ready().await.context("a disk that works again, and nobody has started the server again")?;
    all_live(site)?;
    println!("a disk that works again: the server is back after {} ms", healed.elapsed().as_millis());
    Ok(())
}

/// Fails the syncs of the leader, and waits until another server leads. Returns the server that was hit.
async fn fail_leader(site: &Site<'_>, generation: &Generation) -> anyhow::Result<usize> {
    all_write(&generation.load, Instant::now()).await?;
    let (leader, term) = until("a leader", || site.leader()).await?;
    let moment = Instant::now();
    site.members[leader].disk.fail_syncs(true);
    let other = (leader + 1) % 3;
    until("another leader", || async {
        let (now, later) = site.leader_as_told_by(other).await?;
        ensure!(now != leader && later > term, "s{} leads in term {later}", now + 1);
        Ok(())
    })
    .await?;
    println!("failing syncs at the leader: another leads after {} ms", moment.elapsed().as_millis());
    all_write(&generation.load, Instant::now()).await?;
    Ok(leader)
}

/// Full disks: with one of them full, clients notice nothing; with all of them full, writes are refused and reads are answered; with
/// space again, the cluster goes on by itself.
async fn full(site: &mut Site<'_>, generation: &Generation) -> anyhow::Result<()> {
    all_write(&generation.load, Instant::now()).await?;
    let (leader, _) = until("a leader", || site.leader()).await?;
    site.members[leader].disk.leave_free(LITTLE);
    until("a leader with space", || async {
        let (now, _) = site.leader().await?;
        ensure!(now != leader, "s{} leads", now + 1);
        Ok(())
    })
    .await?;
    all_write(&generation.load, Instant::now()).await?;
    site.members.iter().for_each(|member| member.disk.leave_free(LITTLE));
    until("a refusal", || async { site.must_refuse("space/new").await }).await?;
    for member in 0..3 {
        site.read(member, &generation.load.prefix).await.context("a linearizable read on full disks")?;
    }
    all_live(site)?;
    site.members.iter().for_each(|member| member.disk.leave_free(PLENTY));
    site.ready().await?;
    all_write(&generation.load, Instant::now()).await?;
    all_live(site)?;
    println!("full disks: one is led past, all refuse and serve reads, and with space they go on");
    Ok(())
}
