//! One of the lab's hosts: power, processes, commands.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, ensure};

/// A host by name: `s1`..`s3` are servers, `a1` and `a2` agents.
#[derive(Debug, Clone)]
pub struct Host {
    name: String,
}

impl Host {
    /// The host of this name.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes a host that is a cluster of its own, server and node at once, and waits until it is ready.
    pub fn alone(name: &str, address: &str) -> anyhow::Result<Self> {
        let host = Self::named(name);
        host.shell(&format!("lab_alone \"$1\" {address}"))?;
        Ok(host)
    }

    /// Powers it off and removes what it had.
    pub fn remove(&self) -> anyhow::Result<()> {
        self.shell("host_remove \"$1\"").map(drop)
    }

    /// Where its disk is.
    pub fn directory(&self) -> PathBuf {
        PathBuf::from("/var/lib/trireme-lab/hosts").join(&self.name)
    }

    /// Its address.
    pub fn address(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.directory().join("address"))?.trim().to_owned())
    }

    /// The process whose end is a power cut.
    pub fn first_process(&self) -> anyhow::Result<u32> {
        let pidfile = std::fs::read_to_string(self.directory().join("pid")).with_context(|| format!("{} is off", self.name))?;
        pidfile.split_whitespace().next().context("an empty pid file")?.parse().context("a pid")
    }

    /// Cuts its power: every process and container is gone at once.
    pub fn power_off(&self) -> anyhow::Result<()> {
        self.shell("host_off \"$1\"").map(drop)
    }

    /// Powers it on, if it is off.
    pub fn power_on(&self) -> anyhow::Result<()> {
        self.shell("host_up \"$1\"").map(drop)
    }

    /// SIGKILLs its `trireme` or `containerd`; the host's first process starts it again.
    pub fn kill(&self, process: &str) -> anyhow::Result<()> {
        signal(self.pid(process)?, "KILL")
    }

    /// The pid, as seen from outside, of its `trireme` or `containerd`.
    pub fn pid(&self, process: &str) -> anyhow::Result<u32> {
        self.shell(&format!("host_pid \"$1\" {process}"))?.trim().parse().with_context(|| format!("the pid of {process} on {}", self.name))
    }

    /// Runs a command inside; its output.
    pub fn run(&self, command: &str) -> anyhow::Result<String> {
        self.shell(&format!("host_run \"$1\" {command}"))
    }

    fn shell(&self, script: &str) -> anyhow::Result<String> {
        shell(&self.name, script)
    }
}

/// Runs a script with the functions of `ops/lib`; `$1` is the host's name.
pub(crate) fn shell(host: &str, script: &str) -> anyhow::Result<String> {
    let script = format!(". ops/lib/prelude.sh; . ops/lib/host.sh; . ops/lib/single.sh; . ops/lib/lab.sh; {script}");
    let output = Command::new("bash").args(["-c", &script, "host", host]).current_dir(crate::repository()).output().context("run bash")?;
    ensure!(output.status.success(), "host {host}: {script}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Sends a signal, by its name without SIG, to a process. By the shell: not every machine has a program for it.
pub fn signal(pid: u32, name: &str) -> anyhow::Result<()> {
    let status = Command::new("sh").args(["-c", "kill -\"$0\" \"$1\"", name, &pid.to_string()]).status().context("run sh")?;
    ensure!(status.success(), "kill -{name} {pid}: {status}");
    Ok(())
}

/// Whether a process has ended, collected by its parent or not.
pub fn ended(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}
