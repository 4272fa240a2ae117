//! Runs seeds of the simulation. See `ops/test chaos`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use trireme_chaos::report::{self, Figures};
use trireme_chaos::sim::faults::Kind;
use trireme_chaos::sim::run::{Plan, run};

mod mutants;
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
        #[command(flatten)]
        shape: Shape,
    },
    /// Prints the figures that the parts of a run have noted in a file, side by side.
    Report {
        /// The file.
        file: PathBuf,
    },
    /// Plants one bug after another and looks for it. Needs a build with `--features mutants`.
    Mutants {
        /// Seeds to try on each.
        #[arg(long, default_value_t = 60)]
        seeds: u64,
        /// At the same time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Only these.
        names: Vec<String>,
    },
}

/// Seeds that a store without a planted bug must pass first, or finding one says nothing.
const CONTROL_SEEDS: u64 = 2;

#[derive(clap::Args, Clone, Default)]
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

    /// For planted bugs.
    fn short(faults: &[&str]) -> Shape {
        Shape { hosts: 3, secs: 6, pace_ms: 120, fault: faults.iter().map(|fault| (*fault).to_owned()).collect() }
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
        What::Seeds { count, from, jobs, shape } => {
            let start = Instant::now();
            let sums = many(from..from + count, jobs.max(1), &shape, None)?;
            sums.print(start.elapsed().as_secs_f64());
            sums.figures(from).note().context("note the figures")?;
            Ok(if sums.seeds > 0 && sums.bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        What::Report { file } => {
            let (text, kept) = report::report(&file).with_context(|| format!("report of {}", file.display()))?;
            print!("{text}");
            Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        What::Mutants { seeds, jobs, names } => hunt(seeds, jobs.max(1), &names),
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

/// Runs seeds, with a bug planted until it is found.
fn many(mut seeds: Range<u64>, jobs: usize, shape: &Shape, mutant: Option<&str>) -> anyhow::Result<Sums> {
    let binary = std::env::current_exe().context("own path")?;
    let mut sums = Sums::default();
    let mut running = Vec::new();
    loop {
        while running.len() < jobs && (mutant.is_none() || sums.bad.is_empty()) {
            let Some(seed) = seeds.next() else { break };
            // A process each: hash maps and thread-local generators begin anew, so a seed replays by itself.
            let mut command = Command::new(&binary);
            command.arg("seed").arg(seed.to_string()).args(shape.arguments()).stdout(Stdio::piped()).stderr(Stdio::piped());
            match mutant {
                Some(mutant) => command.env("TRIREME_MUTANT", mutant),
                None => command.env_remove("TRIREME_MUTANT"),
            };
            running.push((seed, command.spawn().context("cannot run a seed")?));
        }
        if running.is_empty() {
            return Ok(sums);
        }
        let (seed, child) = running.remove(0);
        let output = child.wait_with_output().context("a seed's process")?;
        sums.take(seed, &String::from_utf8_lossy(&output.stdout), &String::from_utf8_lossy(&output.stderr), output.status.success());
    }
}

/// Each planted bug must be found.
fn hunt(seeds: u64, jobs: usize, names: &[String]) -> anyhow::Result<ExitCode> {
    if !cfg!(feature = "mutants") {
        bail!("this build has no bugs planted: build it with --features mutants");
    }
    let control = many(1..1 + CONTROL_SEEDS, jobs, &Shape::short(&[]), None)?;
    if let Some((seed, violations)) = control.bad.first() {
        bail!("without any planted bug seed {seed} finds {violations:?}");
    }
    let mut missed = Vec::new();
    println!("{:<22} {:>5}  found by", "planted", "seeds");
    for mutant in mutants::ALL.iter().filter(|mutant| names.is_empty() || names.iter().any(|name| name == mutant.name)) {
        let sums = many(1..1 + seeds, jobs, &Shape::short(mutant.faults), Some(mutant.name))?;
        match sums.bad.iter().min() {
            Some((seed, violations)) => {
                let first = violations.first().map_or("", String::as_str);
                let short: String = first.chars().take(150).collect();
                println!("{:<22} {:>5}  {}", mutant.name, sums.seeds, short.trim_start_matches(&format!("VIOLATION seed {seed} ")));
            }
            None => {
                println!("{:<22} {:>5}  MISSED ({})", mutant.name, sums.seeds, mutant.like);
                missed.push(mutant.name);
            }
        }
    }
    Ok(if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
            self.bad.push((seed, violations));
        }
    }

    fn figures(&self, from: u64) -> Figures {
        let number = |name| self.numbers.get(name).copied().unwrap_or(0);
        let mut figures = Figures::new("simulation", from);
        figures.set("seeds simulated", self.seeds);
        figures.set("seeds that broke a promise", self.bad.len() as u64);
        figures.set("writes acknowledged", number("acknowledged"));
        figures.set("outcomes unknown", number("unknown"));
        figures
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
        for violation in self.bad.iter().flat_map(|(_, violations)| violations) {
            println!("  {violation}");
        }
    }
}
