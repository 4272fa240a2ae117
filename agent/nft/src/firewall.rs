//! Openings in the host's own firewall.
//!
//! A packet passes only if every base chain of a hook accepts it: an `accept` in a table of ours does not overrule `policy drop` in
//! another (Docker and ufw set that on `ip filter FORWARD`). So the openings are rules in the very chains that drop. They carry the
//! comment [`COMMENT`], are put back when the firewall is loaded anew, and are found again by that comment for removal. Chains with policy
//! accept are left alone.
//!
//! Rules are of the kind that `iptables-nft` can show and save. Hosts with `iptables-legacy` have chains that nft does not see; there
//! that program is run.

use ipnet::Ipv4Net;
use serde::Deserialize;

use crate::{Error, events::Events, program};

/// Marks every rule that this module adds.
pub const COMMENT: &str = "trireme pod network";

/// A hook at which the host's firewall may drop what must pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Input,
}

/// What must pass, whatever the host's firewall says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Openings {
    /// Addresses of pods: forwarded from and to.
    pub pods: Ipv4Net,
    /// Addresses that this node answers itself to pods, on port 53 (cluster DNS).
    pub dns: Vec<std::net::Ipv4Addr>,
}

impl Openings {
    /// Match expressions, one for each rule.
    fn rules(&self, direction: Direction) -> Vec<String> {
        let pods = self.pods;
        match direction {
            Direction::Forward => vec![format!("ip saddr {pods}"), format!("ip daddr {pods}")],
            Direction::Input => {
                let port = |ip, protocol| format!("ip saddr {pods} ip daddr {ip} {protocol} dport 53");
                self.dns.iter().flat_map(|ip| [port(ip, "udp"), port(ip, "tcp")]).collect()
            }
        }
    }
}

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Item>,
}

/// One line of a listing: of the things it may be, these two are of interest.
#[derive(Deserialize)]
struct Item {
    chain: Option<Chain>,
    rule: Option<Rule>,
}

#[derive(Deserialize)]
struct Chain {
    family: String,
    table: String,
    name: String,
    hook: Option<String>,
    policy: Option<String>,
}

#[derive(Deserialize)]
struct Rule {
    family: String,
    table: String,
    chain: String,
    handle: u64,
    comment: Option<String>,
}

/// Adds the openings that are missing; how many chains got them.
pub async fn open(openings: &Openings) -> Result<usize, Error> {
    let mut opened = 0;
    for chain in dropping_chains().await? {
        let rules = openings.rules(chain.direction);
        let present = marked_rules(&chain).await?.len();
        if rules.is_empty() || present == rules.len() {
            continue;
        }
        // If only a part of the rules is there, the others were removed by hand: begin again, in one transaction.
        let mut script = removal(&marked_rules(&chain).await?);
        for rule in rules {
            script.push_str(&format!(
                "insert rule {} {} {} {rule} counter accept comment \"{COMMENT}\"\n",
                chain.family, chain.table, chain.name
            ));
        }
        program::run("nft", &["-f", "-"], &script).await?;
        tracing::info!(chain = %format!("{} {} {}", chain.family, chain.table, chain.name), "the host's firewall drops by default: pod traffic is let through");
        opened += 1;
    }
    Ok(opened + legacy::open(openings).await?)
}

/// Removes every opening.
pub async fn close() -> Result<(), Error> {
    for chain in filter_chains().await? {
        let script = removal(&marked_rules(&chain).await?);
        if !script.is_empty() {
            program::run("nft", &["-f", "-"], &script).await?;
        }
    }
    legacy::close().await
}

/// A subscription that fires when rules change: then [`open`] is due again.
pub fn changes() -> Result<Events, Error> {
    Events::open()
}

/// A base chain that another program made.
struct BaseChain {
    family: String,
    table: String,
    name: String,
    direction: Direction,
    drops: bool,
}

async fn dropping_chains() -> Result<Vec<BaseChain>, Error> {
    Ok(filter_chains().await?.into_iter().filter(|chain| chain.drops).collect())
}

async fn filter_chains() -> Result<Vec<BaseChain>, Error> {
    let listing = list(&["list", "chains"]).await?;
    Ok(listing.into_iter().filter_map(|item| base_chain(item.chain?)).collect())
}

