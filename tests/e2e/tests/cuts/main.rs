//! Power cuts under load, on real servers and real RocksDB: a process dies and its disk forgets what was not synced. Of the leader,
//! of a follower, of all at once. Nothing acknowledged may be lost, no revision used twice, and no operator may be needed.
//!
//! `TRIREME_SEED` repeats a run's choices (processes are not replayed to the instruction), `TRIREME_CUTS` makes it longer than 6.

mod faults;
mod load;
mod site;

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use tokio::task::{JoinHandle, block_in_place};
use trireme_chaos::{
    history::{Answer, Final, History, Kv, Operation, Transaction, Violation},
    invariants,
    report::Figures,
    sim::{recorder::Recorder, trace::Trace},
};
use trireme_proto::etcd::kv_client::KvClient;
use trireme_unsynced::Survivors;

use load::{Client, Load, watch};
use site::{Site, places, until};

const CLIENTS: usize = 8;
/// After so many cuts the load pauses, all results are compared, and the next cuts begin with new keys.
const CUTS_PER_GENERATION: usize = 10;

/// Whose power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    Leader,
    Follower,
    All,
}

/// What the run has seen so far.
#[derive(Debug, Default)]
struct Account {
    cuts: BTreeMap<Whose, u64>,
    acknowledged: u64,
    unknown: u64,
    longest: Duration,
    violations: Vec<Violation>,
}

/// Everything that a generation needs.
struct Generation {
    load: Arc<Load>,
    from: i64,
    clients: Vec<JoinHandle<()>>,
    watches: Vec<JoinHandle<()>>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_lose_nothing() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let number = |name: &str| {
        std::env::var(name).ok().map(|text| text.parse::<u64>().with_context(|| format!("{name}: expected a number"))).transpose()
    };
    let seed = number("TRIREME_SEED")?.unwrap_or_else(|| rand::rng().random());
    let wanted = number("TRIREME_CUTS")?.unwrap_or(6) as usize;
    println!("power cuts: TRIREME_SEED={seed}");
    let mut account = Account::default();
    // Recorded as failed until the run has ended.
    account.figures(seed, false).note()?;
    let outcome = run(wanted, &mut StdRng::seed_from_u64(seed), &mut account).await;
    account.figures(seed, outcome.is_ok() || !account.violations.is_empty()).note()?;
    println!("seed {seed}: {account}");
    outcome
}

/// The youngest cluster there is: nothing of it has been on a disk for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_just_founded_survives() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let places = places("127.0.32.1")?;
    let mut site = Site::found(&places).await?;
    block_in_place(|| site.create_map(2, "first"))?;
    site.members.iter_mut().try_for_each(site::Member::kill)?;
    for member in &mut site.members {
        block_in_place(|| member.cut(Survivors::Nothing, 1))?;
    }
    site.members.iter_mut().try_for_each(site::Member::start)?;
    site.ready().await?;
    block_in_place(|| site.maps_are_there())
}

async fn run(wanted: usize, random: &mut StdRng, account: &mut Account) -> anyhow::Result<()> {
    let places = places("127.0.30.1")?;
    let mut site = Site::found(&places).await?;
    let mut past: Vec<Kv> = Vec::new();
    let (mut done, mut number) = (0, 0);
    while done < wanted {
        let cuts = CUTS_PER_GENERATION.min(wanted - done);
        let generation = begin(&site, number, random).await?;
        let outcome = cut_power(&mut site, &generation.load, done, cuts, random, account).await;
        match outcome {
            Ok(()) => {
                let judged = judge(&site, generation, &mut past, account).await;
                judged.with_context(|| format!("after power cut {}", done + cuts))?;
            }
            Err(error) => {
                // The history so far may explain the failure.
                let history = generation.load.recorder.history();
                for violation in invariants::check(&history).into_iter().filter(|violation| violation.invariant != LIVE_ONLY) {
                    println!("so far: {violation}");
                }
                return Err(error);
            }
        }
        done += cuts;
        number += 1;
    }
    Ok(())
}

