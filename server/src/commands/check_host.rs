//! `trireme check-host`.

use trireme_agent::check::{self, Plan, Verdict};

use super::Failure;
use crate::cli::{CheckHostArgs, Role};

/// Prints what was found; fails where something must be mended first.
pub async fn check_host(args: CheckHostArgs) -> Result<(), Failure> {
    let plan = Plan {
        server: args.role != Role::Agent,
        node: args.role != Role::Server,
        data_dir: args.data_dir,
        runtime_endpoint: args.container_runtime_endpoint,
        own_network: !args.foreign_network,
    };
    let findings = check::all(&plan).await;
    print!("{}", check::table(&findings));
    match findings.iter().filter(|finding| finding.verdict == Verdict::Fatal).count() {
        0 => Ok(()),
        1 => Err(Failure::from("one problem: see the table above for the way out")),
        many => Err(Failure::from(format!("{many} problems: see the table above for the ways out"))),
    }
}
