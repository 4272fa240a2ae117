//! Runs seeds of the simulation. See `ops/test chaos`.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use trireme_chaos::sim::faults::Kind;
use trireme_chaos::sim::run::{Plan, run};

mod randomness;

/// Simulated bad luck for Trireme's store.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Runs one seed in this process. The last line of output is for the machine.
    Seed {
        /// The seed.
        seed: u64,
        /// Prints everything that happens.
        #[arg(long)]
        trace: bool,
        #[command(flatten)]
        shape: Shape,
    },
    /// Runs many seeds, each in a process of its own, and prints a table.
    Seeds {
        /// How many.
        count: u64,
        /// The first.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// At the same time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Ends at the first violation.
        #[arg(long)]
        until_found: bool,
        #[command(flatten)]
        shape: Shape,
    },
}

#[derive(clap::Args, Clone)]
struct Shape {
    /// Members.
    #[arg(long, default_value_t = 3)]
    hosts: usize,
    /// Simulated seconds of load.
    #[arg(long, default_value_t = 8)]
    secs: u64,
    /// Longest pause of a client between two calls, in milliseconds.
    #[arg(long, default_value_t = 60)]
    pace_ms: u64,
    /// Faults to choose from (all unless told).
    #[arg(long)]
    fault: Vec<String>,
}

// === impl Shape ===

impl Shape {
    fn plan(&self, seed: u64, told: bool) -> anyhow::Result<Plan> {
        let kind = |name: &String| {
            let found = trireme_chaos::sim::faults::ALL.iter().find(|kind| kind.to_string() == *name);
            found.copied().with_context(|| format!("unknown fault {name}; there are {:?}", trireme_chaos::sim::faults::ALL))
        };
        let kinds: Vec<Kind> = self.fault.iter().map(kind).collect::<anyhow::Result<_>>()?;
        Ok(Plan { seed, hosts: self.hosts, load_ms: self.secs * 1000, pace_ms: self.pace_ms, kinds, told })
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![format!("--hosts={}", self.hosts), format!("--secs={}", self.secs), format!("--pace-ms={}", self.pace_ms)];
        arguments.extend(self.fault.iter().map(|fault| format!("--fault={fault}")));
        arguments
    }
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().what {
        What::Seed { seed, trace, shape } => one(&shape.plan(seed, trace)?),
        What::Seeds { count, from, jobs, until_found, shape } => many(count, from, jobs.max(1), until_found, &shape),
    }
}

fn one(plan: &Plan) -> anyhow::Result<ExitCode> {
    if let Ok(filter) = std::env::var("RUST_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    }
    randomness::seed(plan.seed);
    let outcome = run(plan)?;
    for violation in &outcome.violations {
        println!("VIOLATION seed {} {violation}", plan.seed);
    }
    let faults: Vec<String> = outcome.faults.iter().map(|(kind, count)| format!("{kind}={count}")).collect();
    println!(
        "seed {} trace {:016x} lines {} ms {} acknowledged {} refused {} unknown {} events {} violations {} faults {}",
        plan.seed,
        outcome.digest.0,
        outcome.digest.1,
        outcome.ms,
        outcome.acknowledged,
        outcome.refused,
        outcome.unknown,
        outcome.events,
        outcome.violations.len(),
        faults.join(","),
    );
    Ok(if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sums for the table.
#[derive(Default)]
struct Sums {
    seeds: u64,
    numbers: BTreeMap<&'static str, u64>,
    faults: BTreeMap<String, u64>,
    bad: Vec<(u64, Vec<String>)>,
}

fn many(count: u64, from: u64, jobs: usize, until_found: bool, shape: &Shape) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let binary = std::env::current_exe().context("own path")?;
    let mut sums = Sums::default();
    let mut seeds = from..from + count;
    let mut running = Vec::new();
    loop {
        while running.len() < jobs && !(until_found && !sums.bad.is_empty()) {
            let Some(seed) = seeds.next() else { break };
            // A process each: hash maps and thread-local generators begin anew, so a seed replays by itself.
            let child = Command::new(&binary)
                .arg("seed")
                .arg(seed.to_string())
                .args(shape.arguments())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            running.push((seed, child.context("cannot run a seed")?));
        }
        if running.is_empty() {
            break;
        }
        let (seed, child) = running.remove(0);
        let output = child.wait_with_output().context("a seed's process")?;
        sums.take(seed, &String::from_utf8_lossy(&output.stdout), &String::from_utf8_lossy(&output.stderr), output.status.success());
    }
    sums.print(start.elapsed().as_secs_f64());
    if sums.seeds == 0 {
        bail!("no seed was run");
    }
    Ok(if sums.bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

// === impl Sums ===

impl Sums {
    fn take(&mut self, seed: u64, output: &str, errors: &str, success: bool) {
        self.seeds += 1;
        let mut violations: Vec<String> = output.lines().filter(|line| line.starts_with("VIOLATION")).map(str::to_owned).collect();
        let summary: Vec<&str> = output.lines().last().unwrap_or_default().split(' ').collect();
        for pair in summary.chunks(2) {
            let [name, value] = pair else { continue };
            for known in ["acknowledged", "refused", "unknown", "events", "ms"] {
                if *name == known {
                    *self.numbers.entry(known).or_default() += value.parse::<u64>().unwrap_or(0);
                }
            }
            if *name == "faults" {
                for (kind, count) in value.split(',').filter_map(|fault| fault.split_once('=')) {
                    *self.faults.entry(kind.to_owned()).or_default() += count.parse::<u64>().unwrap_or(0);
                }
            }
        }
        if !success && violations.is_empty() {
            violations.push(format!("seed {seed} ended without a verdict: {}", errors.lines().last().unwrap_or_default()));
        }
        if !violations.is_empty() {
            for violation in &violations {
                eprintln!("{violation}");
            }
            self.bad.push((seed, violations));
        }
    }

    fn print(&self, secs: f64) {
        println!("{:<18} {:>8}", "fault", "count");
        for (kind, count) in &self.faults {
            println!("{kind:<18} {count:>8}");
        }
        let number = |name| self.numbers.get(name).copied().unwrap_or(0);
        println!(
            "{} seeds in {secs:.1} s ({} simulated s): {} operations acknowledged, {} refused, {} of unknown outcome; {} watch events",
            self.seeds,
            number("ms") / 1000,
            number("acknowledged"),
            number("refused"),
            number("unknown"),
            number("events"),
        );
        println!("violations: {} seeds{}", self.bad.len(), if self.bad.is_empty() { "" } else { " (replay: ops/test chaos --seed N)" });
        for (seed, violations) in &self.bad {
            println!("  seed {seed}: {}", violations.first().map_or("", String::as_str));
        }
    }
}
