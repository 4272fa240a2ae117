//! One of the lab's hosts: power, processes, commands.

use std::process::Command;

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
        self.shell(&format!("kill -KILL \"$(host_pid \"$1\" {process})\"")).map(drop)
    }

    /// Runs a command inside; its output.
    pub fn run(&self, command: &str) -> anyhow::Result<String> {
        self.shell(&format!("host_run \"$1\" {command}"))
    }

    fn shell(&self, script: &str) -> anyhow::Result<String> {
        let root = crate::repository();
        let script = format!(". ops/lib/common.sh; . ops/lib/host.sh; {script}");
        let output = Command::new("bash").args(["-c", &script, "host", &self.name]).current_dir(root).output().context("run bash")?;
        ensure!(output.status.success(), "host {}: {script}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
