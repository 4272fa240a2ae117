//! CPU time and memory of the servers, from `/proc`.

use anyhow::Context;

/// Linux reports CPU time in ticks of 10 ms, whatever the kernel's own clock.
const TICKS_PER_SECOND: f64 = 100.0;

/// The servers' processes.
#[derive(Clone)]
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

    /// Their resident memory, in MiB.
    pub fn resident_mib(&self) -> anyhow::Result<f64> {
        self.status_mib("VmRSS:")
    }

    /// Their greatest resident memory since [`Processes::forget_peak`], in MiB.
    pub fn peak_mib(&self) -> anyhow::Result<f64> {
        self.status_mib("VmHWM:")
    }

    /// Lets the peak begin at what is resident now.
    pub fn forget_peak(&self) -> anyhow::Result<()> {
        for pid in &self.pids {
            let path = format!("/proc/{pid}/clear_refs");
            std::fs::write(&path, "5").with_context(|| format!("write {path}"))?;
        }
        Ok(())
    }

    fn status_mib(&self, field: &str) -> anyhow::Result<f64> {
        let mut kib = 0;
        for pid in &self.pids {
            let path = format!("/proc/{pid}/status");
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
            let line = text.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("{path} has no {field}"))?;
            kib += line.trim().trim_end_matches(" kB").parse::<u64>().with_context(|| format!("{path}: {field}{line}"))?;
        }
        Ok(kib as f64 / 1024.0)
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
