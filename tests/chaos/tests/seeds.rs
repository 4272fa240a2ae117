//! A few seeds of the simulation, and the promise that a seed can be replayed. `ops/test chaos` runs many.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::Command;

const BINARY: &str = env!("CARGO_BIN_EXE_trireme-chaos");

fn seed(seed: u64, arguments: &[&str]) -> String {
    let output = Command::new(BINARY).arg("seed").arg(seed.to_string()).args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "replay with `ops/test chaos --seed {seed}`:\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn the_same_seed_twice_gives_the_same_trace_and_another_seed_another() {
    let short = ["--secs=3", "--pace-ms=150"];
    let first = seed(7, &short);
    assert_eq!(first, seed(7, &short));
    let trace = |text: &str| text.split_whitespace().skip_while(|word| *word != "trace").nth(1).map(str::to_owned);
    assert_ne!(trace(&first), trace(&seed(8, &short)));
}

#[test]
fn no_seed_breaks_a_promise() {
    let first = std::env::var("TRIREME_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds = first.map_or(101..=105, |seed: u64| seed..=seed);
    for number in seeds {
        eprintln!("seed {number}");
        seed(number, &["--secs=5", "--pace-ms=150"]);
    }
}
