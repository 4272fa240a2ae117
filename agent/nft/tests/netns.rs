//! Real nft in network namespaces made for it. Needs root.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use trireme_nft::{
    Family, Hook, OwnedTable, Transaction,
    firewall::{self, Openings},
};

/// Runs a test on a thread with an empty network namespace of its own, which ends with the thread.
fn in_new_namespace(test: impl AsyncFnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    });
    thread.join().unwrap();
}

fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn load(table: &mut OwnedTable) {
    let mut transaction = table.transaction();
    transaction.replace_table();
    transaction.add_base_chain("in", Hook { kind: "filter", hook: "input", priority: 5 });
    transaction.add_rule("in", "tcp dport 1 drop");
    table.commit(&transaction).await.unwrap();
}

#[test]
fn vm_04_a_flushed_ruleset_is_noticed_and_own_changes_are_not() {
    in_new_namespace(async || {
        let mut table = OwnedTable::new(Family::Ip, "own").unwrap();
        assert!(!table.is_intact(), "nothing is loaded yet");
        load(&mut table).await;
        let mut more = table.transaction();
        more.add_rule("in", "tcp dport 2 drop");
        table.commit(&more).await.unwrap();
        assert!(table.is_intact());
        sh("nft add table ip other; nft delete table ip other");
        assert!(table.is_intact(), "another table is another's business");
        for harm in ["nft flush ruleset", "nft flush table ip own", "nft delete table ip own", "nft add rule ip own in accept"] {
            sh(harm);
            table.disturbed().await;
            assert!(!table.is_intact(), "{harm}");
            load(&mut table).await;
            assert!(table.is_intact(), "mended after {harm}");
        }
    });
}

#[test]
fn vm_04_a_large_own_transaction_does_not_look_like_somebody_elses() {
    in_new_namespace(async || {
        let mut table = OwnedTable::new(Family::Ip, "own").unwrap();
        let mut transaction = table.transaction();
        transaction.replace_table();
        for number in 0..6000 {
            transaction.add_chain(&format!("chain_with_quite_a_long_name_{number}"));
            transaction.add_rule(&format!("chain_with_quite_a_long_name_{number}"), "meta l4proto tcp counter accept");
        }
        table.commit(&transaction).await.unwrap();
        assert!(table.is_intact());
        sh("nft flush ruleset");
        assert!(!table.is_intact());
    });
}

#[test]
fn a_refused_transaction_says_why_and_changes_nothing() {
    in_new_namespace(async || {
        let mut table = OwnedTable::new(Family::Ip, "own").unwrap();
        load(&mut table).await;
        let before = sh("nft list ruleset");
        let mut wrong = table.transaction();
        wrong.add_chain("fine");
        wrong.add_rule("missing", "accept");
        let error = table.commit(&wrong).await.unwrap_err();
        let expected = "the kernel refused packet rules (add rule ip own missing accept): No such file or directory (os error 2)";
        assert_eq!(error.to_string(), expected);
        assert_eq!(sh("nft list ruleset"), before);
        // What goes through nft.
        wrong.add_rule("missing", "counter accept");
        let error = table.commit(&wrong).await.unwrap_err();
        assert!(error.to_string().starts_with("nft refused: "), "{error}");
        assert_eq!(sh("nft list ruleset"), before);
        let mut right = table.transaction();
        right.add_chain("fine");
        table.commit(&right).await.unwrap();
    });
}

