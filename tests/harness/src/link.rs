//! A place on the lab's switch without a host: a network namespace with an address, which can be cut off from others.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};

use crate::host::shell;

/// What does not get through any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing, either way.
    Both,
    /// What others send here.
    Incoming,
    /// What is sent from here.
    Outgoing,
}

/// A network namespace on the switch; removed when dropped.
#[derive(Debug)]
pub struct Link {
    name: String,
}

impl Link {
    /// Makes one.
    pub fn new(name: &str, address: &str) -> anyhow::Result<Self> {
        let link = Self { name: name.to_owned() };
        shell(name, &format!("lab_switch; host_link \"$1\" {address}"))?;
        Ok(link)
    }

    /// The namespace's name.
    pub fn namespace(&self) -> String {
        format!("trireme-{}", self.name)
    }

    /// Cuts it off from these addresses; an earlier cut is healed.
    pub fn cut(&self, cut: Cut, others: &[String]) -> anyhow::Result<()> {
        let others = others.join(", ");
        let incoming = if cut == Cut::Outgoing { String::new() } else { format!("ip saddr {{ {others} }} drop") };
        let outgoing = if cut == Cut::Incoming { String::new() } else { format!("ip daddr {{ {others} }} drop") };
        self.nft(&format!(
            "table inet cut {{}}\ndelete table inet cut\ntable inet cut {{\n\
             chain incoming {{ type filter hook input priority 0; {incoming}\n}}\n\
             chain outgoing {{ type filter hook output priority 0; {outgoing}\n}}\n}}\n"
        ))
    }

    /// Everything gets through again.
    pub fn heal(&self) -> anyhow::Result<()> {
        self.nft("table inet cut {}\ndelete table inet cut\n")
    }

    fn nft(&self, rules: &str) -> anyhow::Result<()> {
        let mut nft = Command::new("nsenter");
        nft.arg(format!("--net=/run/netns/{}", self.namespace())).args(["nft", "-f", "-"]);
        let mut child = nft.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().context("run nft")?;
        child.stdin.take().context("stdin of nft")?.write_all(rules.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "nft: {}: {rules}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // `ops/down` does not know of this namespace, so a failed removal is reported here.
        if let Err(error) = shell(&self.name, "ip netns del \"trireme-$1\"") {
            eprintln!("{error:#}");
        }
    }
}
