//! Programs that the agent or the container runtime runs.

use std::process::{Command, Stdio};

use super::finding::Finding;

struct Program {
    name: &'static str,
    package: &'static str,
    without: &'static str,
}

const WANTED: &[Program] = &[
    Program { name: "containerd", package: "containerd", without: "nothing runs containers, unless another runtime is installed" },
    Program { name: "runc", package: "runc", without: "containerd starts no container, unless another OCI runtime is configured" },
    Program { name: "conntrack", package: "conntrack", without: "UDP clients of a Service wait for a time-out when a pod goes" },
    Program { name: "modprobe", package: "kmod", without: "kernel modules that are missing cannot be loaded" },
];

pub(super) fn look() -> Vec<Finding> {
    WANTED.iter().map(program).collect()
}

fn program(program: &Program) -> Finding {
    let Program { name, package, without } = program;
    let subject = format!("program {name}");
    match trireme_nft::program_exists(name) {
        true => Finding::fine(subject, "installed"),
        false => Finding::warning(subject, format!("not in PATH: {without}"), format!("apt-get install {package} (or dnf install)")),
    }
}

/// Whether nft is there and the kernel listens to it.
pub(super) fn nftables() -> Finding {
    const SUBJECT: &str = "nftables";
    let output = Command::new("nft").args(["list", "tables"]).stdin(Stdio::null()).output();
    match output {
        Err(error) => Finding::fatal(SUBJECT, format!("nft: {error}"), "apt-get install nftables (or dnf install)"),
        Ok(output) if output.status.success() => Finding::fine(SUBJECT, "nft works"),
        Ok(output) => {
            let message = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().trim().to_owned();
            Finding::fatal(SUBJECT, format!("nft fails: {message}"), "use a kernel with nf_tables, and run this as root")
        }
    }
}
