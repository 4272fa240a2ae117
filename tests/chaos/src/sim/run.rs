//! One run: a cluster is founded, clients work, faults happen, all is healed, and the history is judged.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::Rng;
use rand::seq::IndexedRandom;
use trireme_proto::etcd;

use super::faults::{self, Kind, Nemesis, ask_for_place};
use super::host::admit;
use super::recorder::kv;
use super::trace::Trace;
use super::watcher::prefix_end;
use super::world::World;
use crate::history::{Answer, Final, History, Violation};
use crate::invariants;

/// How long a cluster may take to be founded, and to be whole again when all faults are healed.
const SETTLE_MS: u64 = 60_000;

/// What panicked in this process, in whatever task.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// Between two attempts to give a new member its place.
const ADMISSION_MS: u64 = 12_000;

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything else.
    pub seed: u64,
    /// Members.
    pub hosts: usize,
    /// How long clients work, in simulated milliseconds.
    pub load_ms: u64,
    /// Between two calls of a client, at most.
    pub pace_ms: u64,
    /// The faults that may happen; the seed chooses among them. All, if empty.
    pub kinds: Vec<Kind>,
    /// Prints the trace.
    pub told: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What happened, by kind.
    pub faults: BTreeMap<Kind, usize>,
    /// Calls: acknowledged, refused, of unknown outcome.
    pub acknowledged: usize,
    /// Refused.
    pub refused: usize,
    /// Of unknown outcome.
    pub unknown: usize,
    /// Events that watches delivered.
    pub events: usize,
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// Hash of all that happened, and of how many lines.
    pub digest: (u64, u64),
    /// Simulated milliseconds.
    pub ms: u64,
}

impl Plan {
    /// The usual run of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Plan {
        Plan { seed, hosts: 3, load_ms: 8000, pace_ms: 60, kinds: Vec::new(), told: false }
    }
}

/// Runs it.
///
/// # Errors
/// Where the world cannot be made: no temporary folder, say.
pub fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    let trace = Arc::new(Trace::new(plan.told));
    let mut world = World::new(plan.seed, plan.hosts, plan.pace_ms, trace.clone())?;
    std::panic::set_hook(Box::new(|panic| PANICS.lock().push(panic.to_string().replace('\n', " "))));
    let mut nemesis = Nemesis::default();
    if found(&mut world) {
        work(&mut world, &mut nemesis, plan);
        finish(&mut world, &mut nemesis);
    } else {
        world.common.recorder.fail("the cluster was not founded".to_owned());
    }
    for panic in PANICS.lock().drain(..) {
        world.common.recorder.fail(panic);
    }
    let history = world.common.recorder.history();
    let ms = world.now_ms();
    drop(world);
    Ok(outcome(&history, &nemesis, trace.digest(), ms))
}

/// Starts all hosts and makes them voters of one cluster.
#[must_use]
pub fn found(world: &mut World) -> bool {
    (0..world.len()).for_each(|host| world.start(host));
    let leads = |world: &mut World| world.leader() == Some(0);
    if !world.run_until(SETTLE_MS, leads) {
        return false;
    }
    for host in 1..world.len() {
        let Some(store) = world.common.board.store(0) else { return false };
        let (seat, common) = (world.seat(host), world.common.clone());
        if !world.run_until(SETTLE_MS, leads) || world.ask(0, SETTLE_MS, admit(store, seat, common)) != Some(true) {
            return false;
        }
        let voters = |world: &mut World| voters(world, host) == host + 1;
        if !world.run_until(SETTLE_MS, voters) {
            return false;
        }
    }
    world.run_until(SETTLE_MS, |world| (0..world.len()).all(|host| voters(world, host) == world.len()))
}

fn voters(world: &World, host: usize) -> usize {
    world.common.board.store(host).map_or(0, |store| {
        let status = store.status();
        let status = status.borrow();
        if status.changing_members { 0 } else { status.voters.len() }
    })
}

