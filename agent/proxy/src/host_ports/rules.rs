//! The table's content: a pure function of the mappings.

use trireme_nft::{Hook, Transaction};

use super::{Mapping, PodPorts};

/// Mark bit of packets that must reach the pod with the node's own address.
const MASQUERADE: &str = "0x2000";

/// Replaces the table by one with these mappings; removes it if there are none.
pub(super) fn load<'a>(transaction: &mut Transaction, bridge: &str, pods: impl Iterator<Item = &'a PodPorts>) {
    let mut pods = pods.filter(|pod| !pod.mappings.is_empty()).peekable();
    if pods.peek().is_none() {
        return transaction.remove_table();
    }
    transaction.replace_table();
    for chain in ["mark_masquerade", "host_ports"] {
        transaction.add_chain(chain);
    }
    transaction.add_rule("mark_masquerade", &format!("meta mark set meta mark or {MASQUERADE}"));
    for (number, (pod, mapping)) in pods.flat_map(|pod| pod.mappings.iter().map(move |m| (pod, m))).enumerate() {
        let chain = format!("port_{number}");
        transaction.add_chain(&chain);
        for source in [format!("iifname {bridge}"), "ip saddr 127.0.0.0/8".to_owned(), format!("ip saddr {}", pod.address)] {
            transaction.add_rule(&chain, &format!("{source} jump mark_masquerade"));
        }
        let Mapping { protocol, host_port, container_port, .. } = mapping;
        transaction.add_rule(&chain, &format!("meta l4proto {protocol} dnat to {}:{container_port}", pod.address));
        let address = mapping.host_ip.map_or_else(|| "fib daddr type local".to_owned(), |ip| format!("ip daddr {ip}"));
        transaction.add_rule("host_ports", &format!("{address} {protocol} dport {host_port} goto {chain}"));
    }
    // After the rules of Services, which have priority -100 and 100 there.
    for (chain, hook) in [("prerouting", "prerouting"), ("output", "output")] {
        transaction.add_base_chain(chain, Hook { kind: "nat", hook, priority: -95 });
        transaction.add_rule(chain, "jump host_ports");
    }
    transaction.add_base_chain("postrouting", Hook { kind: "nat", hook: "postrouting", priority: 95 });
    let marked = format!("meta mark and {MASQUERADE} == {MASQUERADE} meta mark set meta mark and 0xffffdfff masquerade fully-random");
    transaction.add_rule("postrouting", &marked);
    transaction.add_base_chain("loopback_guard", Hook { kind: "filter", hook: "prerouting", priority: -300 });
    transaction.add_rule("loopback_guard", "iifname != lo ip daddr 127.0.0.0/8 drop");
}
