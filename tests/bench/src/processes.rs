//! CPU time of the servers, from `/proc`.

use anyhow::Context;

/// Linux reports CPU time in ticks of 10 ms, whatever the kernel's own clock.
const TICKS_PER_SECOND: f64 = 100.0;

/// The servers' processes.
pub struct Processes {
    pids: Vec<u32>,
}

impl Processes {
    /// These.
    pub fn new(pids: Vec<u32>) -> Processes {
        Processes { pids }
    }

    /// What they have used so far, all together.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let ticks: Vec<u64> = self.pids.iter().map(|pid| ticks(*pid)).collect::<Result<_, _>>()?;
        Ok(ticks.iter().sum::<u64>() as f64 / TICKS_PER_SECOND)
    }
}

fn ticks(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // Behind the name, which is in brackets and may hold anything: state is field 3, user and system time are 14 and 15.
    let fields: Vec<&str> = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let field = |n: usize| fields.get(n - 3).and_then(|field| field.parse::<u64>().ok());
    field(14).zip(field(15)).map(|(user, system)| user + system).with_context(|| format!("{path} is not understood"))
}