fn work(world: &mut World, nemesis: &mut Nemesis, plan: &Plan) {
    let among = if plan.kinds.is_empty() { faults::ALL } else { &plan.kinds };
    // A few kinds a run, again and again, find more than all kinds at once.
    let count = world.rng.random_range(1..=4.min(among.len()));
    let kinds: Vec<Kind> = among.choose_multiple(&mut world.rng, count).copied().collect();
    let gap_ms = *[400, 1000, 2500].choose(&mut world.rng).unwrap_or(&1000);
    world.common.board.load(true);
    let end = world.now_ms() + plan.load_ms;
    let mut next = world.now_ms() + gap_ms;
    let mut admission = 0;
    while world.now_ms() < end && !world.common.recorder.has_failed() {
        world.step();
        nemesis.tend(world);
        if world.now_ms() >= next {
            next = world.now_ms() + world.rng.random_range(gap_ms / 2..gap_ms * 2);
            if let Some(kind) = kinds.choose(&mut world.rng).copied() {
                nemesis.strike(world, kind);
            }
        }
        admission = admit_newcomers(world, admission);
    }
}

/// Asks for places for hosts that have none. Returns when it last did.
fn admit_newcomers(world: &World, last_ms: u64) -> u64 {
    if world.now_ms() < last_ms + ADMISSION_MS && last_ms != 0 {
        return last_ms;
    }
    let stranger = |host: &usize| world.is_up(*host) && world.common.board.ticket(*host).is_none() && !world.seat(*host).founder;
    match (0..world.len()).find(stranger) {
        Some(host) => {
            ask_for_place(world, host);
            world.now_ms()
        }
        None => last_ms,
    }
}

/// Heals everything, waits until all members agree, and takes down what they hold.
fn finish(world: &mut World, nemesis: &mut Nemesis) {
    nemesis.heal(world);
    let mut admission = 0;
    let mut whole = |world: &mut World| {
        admission = admit_newcomers(world, admission);
        (0..world.len()).all(|host| voters(world, host) == world.len()) && world.leader().is_some()
    };
    // Where something has failed already, there is nothing to wait for.
    let hopeless = |world: &World| world.common.recorder.has_failed() || !PANICS.lock().is_empty();
    let settled = world.run_until(SETTLE_MS, |world| hopeless(world) || whole(world));
    world.common.board.load(false);
    // What is still under way stays without an answer, like the calls of clients that died.
    world.run(100);
    let agreed = world.run_until(SETTLE_MS, |world| {
        if hopeless(world) {
            return true;
        }
        let revisions: Vec<i64> = world.common.board.stores().iter().map(|(_, store)| store.revision()).collect();
        revisions.len() == world.len()
            && revisions.windows(2).all(|pair| pair[0] == pair[1])
            && world.common.board.slowest_watcher() >= revisions[0]
    });
    if hopeless(world) {
        return;
    }
    if !settled || !agreed {
        let statuses: Vec<_> =
            world.common.board.stores().iter().map(|(host, store)| (*host, store.revision(), store.status().borrow().clone())).collect();
        let slowest = world.common.board.slowest_watcher();
        world.common.recorder.fail(format!("not healed (settled {settled}, agreed {agreed}, slowest watcher {slowest}): {statuses:?}"));
    }
    for (host, store) in world.common.board.stores() {
        let request = etcd::RangeRequest { key: Bytes::from("k/"), range_end: prefix_end("k/"), ..Default::default() };
        match store.range(&request) {
            Ok(response) => world.common.recorder.finish(Final {
                member: format!("h{host}"),
                revision: response.header.unwrap_or_default().revision,
                keys: response.kvs.iter().map(kv).collect(),
            }),
            Err(error) => world.common.recorder.fail(format!("h{host} cannot be read at the end: {error}")),
        }
    }
}

fn outcome(history: &History, nemesis: &Nemesis, digest: (u64, u64), ms: u64) -> Outcome {
    let mut outcome = Outcome { digest, ms, violations: invariants::check(history), ..Outcome::default() };
    for kind in &nemesis.done {
        *outcome.faults.entry(*kind).or_default() += 1;
    }
    for operation in &history.operations {
        match operation.answer() {
            Some(Answer::Refused(_)) => outcome.refused += 1,
            Some(Answer::Unknown(_)) | None => outcome.unknown += 1,
            Some(_) => outcome.acknowledged += 1,
        }
    }
    let batches = history.watches.iter().flat_map(|watch| &watch.said);
    outcome.events = batches
        .map(|(_, said)| match said {
            crate::history::Said::Batch(_, events) => events.len(),
            _ => 0,
        })
        .sum();
    outcome
}
