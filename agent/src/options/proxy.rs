//! Flags of upstream's kube-proxy (`--kube-proxy-arg`), under upstream's names and with upstream's meaning.
//!
//! Invariant: what is not acted upon is refused, in words that name the flag and what is possible.
//! Answers to <https://kubernetes.io/docs/reference/command-line-tools-reference/kube-proxy/>.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;

/// kube-proxy's metrics, on loopback.
pub const PROXY_METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);
/// kube-proxy's health, for everybody.
const PROXY_HEALTH: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 10256);

/// What was given, or upstream's default.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyFlags {
    /// Where metrics are served.
    pub metrics: SocketAddr,
    /// Where health is served.
    pub health: SocketAddr,
    /// Networks of this node's addresses at which node ports are served; empty for all of them.
    pub node_port_networks: Vec<Ipv4Net>,
}

impl Default for ProxyFlags {
    fn default() -> Self {
        Self { metrics: PROXY_METRICS, health: PROXY_HEALTH, node_port_networks: Vec::new() }
    }
}

/// The flags that are acted upon, in the order of the alphabet.
pub const KNOWN: &[&str] = &["healthz-bind-address", "metrics-bind-address", "nodeport-addresses", "proxy-mode"];

impl ProxyFlags {
    /// Reads flags without their dashes. `node_ip` is what `nodeport-addresses=primary` means. The error is one line that names the flag.
    pub fn parse<'a>(arguments: impl Iterator<Item = (&'a str, &'a str)>, node_ip: Option<IpAddr>) -> Result<Self, String> {
        let mut flags = Self::default();
        for (name, value) in arguments {
            let name = name.trim_start_matches('-');
            flags.set(name, value, node_ip).map_err(|why| format!("--kube-proxy-arg {name}={value}: {why}"))?;
        }
        Ok(flags)
    }

    fn set(&mut self, name: &str, value: &str, node_ip: Option<IpAddr>) -> Result<(), String> {
        match name {
            "healthz-bind-address" => self.health = address(value, PROXY_HEALTH.port())?,
            "metrics-bind-address" => self.metrics = address(value, PROXY_METRICS.port())?,
            "nodeport-addresses" => self.node_port_networks = networks(value, node_ip)?,
            "proxy-mode" if value == "nftables" => {}
            "proxy-mode" => return Err("the service proxy works with nftables alone".into()),
            _ => return Err(format!("this kube-proxy flag is not supported; supported are {}", KNOWN.join(", "))),
        }
        Ok(())
    }
}

/// `ADDRESS` or `ADDRESS:PORT`.
fn address(value: &str, port: u16) -> Result<SocketAddr, String> {
    let with_port = value.parse::<SocketAddr>().ok();
    let address = with_port.or_else(|| Some(SocketAddr::new(value.parse::<IpAddr>().ok()?, port)));
    address.ok_or_else(|| format!("expected ADDRESS:PORT such as 0.0.0.0:{port}"))
}

fn networks(value: &str, node_ip: Option<IpAddr>) -> Result<Vec<Ipv4Net>, String> {
    if value == "primary" {
        return match node_ip {
            Some(IpAddr::V4(ip)) => Ok(vec![ip.into()]),
            _ => Err("needs --node-ip with an IPv4 address".into()),
        };
    }
    let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
    let networks: Vec<Ipv4Net> = items
        .map(|item| item.parse().map_err(|_| "expected IPv4 networks, separated by commas, or 'primary'".to_owned()))
        .collect::<Result<_, _>>()?;
    // Networks within others would be refused as conflicting intervals.
    Ok(Ipv4Net::aggregate(&networks))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(name: &str, value: &str) -> Result<ProxyFlags, String> {
        ProxyFlags::parse([(name, value)].into_iter(), Some([192, 0, 2, 1].into()))
    }

    #[test]
    fn d16_a_flag_that_nothing_acts_upon_is_refused_and_named() {
        let refused = parse("masquerade-all", "true").unwrap_err();
        assert!(
            refused.starts_with("--kube-proxy-arg masquerade-all=true: this kube-proxy flag is not supported; supported are healthz-"),
            "{refused}"
        );
        assert!(parse("proxy-mode", "ipvs").unwrap_err().contains("nftables alone"));
        assert!(parse("metrics-bind-address", "everywhere").unwrap_err().contains("0.0.0.0:10249"));
    }

    #[test]
    fn d16_flags_do_what_upstreams_do() {
        assert_eq!(parse("metrics-bind-address", "0.0.0.0").unwrap().metrics, ([0, 0, 0, 0], 10249).into());
        assert_eq!(parse("healthz-bind-address", "127.0.0.1:1").unwrap().health, ([127, 0, 0, 1], 1).into());
        let networks = parse("nodeport-addresses", "10.0.0.0/8,10.1.0.0/16").unwrap().node_port_networks;
        assert_eq!(networks, ["10.0.0.0/8".parse::<Ipv4Net>().unwrap()]);
        assert_eq!(parse("nodeport-addresses", "primary").unwrap().node_port_networks, ["192.0.2.1/32".parse::<Ipv4Net>().unwrap()]);
    }
}
