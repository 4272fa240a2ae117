//! Random input for everything that decodes bytes from outside.
//!
//! `trireme-fuzz all --seconds 60` runs every target in a process of its own, so that a stack overflow or an abort is seen as well as a panic.
//! An input follows from target, seed and number alone; a failure names them, and `trireme-fuzz TARGET --seed S --input N` runs that one again.
//! There is no coverage feedback: inputs are mutations of a corpus of valid ones.

mod mutate;
mod run;
mod targets;

use std::process::ExitCode;

use clap::Parser;

/// Feeds decoders with random input; panics, hangs and memory growth are failures.
#[derive(Parser)]
#[command(name = "trireme-fuzz")]
struct Options {
    /// A target, `all`, or `list`.
    target: String,
    /// For so long, each target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Of the inputs; random if it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Run this input only, and print it.
    #[arg(long)]
    input: Option<u64>,
    /// Run in this process: what the parent starts.
    #[arg(long, hide = true)]
    child: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    if options.target == "list" {
        targets::all().iter().for_each(|target| println!("{:<16} {}", target.name, target.what));
        return Ok(ExitCode::SUCCESS);
    }
    let seed = options.seed.unwrap_or_else(rand::random);
    let chosen: Vec<_> = targets::all().into_iter().filter(|target| options.target == "all" || target.name == options.target).collect();
    anyhow::ensure!(!chosen.is_empty(), "unknown target '{}': see trireme-fuzz list", options.target);
    let mut failed = Vec::new();
    for target in &chosen {
        if let Some(input) = options.input {
            run::one(target, seed, input);
        } else if options.child {
            run::child(target, seed, options.seconds)?;
        } else if !run::parent(target, seed, options.seconds)? {
            failed.push(target.name);
        }
    }
    if !options.child && options.input.is_none() {
        println!(
            "{} passed, {} failed{}",
            chosen.len() - failed.len(),
            failed.len(),
            failed.iter().map(|name| format!(" {name}")).collect::<String>()
        );
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
