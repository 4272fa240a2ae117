//! Running a target: in a child process that notes the number of its input, watched by a parent.

use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::mutate;
use crate::targets::Target;

/// One input may not make the process grow by more.
const MEMORY_GROWTH_MAX_BYTES: u64 = 256 << 20;
/// How often memory is looked at, in inputs; and after each input that was slow.
const MEMORY_EVERY: u64 = 256;
/// No progress for so long is a hang.
const HANG: Duration = Duration::from_secs(60);

/// Runs one input and prints it.
pub fn one(target: &Target, seed: u64, number: u64) {
    let input = mutate::input(&(target.corpus)(), seed, number);
    println!("{}: seed {seed}, input {number}: {}", target.name, input.escape_ascii());
    (target.run)(&input);
    println!("no panic");
}

/// Runs inputs until the time is over. Writes the number of each input to standard output before it is run.
pub fn child(target: &Target, seed: u64, seconds: u64) -> anyhow::Result<()> {
    let corpus = (target.corpus)();
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut output = std::io::stdout().lock();
    let mut baseline = resident_bytes();
    let mut number = 0u64;
    while Instant::now() < end {
        output.write_all(&number.to_le_bytes())?;
        output.flush()?;
        let input = mutate::input(&corpus, seed, number);
        let began = Instant::now();
        if catch_unwind(AssertUnwindSafe(|| (target.run)(&input))).is_err() {
            anyhow::bail!("input {number} panics");
        }
        if number == 1000 {
            // Tables that are made once are made now.
            baseline = resident_bytes();
        }
        if number > 1000 && (number.is_multiple_of(MEMORY_EVERY) || began.elapsed() > Duration::from_millis(50)) {
            let resident = resident_bytes();
            anyhow::ensure!(
                resident < baseline + MEMORY_GROWTH_MAX_BYTES,
                "memory grew from {baseline} to {resident} bytes by input {number}"
            );
        }
        number += 1;
    }
    Ok(())
}

/// Starts a child and watches it; false if it failed.
pub fn parent(target: &Target, seed: u64, seconds: u64) -> anyhow::Result<bool> {
    let mut child = Command::new(std::env::current_exe()?)
        .args([target.name, "--child", "--seed", &seed.to_string(), "--seconds", &seconds.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut output = child.stdout.take().ok_or_else(|| anyhow::anyhow!("the child has no output"))?;
    let last = Arc::new(AtomicU64::new(0));
    let noted = last.clone();
    let reader = std::thread::spawn(move || {
        let mut number = [0; 8];
        while output.read_exact(&mut number).is_ok() {
            noted.store(u64::from_le_bytes(number), Ordering::Relaxed);
        }
    });
    let (mut seen, mut since) = (0, Instant::now());
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        let now = last.load(Ordering::Relaxed);
        if now != seen {
            (seen, since) = (now, Instant::now());
        } else if since.elapsed() > HANG {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    reader.join().map_err(|_| anyhow::anyhow!("the reader of the child's output failed"))?;
    let number = last.load(Ordering::Relaxed);
    let again = format!("trireme-fuzz {} --seed {seed} --input {number}", target.name);
    Ok(match status {
        Some(status) if status.success() => {
            println!("ok    {:<16} {:>9} inputs, seed {seed}", target.name, number + 1);
            true
        }
        Some(status) => {
            println!("FAIL  {:<16} input {number} of seed {seed}: {status}; again with: {again}", target.name);
            false
        }
        None => {
            println!("FAIL  {:<16} input {number} of seed {seed} hangs; again with: {again}", target.name);
            false
        }
    })
}

fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok().and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}