fn base_chain(chain: Chain) -> Option<BaseChain> {
    let direction = match chain.hook.as_deref()? {
        "forward" => Direction::Forward,
        "input" => Direction::Input,
        _ => return None,
    };
    // Of the other families, none sees routed IPv4.
    let sees_ipv4 = matches!(chain.family.as_str(), "ip" | "inet");
    // A chain whose name cannot be quoted safely was not made by a common firewall.
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if !sees_ipv4 || !plain(&chain.table) || !plain(&chain.name) {
        return None;
    }
    let drops = chain.policy.as_deref() == Some("drop");
    Some(BaseChain { family: chain.family, table: chain.table, name: chain.name, direction, drops })
}

async fn marked_rules(chain: &BaseChain) -> Result<Vec<Rule>, Error> {
    let listing = list(&["-a", "list", "chain", &chain.family, &chain.table, &chain.name]).await?;
    let rules = listing.into_iter().filter_map(|item| item.rule);
    Ok(rules.filter(|rule| rule.comment.as_deref() == Some(COMMENT)).collect())
}

fn removal(rules: &[Rule]) -> String {
    rules.iter().map(|r| format!("delete rule {} {} {} handle {}\n", r.family, r.table, r.chain, r.handle)).collect()
}

async fn list(arguments: &[&str]) -> Result<Vec<Item>, Error> {
    let arguments: Vec<&str> = std::iter::once("-j").chain(arguments.iter().copied()).collect();
    let text = program::run("nft", &arguments, "").await?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let listing: Listing = serde_json::from_str(&text)
        .map_err(|e| Error::Refused { program: "nft", message: format!("its listing is not understood: {e}") })?;
    Ok(listing.nftables)
}

/// The chains of `iptables-legacy`, which nft does not show.
mod legacy {
    use super::{COMMENT, Direction, Openings};
    use crate::{Error, program};

    const PROGRAM: &str = "iptables-legacy";
    /// Lists the legacy tables in use; it does not exist where the kernel has none.
    const TABLES: &str = "/proc/thread-self/net/ip_tables_names";

    fn is_in_use() -> bool {
        std::fs::read_to_string(TABLES).is_ok_and(|tables| tables.lines().any(|t| t == "filter")) && program::exists(PROGRAM)
    }

    pub(super) async fn open(openings: &Openings) -> Result<usize, Error> {
        if !is_in_use() {
            return Ok(0);
        }
        let mut opened = 0;
        for (chain, direction) in [("FORWARD", Direction::Forward), ("INPUT", Direction::Input)] {
            let listing = program::run(PROGRAM, &["-w", "-S", chain], "").await?;
            let drops = listing.lines().any(|l| l == format!("-P {chain} DROP"));
            let rules = matches(openings, direction);
            if !drops || listing.lines().filter(|l| l.contains(COMMENT)).count() == rules.len() {
                continue;
            }
            remove(chain, &listing).await?;
            for rule in rules {
                let mut arguments = vec!["-w", "-I", chain];
                arguments.extend(rule.iter().map(String::as_str));
                arguments.extend(["-m", "comment", "--comment", COMMENT, "-j", "ACCEPT"]);
                program::run(PROGRAM, &arguments, "").await?;
            }
            opened += 1;
        }
        Ok(opened)
    }

    pub(super) async fn close() -> Result<(), Error> {
        if !is_in_use() {
            return Ok(());
        }
        for chain in ["FORWARD", "INPUT"] {
            let listing = program::run(PROGRAM, &["-w", "-S", chain], "").await?;
            remove(chain, &listing).await?;
        }
        Ok(())
    }

    async fn remove(chain: &str, listing: &str) -> Result<(), Error> {
        // Numbers of later rules do not change when they are removed from the end.
        let rules = listing.lines().filter(|l| l.starts_with("-A ")).enumerate();
        let marked: Vec<usize> = rules.filter(|(_, l)| l.contains(COMMENT)).map(|(i, _)| i + 1).collect();
        for number in marked.iter().rev() {
            program::run(PROGRAM, &["-w", "-D", chain, &number.to_string()], "").await?;
        }
        Ok(())
    }

    fn matches(openings: &Openings, direction: Direction) -> Vec<Vec<String>> {
        let pods = openings.pods.to_string();
        let words = |text: String| text.split(' ').map(str::to_owned).collect();
        match direction {
            Direction::Forward => vec![words(format!("-s {pods}")), words(format!("-d {pods}"))],
            Direction::Input => {
                let port = |ip, protocol| words(format!("-s {pods} -d {ip} -p {protocol} --dport 53"));
                openings.dns.iter().flat_map(|ip| [port(ip, "udp"), port(ip, "tcp")]).collect()
            }
        }
    }
}