/// Starts clients and watches on keys that have not been used yet.
async fn begin(site: &Site<'_>, number: usize, random: &mut StdRng) -> anyhow::Result<Generation> {
    let recorder = Recorder::new(Arc::new(Trace::new(false)));
    recorder.others_write();
    let load = Load::new(format!("cuts/{number:04}/"), site.endpoints.clone(), recorder, Instant::now());
    let (revision, _) = site.keys(0, &load.prefix).await?;
    let from = revision + 1;
    let watches = (0..site.members.len()).map(|server| tokio::spawn(watch(load.clone(), server, from))).collect();
    let clients = (0..CLIENTS).map(|n| {
        let seed = random.random();
        let name = format!("c{n}.{number}");
        tokio::spawn(Client { name, load: load.clone(), server: n, random: StdRng::seed_from_u64(seed), count: 0 }.run())
    });
    let clients = clients.collect();
    Ok(Generation { load, from, clients, watches })
}

async fn cut_power(
    site: &mut Site<'_>,
    load: &Load,
    done: usize,
    cuts: usize,
    random: &mut StdRng,
    account: &mut Account,
) -> anyhow::Result<()> {
    let mut queue: Vec<Whose> = Vec::new();
    every_client_writes(load).await?;
    for number in done + 1..=done + cuts {
        if queue.is_empty() {
            queue = vec![Whose::Leader, Whose::Follower, Whose::All];
            queue.shuffle(random);
        }
        let whose = queue.pop().context("never empty")?;
        // The gate looks for these words: what follows a cut is the cut's doing.
        one_cut(site, load, number, whose, random, account).await.with_context(|| format!("after power cut {number}, {whose:?}"))?;
    }
    Ok(())
}

/// One power cut anywhere between two syncs, until every server and every client is well again.
async fn one_cut(
    site: &mut Site<'_>,
    load: &Load,
    number: usize,
    whose: Whose,
    random: &mut StdRng,
    account: &mut Account,
) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_micros(random.random_range(0..500_000))).await;
    let moment = Instant::now();
    let (dead, losses) = cut(site, load, whose, random).await?;
    site.ready().await.with_context(|| losses.clone())?;
    let recovered = moment.elapsed();
    let gap = until("an acknowledged write", || async { load.gap(dead).context("none yet") }).await?;
    site.create_map(number % site.members.len(), &format!("cut-{number}"))?;
    println!(
        "{number:>4}  {whose:?}: next acknowledged write after {} ms, all well after {} ms; {losses}",
        gap.as_millis(),
        recovered.as_millis()
    );
    *account.cuts.entry(whose).or_default() += 1;
    account.longest = account.longest.max(gap);
    every_client_writes(load).await
}

async fn every_client_writes(load: &Load) -> anyhow::Result<()> {
    let began = Instant::now();
    until("every client to write", || async {
        ensure!(load.writers_since(began) == CLIENTS, "some client has none acknowledged");
        Ok(())
    })
    .await
}

/// Kills, takes the power, and starts again: since when they were dead, and what was lost.
async fn cut(site: &mut Site<'_>, load: &Load, whose: Whose, random: &mut StdRng) -> anyhow::Result<(Instant, String)> {
    let (leader, _) = until("a leader", || site.leader()).await?;
    let mut victims: Vec<usize> = match whose {
        Whose::Leader => vec![leader],
        Whose::Follower => vec![(leader + random.random_range(1..3)) % 3],
        Whose::All => vec![0, 1, 2],
    };
    victims.shuffle(random);
    for victim in &victims {
        site.members[*victim].kill()?;
    }
    let dead = Instant::now();
    let mut losses = Vec::new();
    for victim in &victims {
        let (survivors, seed) = (Survivors::any(random), random.random());
        let loss = block_in_place(|| site.members[*victim].cut(survivors, seed))?;
        losses.push(format!("s{} {survivors:?} lost {loss}", victim + 1));
    }
    if whose != Whose::All {
        until("the others to go on", || async { load.gap(dead).map(drop).context("no acknowledged write yet") }).await?;
    }
    for victim in &victims {
        site.members[*victim].start()?;
    }
    Ok((dead, losses.join("; ")))
}

