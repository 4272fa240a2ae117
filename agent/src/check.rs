//! Whether this host can run Trireme, and what to do where it cannot.
//!
//! One file for each thing that is looked at. [`all`] looks at everything, for `trireme check-host`; [`before_start`] looks at what ends
//! a start. Must change nothing on the host: a module that can be loaded counts as there.

mod cgroups;
mod clock;
mod disk;
mod finding;
mod firewall;
mod kernel;
mod ports;
mod programs;
mod runtime;

use std::path::PathBuf;

pub use finding::{Finding, Verdict, table};

use crate::error::Error;

/// What is to run on the host.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Store, API server, controllers.
    pub server: bool,
    /// Pods.
    pub node: bool,
    /// All state is below it.
    pub data_dir: PathBuf,
    /// Socket of the container runtime.
    pub runtime_endpoint: PathBuf,
    /// Pods on a bridge of ours; else another CNI plugin is installed.
    pub own_network: bool,
}

/// Looks at everything that the plan needs.
pub async fn all(plan: &Plan) -> Vec<Finding> {
    let mut findings = vec![kernel::user(), kernel::version()];
    if plan.node {
        findings.extend(kernel::modules(plan.own_network));
        findings.extend(kernel::settings(plan.own_network));
        findings.extend(cgroups::look());
        findings.extend(programs::look());
        findings.push(programs::nftables());
        findings.extend(runtime::look(plan).await);
        findings.extend(firewall::look());
    }
    findings.extend(ports::look(plan));
    findings.extend(disk::look(plan));
    findings.push(clock::look());
    findings
}

/// What ends the start of a node, in one line.
pub fn before_start() -> Result<(), Error> {
    let findings = [kernel::user(), kernel::version(), programs::nftables()].into_iter().chain(cgroups::look());
    match findings.into_iter().find(|finding| finding.verdict == Verdict::Fatal) {
        Some(Finding { subject, found, remedy, .. }) => Err(Error::Host(format!("{subject}: {found}; {remedy} (see: trireme check-host)"))),
        None => Ok(()),
    }
}

/// Says in the log what keeps the runtime from working with this node.
pub(crate) async fn warn_of_runtime(plan: Plan) {
    for finding in runtime::look(&plan).await.iter().filter(|f| f.verdict != Verdict::Fine) {
        tracing::warn!("{}: {}; {}", finding.subject, finding.found, finding.remedy);
    }
}