/// Statements of every form that goes to the kernel directly.
fn forms(transaction: &mut Transaction) {
    transaction.add_set("affinity", "type ipv4_addr; flags dynamic, timeout; timeout 10800s; size 65535;");
    transaction.add_set("addresses", "type ipv4_addr;");
    transaction.add_set("ports", "type ipv4_addr . inet_proto . inet_service;");
    for chain in ["a", "b", "gone"] {
        transaction.add_chain(chain);
        transaction.flush_chain(chain);
    }
    for rule in [
        "ip saddr != 10.42.0.0/16 jump b",
        "ip saddr 10.42.0.5 goto b",
        "ip saddr 203.0.113.7/27 goto b",
        "ip daddr 10.0.0.0/9 drop",
        "ip saddr @addresses goto b",
        "ip daddr @ranges accept",
        "ip saddr @affinity goto b",
        "ip daddr vmap @verdicts",
        "ip daddr . meta l4proto . th dport @ports accept",
        "ip daddr . meta l4proto . th dport vmap @services",
        "fib saddr type local goto b",
        "numgen random mod 5 == 0 goto b",
        "numgen random mod 100 < 16 goto b",
        "update @affinity { ip saddr }",
        "meta l4proto udp",
        "meta l4proto sctp dnat ip to ip daddr . sctp dport . numgen random mod 3 map @endpoints",
        "meta l4proto udp dnat ip to udp dport . numgen random mod 1 map @node_port_endpoints",
        "tcp dport 80 accept",
        "ip saddr @addresses sctp dport 80-90 accept",
        "drop",
    ] {
        transaction.add_rule(if rule.contains("dnat") { "b" } else { "a" }, rule);
    }
    transaction.add_rule("b", "meta l4proto tcp dnat to 10.42.0.5:8080");
    transaction.add_rule("gone", "accept");
    transaction.add_element("services", "10.43.0.9 . tcp . 80 : goto b");
    transaction.add_element("services", "10.43.0.10 . udp . 53 : drop");
    transaction.add_element("endpoints", "10.43.0.9 . 80 . 0x0 : 10.42.0.5 . 8080");
    transaction.add_element("endpoints", "10.43.0.9 . 80 . 0x1f : 10.42.0.6 . 8080");
    transaction.delete_element("endpoints", "10.43.0.9 . 80 . 0x0");
    transaction.add_element("node_port_endpoints", "30080 . 0x2 : 10.42.0.5 . 53");
    transaction.add_element("pairs", "10.42.0.5 . 10.42.0.5");
    transaction.add_element("verdicts", "10.43.0.9 : jump b");
    transaction.add_element("verdicts", "10.43.0.8 : accept");
    transaction.add_element("node_ports", "sctp . 30080 : goto b");
    transaction.add_element("addresses", "10.42.0.7");
    transaction.add_element("addresses", "10.42.0.8");
    transaction.add_element("ports", "10.43.0.9 . tcp . 80");
    transaction.delete_element("addresses", "10.42.0.8");
    transaction.delete_element("services", "10.43.0.10 . udp . 53");
    transaction.flush_chain("gone");
    transaction.delete_chain("gone");
    transaction.delete_set("unused");
}

#[test]
fn what_goes_to_the_kernel_directly_has_the_effect_that_it_has_through_nft() {
    in_new_namespace(async || {
        let mut listings = Vec::new();
        for direct in [true, false] {
            let mut table = OwnedTable::new(Family::Ip, "own").unwrap();
            let mut base = table.transaction();
            base.replace_table();
            base.add_map("services", "type ipv4_addr . inet_proto . inet_service : verdict;");
            base.add_map("node_ports", "type inet_proto . inet_service : verdict;");
            base.add_map("verdicts", "type ipv4_addr : verdict;");
            base.add_map("endpoints", "typeof ip daddr . sctp dport . numgen random mod 2 : ip daddr . sctp dport;");
            base.add_map("node_port_endpoints", "typeof udp dport . numgen random mod 2 : ip daddr . udp dport;");
            base.add_set("pairs", "type ipv4_addr . ipv4_addr;");
            base.add_set("ranges", "type ipv4_addr; flags interval;");
            base.add_set("unused", "type ipv4_addr;");
            table.commit(&base).await.unwrap();
            let mut transaction = table.transaction();
            forms(&mut transaction);
            assert!(trireme_nft::is_direct(&transaction));
            if !direct {
                transaction.flush_set("unused_by_rules");
                let mut with = table.transaction();
                with.add_set("unused_by_rules", "type ipv4_addr;");
                table.commit(&with).await.unwrap();
                assert!(!trireme_nft::is_direct(&transaction));
                transaction.delete_set("unused_by_rules");
            }
            table.commit(&transaction).await.unwrap();
            assert!(table.is_intact());
            listings.push(sh("nft list ruleset"));
        }
        let [direct, through_nft] = listings.as_slice() else { panic!() };
        assert_eq!(direct, through_nft);
        assert!(direct.contains("ip saddr 203.0.113.0/27 goto b") && direct.contains("10.43.0.9 : jump b"), "{direct}");
    });
}

