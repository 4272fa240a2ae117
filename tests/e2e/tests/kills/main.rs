//! SIGKILL under load: servers, agents, containerd, whole hosts. No acknowledged write may be lost, no pod doubled, no
//! running container touched, and nothing that a deposed leader writes may be stored.
//!
//! `TRIREME_SEED` repeats a run's choices, `TRIREME_KILLS` makes it longer than 20 (`ops/test chaos`), and `TRIREME_FAULTS`
//! narrows it down (`Leader,Freeze`).

mod history;
mod load;
mod pods;
mod site;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use tokio::task::block_in_place;
use trireme_chaos::report::Figures;
use trireme_harness::{Cluster, Host, ended, eventually, signal};

use site::{Site, Touched};

/// The longest wait for something that must happen. Generous: the machine may be busy.
const LIMIT: Duration = Duration::from_secs(90);
/// How long a leader is stopped: longer than the time between two renewals of its Lease, so that it has writes to make when it is
/// resumed.
const STANDSTILL: Duration = Duration::from_secs(11);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// SIGKILL of the leading server.
    Leader,
    /// SIGKILL of a server that does not lead.
    Follower,
    /// SIGKILL of a node's agent.
    Agent,
    /// SIGKILL of a node's containerd.
    Containerd,
    /// A power cut of the leading server's host.
    LeaderPower,
    /// A power cut of a node's host.
    NodePower,
    /// The leading server is stopped (SIGSTOP) until another one leads, then resumed. Not counted as a kill.
    Freeze,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_on_three_servers_lose_nothing() -> anyhow::Result<()> {
    use Fault::{Agent, Containerd, Follower, Freeze, Leader, LeaderPower, NodePower};
    let site = Site::new(Cluster::lab()?, ["s1", "s2", "s3"].map(Host::named).to_vec(), ["a1", "a2"].map(Host::named).to_vec())?;
    let round =
        [[Leader; 6].as_slice(), &[Follower; 4], &[Agent; 3], &[Containerd; 3], &[LeaderPower; 2], &[NodePower; 2], &[Freeze; 2]].concat();
    run("three servers", site, &round).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_on_one_server_lose_nothing() -> anyhow::Result<()> {
    use Fault::{Containerd, Leader, LeaderPower};
    let host = block_in_place(|| Host::alone("t1", "10.77.0.31"))?;
    let site = Site::new(Cluster::of(&host)?, vec![host.clone()], vec![host.clone()])?;
    let round = [[Leader; 10].as_slice(), &[Containerd; 6], &[LeaderPower; 4]].concat();
    let outcome = run("one server", site, &round).await;
    // A failed run leaves everything as it is, for inspection; ops/down removes it too.
    if outcome.is_ok() {
        block_in_place(|| host.remove())?;
    }
    outcome
}

async fn run(title: &str, mut site: Site, round: &[Fault]) -> anyhow::Result<()> {
    let seed = match std::env::var("TRIREME_SEED") {
        Ok(seed) => seed.parse().context("TRIREME_SEED: expected a number")?,
        Err(_) => rand::rng().random(),
    };
    let wanted: usize = std::env::var("TRIREME_KILLS").map_or(Ok(20), |kills| kills.parse()).context("TRIREME_KILLS: expected a number")?;
    println!("kills on {title}: TRIREME_SEED={seed}");
    let only = std::env::var("TRIREME_FAULTS").unwrap_or_default();
    let round: Vec<Fault> =
        round.iter().copied().filter(|fault| only.is_empty() || only.split(',').any(|name| name == format!("{fault:?}"))).collect();
    ensure!(round.iter().any(|fault| *fault != Fault::Freeze), "TRIREME_FAULTS: none of these kills anything here: {only}");
    let part = if only.is_empty() { title.to_owned() } else { format!("{title}: {only}") };
    let mut count = Count { part: format!("kills on {part}"), seed, ..Count::default() };
    // A run that is cut off must show up in the report as unfinished.
    count.note(&site, Some("it was begun"))?;
    let outcome = kill(title, &mut site, &round, wanted, &mut count).await;
    count.note(&site, outcome.as_ref().err().map(|error| format!("{error:#}")).as_deref())?;
    outcome
}

/// What the report shows.
#[derive(Debug, Default)]
struct Count {
    part: String,
    seed: u64,
    leaders: u64,
    others: u64,
    longest: Duration,
}

impl Count {
    fn note(&self, site: &Site, failure: Option<&str>) -> anyhow::Result<()> {
        let says = |words: &[&str]| u64::from(failure.is_some_and(|failure| words.iter().any(|word| failure.contains(word))));
        let mut figures = Figures::new(&self.part, self.seed);
        figures.set("leader kills", self.leaders);
        figures.set("other kills", self.others);
        figures.set("writes acknowledged", site.load.ledger().acknowledged.len() as u64);
        figures.set("outcomes unknown", site.load.ledger().unknown.len() as u64);
        figures.set("acknowledged writes lost", says(&["LOST"]));
        figures.set("revisions reused", says(&["was given to"]));
        figures.set("doubled pods", says(&["two running sandboxes", "runs twice", "are both attempt", "and on"]));
        figures.set("not finished", u64::from(failure.is_some()));
        figures.set("longest without an answer, ms", u64::try_from(self.longest.as_millis()).unwrap_or(u64::MAX));
        Ok(figures.note()?)
    }
}

async fn kill(title: &str, site: &mut Site, round: &[Fault], wanted: usize, count: &mut Count) -> anyhow::Result<()> {
    let seed = count.seed;
    let mut random = StdRng::seed_from_u64(seed);
    site.start().await?;

    let (mut kills, mut gaps, mut recoveries) = (0, Vec::new(), Vec::new());
    let mut queue: Vec<Fault> = Vec::new();
    while kills < wanted {
        let fault = match queue.pop() {
            Some(fault) => fault,
            None => {
                queue = round.to_vec();
                queue.shuffle(&mut random);
                continue;
            }
        };
        tokio::time::sleep(Duration::from_millis(random.random_range(100..1000))).await;
        let before = site.still_running().await?;
        let (moment, dead, touched) = inject(fault, site, &mut random).await.with_context(|| format!("{fault:?}"))?;
        site.recovered(moment, &touched).await.with_context(|| format!("after {fault:?} of {} (kill {kills})", touched.host))?;
        let recovery = moment.elapsed();
        let after = site.still_running().await?;
        site.untouched(&before, &after, &touched).with_context(|| format!("after {fault:?} of {}", touched.host))?;
        let gap = site.load.gap(moment, dead).context("no write after the kill")?;
        println!(
            "{:>4}  {fault:?} {}: next acknowledged write after {} ms, all well after {} ms",
            kills + 1,
            touched.host,
            gap.as_millis(),
            recovery.as_millis()
        );
        if fault == Fault::Freeze {
            continue;
        }
        kills += 1;
        recoveries.push(recovery);
        count.longest = count.longest.max(gap);
        if matches!(fault, Fault::Leader | Fault::LeaderPower) {
            gaps.push(gap);
            count.leaders += 1;
        } else {
            count.others += 1;
        }
    }

    let summary = site.finish().await?;
    println!("{kills} kills on {title}, seed {seed}: {summary}");
    println!("leader killed to next acknowledged write: {}; kill to all well: {}", spread(&mut gaps), spread(&mut recoveries));
    Ok(())
}

/// Breaks something: when, since when it no longer works, and what.
async fn inject(fault: Fault, site: &Site, random: &mut StdRng) -> anyhow::Result<(Instant, Instant, Touched)> {
    let (leader, term) = site.leader()?;
    let node = site.nodes[random.random_range(0..site.nodes.len())].clone();
    let host = match fault {
        Fault::Leader | Fault::LeaderPower | Fault::Freeze => leader.clone(),
        Fault::Follower => {
            let others: Vec<_> = site.servers.iter().filter(|server| server.name() != leader.name()).collect();
            others[random.random_range(0..others.len())].clone()
        }
        Fault::Agent | Fault::Containerd | Fault::NodePower => node,
    };
    let cut = matches!(fault, Fault::LeaderPower | Fault::NodePower);
    let (process, victim) = block_in_place(|| {
        let process = host.pid(if fault == Fault::Containerd { "containerd" } else { "trireme" })?;
        let victim = if cut { host.first_process()? } else { process };
        anyhow::Ok((process, victim))
    })?;
    // A containerd that is killed leaves the agent alone, whose Lease is then renewed when it is due.
    let after = if fault == Fault::Containerd { 0 } else { site::now() };
    let after_term = matches!(fault, Fault::Leader | Fault::LeaderPower).then_some(term);
    let touched = Touched { host: host.name().to_owned(), rebooted: cut, after_term, after };

    let moment = Instant::now();
    if fault == Fault::Freeze {
        signal(process, "STOP")?;
        let dead = Instant::now();
        let led = site.leads_after(term).await;
        // Its successor works for a while, then both are awake.
        tokio::time::sleep((moment + STANDSTILL).saturating_duration_since(Instant::now())).await;
        signal(process, "CONT")?;
        led?;
        return Ok((moment, dead, touched));
    }
    signal(victim, "KILL")?;
    block_in_place(|| eventually("its end", LIMIT, || ensure_ended(process)))?;
    let dead = Instant::now();
    if cut {
        block_in_place(|| host.power_off())?;
        if site.servers.len() > 1 {
            site.writes_since(dead).await?;
        }
        block_in_place(|| host.power_on())?;
    }
    Ok((moment, dead, touched))
}

fn ensure_ended(pid: u32) -> anyhow::Result<()> {
    ensure!(ended(pid), "{pid} still runs");
    Ok(())
}

fn spread(times: &mut [Duration]) -> String {
    times.sort();
    match &*times {
        [] => "none".into(),
        [first, .., last] => format!(
            "{} ms min, {} ms median, {} ms max ({})",
            first.as_millis(),
            times[times.len() / 2].as_millis(),
            last.as_millis(),
            times.len()
        ),
        [only] => format!("{} ms", only.as_millis()),
    }
}
