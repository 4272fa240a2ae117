//! The host's firewall, as far as it can be told.

use std::process::{Command, Stdio};

use super::finding::Finding;

const PORTS: &str = "let in 6443/tcp (servers), 2380/tcp (between servers), 10250/tcp and 8472/udp (between nodes); see docs/install-ha.md";

pub(super) fn look() -> Vec<Finding> {
    let mut findings = Vec::new();
    if is_running("firewall-cmd", &["--state"], "running") {
        let remedy = format!("firewall-cmd --permanent --zone=trusted --add-source=10.42.0.0/16 --add-source=10.43.0.0/16; {PORTS}");
        findings.push(Finding::warning("firewalld", "runs, and rejects what it does not know", remedy));
    }
    if is_running("ufw", &["status"], "Status: active") {
        findings.push(Finding::warning("ufw", "runs; the traffic of pods is let through when the node starts", PORTS));
    }
    findings
}

fn is_running(program: &str, arguments: &[&str], sign: &str) -> bool {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(sign))
}