/// Ends the load and compares all results.
async fn judge(site: &Site<'_>, generation: Generation, past: &mut Vec<Kv>, account: &mut Account) -> anyhow::Result<()> {
    let Generation { load, from, clients, watches } = generation;
    load.stop();
    for client in clients {
        client.await?;
    }
    watches.iter().for_each(JoinHandle::abort);
    // One write behind all others, and everything up to it from every server.
    let mut last =
        Client { name: format!("last{}", load.prefix), load: load.clone(), server: 0, random: StdRng::seed_from_u64(0), count: 0 };
    let mut channel = KvClient::new(site.channel(0).await?);
    let transaction = Transaction { puts: vec![(format!("{}end", load.prefix), load.prefix.clone())], ..Transaction::default() };
    let Answer::Written(end) = last.write(&mut channel, transaction).await else { anyhow::bail!("the last write was not acknowledged") };
    for server in 0..site.members.len() {
        watch_to(&load, server, from, end).await?;
        let (revision, keys) = site.keys(server, &load.prefix).await?;
        load.recorder.finish(Final { member: format!("s{}", server + 1), revision, keys });
        let (_, all) = site.keys(server, "cuts/").await?;
        let older: Vec<Kv> = all.into_iter().filter(|kv| !kv.key.starts_with(&load.prefix)).collect();
        ensure!(older == *past, "LOST: s{} has {} older keys, there were {}", server + 1, older.len(), past.len());
    }
    site.hashes_agree(end).await?;
    block_in_place(|| site.maps_are_there())?;
    let history = load.recorder.history();
    account.count(&history);
    let violations = tokio::task::spawn_blocking(move || invariants::check(&history)).await?;
    account.violations.extend(violations.iter().cloned());
    let told: Vec<String> = violations.iter().map(ToString::to_string).collect();
    ensure!(told.is_empty(), "{}", told.join("\n"));
    past.extend(load.recorder.history().finals.into_iter().next_back().context("finals")?.keys);
    println!("      {}: {} writes acknowledged, replicas agree at revision {end}", load.prefix, account.acknowledged);
    Ok(())
}

/// Watches a server from the generation's beginning until it has told of the last write.
async fn watch_to(load: &Arc<Load>, server: usize, from: i64, end: i64) -> anyhow::Result<()> {
    let following = tokio::spawn(watch(load.clone(), server + 3, from));
    let seen = until("the whole history from a server", || async {
        ensure!(load.watched(server + 3, end), "s{} has not told of {end}", server + 1);
        Ok(())
    });
    let seen = seen.await;
    following.abort();
    seen
}

/// Judges only whole histories.
const LIVE_ONLY: &str = "members agree";

// === impl Account ===

impl Account {
    fn count(&mut self, history: &History) {
        let ended = |operation: &&Operation| matches!((operation.transaction(), operation.answer()), (Some(_), Some(Answer::Written(_))));
        self.acknowledged += history.operations.iter().filter(ended).count() as u64;
        let unknown =
            |operation: &&Operation| operation.transaction().is_some() && matches!(operation.answer(), None | Some(Answer::Unknown(_)));
        self.unknown += history.operations.iter().filter(unknown).count() as u64;
    }

    fn figures(&self, seed: u64, finished: bool) -> Figures {
        let whose = |whose| self.cuts.get(&whose).copied().unwrap_or_default();
        let broken = |invariant| self.violations.iter().filter(|violation| violation.invariant == invariant).count() as u64;
        let (lost, reused) = (broken("acknowledged writes last"), broken("a revision is never used twice"));
        let mut figures = Figures::new("power cuts", seed);
        figures.set("power cuts: leader", whose(Whose::Leader));
        figures.set("power cuts: follower", whose(Whose::Follower));
        figures.set("power cuts: all", whose(Whose::All));
        figures.set("writes acknowledged", self.acknowledged);
        figures.set("outcomes unknown", self.unknown);
        figures.set("acknowledged writes lost", lost);
        figures.set("revisions reused", reused);
        figures.set("other promises broken", self.violations.len() as u64 - lost - reused);
        figures.set("not finished", u64::from(!finished));
        figures.set("longest without an answer, ms", u64::try_from(self.longest.as_millis()).unwrap_or(u64::MAX));
        figures
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Account { cuts, acknowledged, unknown, longest, violations } = self;
        let cuts: Vec<String> = cuts.iter().map(|(whose, count)| format!("{count} {whose:?}")).collect();
        write!(
            f,
            "power cuts: {}; {acknowledged} writes acknowledged, {unknown} unknown, {} promises broken; ",
            cuts.join(", "),
            violations.len()
        )?;
        write!(f, "longest without an answer {} ms", longest.as_millis())
    }
}