/// What Docker and ufw leave behind: iptables-nft's tables with policy drop.
const FIREWALL: &str = "nft -f - <<'END'
table ip filter {
  chain INPUT { type filter hook input priority filter; policy drop; iifname lo accept; }
  chain FORWARD { type filter hook forward priority filter; policy drop; ip saddr 192.0.2.0/24 counter accept; }
  chain OUTPUT { type filter hook output priority filter; policy accept; }
}
table inet other {
  chain forward { type filter hook forward priority 10; policy accept; }
}
END";

fn openings() -> Openings {
    Openings { pods: "10.42.0.0/16".parse().unwrap(), dns: vec!["10.43.0.10".parse().unwrap()] }
}

#[test]
fn vm_07_a_firewall_that_drops_is_opened_once_again_after_a_reload_and_closed() {
    in_new_namespace(async || {
        assert_eq!(firewall::open(&openings()).await.unwrap(), 0, "no firewall, nothing to open");
        sh(FIREWALL);
        let before = sh("nft list ruleset");
        assert_eq!(firewall::open(&openings()).await.unwrap(), 2);
        let forward = sh("nft list chain ip filter FORWARD");
        let first = forward.lines().nth(3).unwrap();
        assert!(first.contains("ip daddr 10.42.0.0/16") && first.contains("accept comment \"trireme pod network\""), "{forward}");
        assert!(sh("nft list chain ip filter INPUT").contains("ip daddr 10.43.0.10 tcp dport 53"));
        assert!(!sh("nft list table inet other").contains("trireme"), "policy accept is left alone");
        assert_eq!(firewall::open(&openings()).await.unwrap(), 0, "a second time adds nothing");
        sh(&format!("nft flush ruleset; {FIREWALL}"));
        assert_eq!(firewall::open(&openings()).await.unwrap(), 2, "reloaded by somebody else");
        firewall::close().await.unwrap();
        assert_eq!(sh("nft list ruleset"), before);
    });
}

#[test]
fn vm_07_iptables_goes_on_understanding_its_tables() {
    if !trireme_nft::program_exists("iptables-nft") {
        return;
    }
    in_new_namespace(async || {
        sh("iptables-nft -P FORWARD DROP");
        assert_eq!(firewall::open(&openings()).await.unwrap(), 1);
        let saved = sh("iptables-nft -S FORWARD");
        assert!(saved.contains("-s 10.42.0.0/16 -m comment --comment \"trireme pod network\" -j ACCEPT"), "{saved}");
        firewall::close().await.unwrap();
        assert_eq!(sh("iptables-nft -S FORWARD"), "-P FORWARD DROP\n");
        if trireme_nft::program_exists("iptables-legacy")
            && Command::new("iptables-legacy").args(["-P", "FORWARD", "DROP"]).status().unwrap().success()
        {
            sh("iptables-nft -P FORWARD ACCEPT");
            assert_eq!(firewall::open(&openings()).await.unwrap(), 1);
            assert_eq!(firewall::open(&openings()).await.unwrap(), 0);
            assert!(sh("iptables-legacy -S FORWARD").contains("-d 10.42.0.0/16 -m comment --comment \"trireme pod network\" -j ACCEPT"));
            firewall::close().await.unwrap();
            assert_eq!(sh("iptables-legacy -S FORWARD"), "-P FORWARD DROP\n");
        }
    });
}
