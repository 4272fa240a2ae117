//! A running cluster, seen through kubectl.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, bail, ensure};

/// A cluster and how to reach it.
#[derive(Debug, Clone)]
pub struct Cluster {
    kubeconfig: PathBuf,
}

impl Cluster {
    /// The cluster of one server on this host.
    pub fn single() -> anyhow::Result<Self> {
        Self::at(Path::new("/etc/trireme/kubeconfig.yaml"))
    }

    /// The cluster of three servers and two agents.
    pub fn lab() -> anyhow::Result<Self> {
        Self::at(Path::new("/var/lib/trireme-lab/kubeconfig.yaml"))
    }

    /// The cluster of one of the lab's hosts that is server and node at once ([`crate::Host::alone`]).
    pub fn of(host: &crate::Host) -> anyhow::Result<Self> {
        Self::at(&host.directory().join("kubeconfig.yaml"))
    }

    fn at(kubeconfig: &Path) -> anyhow::Result<Self> {
        ensure!(kubeconfig.exists(), "{} is missing: the cluster is brought up by ops/test e2e", kubeconfig.display());
        Ok(Self { kubeconfig: kubeconfig.to_owned() })
    }

    /// Its kubeconfig file.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A kubectl command, not yet run.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--request-timeout=30s").args(args).stdin(Stdio::null());
        command
    }

    /// Runs kubectl; its standard output, or an error with what it said.
    pub fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        output_of(self.command(args).output().context("run kubectl")?, args)
    }

    /// Runs kubectl that must fail; what it said.
    pub fn kubectl_fails(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = self.command(args).output().context("run kubectl")?;
        ensure!(!output.status.success(), "kubectl {} succeeded: {}", args.join(" "), text(&output.stdout));
        Ok(text(&output.stderr))
    }

    /// Runs kubectl with standard input.
    pub fn kubectl_with(&self, args: &[&str], input: &str) -> anyhow::Result<String> {
        let mut child = self.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("stdin of kubectl")?.write_all(input.as_bytes())?;
        output_of(child.wait_with_output()?, args)
    }

    /// A fresh namespace, deleted when dropped.
    pub fn namespace(&self, prefix: &str) -> anyhow::Result<Namespace> {
        let name = format!("{prefix}-{}", std::process::id());
        self.kubectl(&["create", "namespace", &name])?;
        Ok(Namespace { cluster: self.clone(), name })
    }
}

/// A namespace for one test.
#[derive(Debug)]
pub struct Namespace {
    cluster: Cluster,
    name: String,
}

impl Namespace {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs kubectl in it.
    pub fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.cluster.kubectl(&self.within(args))
    }

    /// Runs kubectl in it, which must fail; what it said.
    pub fn kubectl_fails(&self, args: &[&str]) -> anyhow::Result<String> {
        self.cluster.kubectl_fails(&self.within(args))
    }

    /// Runs kubectl in it with standard input.
    pub fn kubectl_with(&self, args: &[&str], input: &str) -> anyhow::Result<String> {
        self.cluster.kubectl_with(&self.within(args), input)
    }

    /// A kubectl command in it, not yet run.
    pub fn command(&self, args: &[&str]) -> Command {
        self.cluster.command(&self.within(args))
    }

    fn within<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        ["-n", self.name.as_str()].into_iter().chain(args.iter().copied()).collect()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Best effort: the next test has a namespace of its own anyway.
        let _ = self.cluster.kubectl(&["delete", "namespace", &self.name, "--wait=false"]);
    }
}

fn output_of(output: Output, args: &[&str]) -> anyhow::Result<String> {
    if !output.status.success() {
        bail!("kubectl {}: {}{}", args.join(" "), text(&output.stderr), text(&output.stdout));
    }
    Ok(text(&output.stdout))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
