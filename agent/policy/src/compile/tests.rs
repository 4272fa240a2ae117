#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use serde_json::{Value, json};
use trireme_nft::{Family, Transaction};

use super::*;
use crate::{objects::PodAddress, ruleset, state::Attached};

fn policy(spec: Value) -> Arc<NetworkPolicy> {
    named_policy("p", spec)
}

fn named_policy(name: &str, spec: Value) -> Arc<NetworkPolicy> {
    Arc::new(serde_json::from_value(json!({"metadata": {"namespace": "a", "name": name}, "spec": spec})).unwrap())
}

/// `a/web` and `b/client` are on this node, `a/far` is not.
fn state(policies: Vec<Arc<NetworkPolicy>>) -> State {
    let pods = json!([
        {"metadata": {"namespace": "a", "name": "web", "uid": "1", "labels": {"app": "web"}}, "nodeName": "n1", "addresses": ["10.42.0.2"],
         "ports": [{"name": "http", "protocol": "TCP", "port": 8080}]},
        {"metadata": {"namespace": "b", "name": "client", "uid": "2", "labels": {"app": "client"}}, "nodeName": "n1", "addresses": ["10.42.0.3"]},
        {"metadata": {"namespace": "a", "name": "far", "uid": "3", "labels": {"app": "client"}}, "nodeName": "n2", "addresses": ["10.42.1.2", "fd00::2"],
         "ports": [{"name": "http", "protocol": "TCP", "port": 9090}]},
        {"metadata": {"namespace": "a", "name": "done", "uid": "4", "labels": {"app": "web"}}, "nodeName": "n1", "addresses": ["10.42.0.4"], "ended": true},
        {"metadata": {"namespace": "a", "name": "host", "uid": "5", "labels": {"app": "web"}}, "nodeName": "n1", "addresses": ["192.168.0.1"], "hostNetwork": true},
    ]);
    let pods: Vec<PodAddress> = serde_json::from_value(pods).unwrap();
    let namespaces: Vec<Arc<k8s_openapi::api::core::v1::Namespace>> = serde_json::from_value(
        json!([{"metadata": {"name": "a", "labels": {"team": "x"}}}, {"metadata": {"name": "b", "labels": {"team": "y"}}}]),
    )
    .unwrap();
    State::new("n1", policies, &namespaces, pods.into_iter().map(Arc::new).collect(), &BTreeMap::new())
}

fn rules(spec: Value) -> RuleSet {
    compile(&state(vec![policy(spec)]))
}

/// The rules of the only policy's chain in one direction, with the elements of the sets in place of their names.
fn allowed(rules: &RuleSet, prefix: &str) -> Vec<String> {
    let chain = rules.chains.iter().find(|(name, _)| name.starts_with(prefix) && name.len() > 20).unwrap().1;
    let with_elements = |rule: &String| {
        rules.sets.iter().fold(rule.clone(), |rule, (name, set)| {
            rule.replace(&format!("@{name}"), &format!("{{{}}}", set.elements.iter().cloned().collect::<Vec<_>>().join(",")))
        })
    };
    chain.iter().map(with_elements).collect()
}

#[test]
fn a_policy_isolates_the_pods_of_this_node_that_it_selects() {
    let rules = rules(json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
    let isolated: Vec<_> = rules.verdicts.keys().map(|(map, address)| (*map, address.to_string())).collect();
    assert_eq!(isolated, [("ingress", "10.42.0.2".to_owned())], "neither b's pods, nor other nodes', ended ones, the host's network");
    let chain = &rules.chains["in_10_42_0_2"];
    assert!(chain[0] == "ip saddr 10.42.0.2 accept" && chain[1].starts_with("jump from_") && chain[2] == "counter drop", "{chain:?}");
    assert!(allowed(&rules, "from_").is_empty());
    assert_eq!(compile(&state(Vec::new())), RuleSet::default());
}

#[test]
fn types_follow_from_the_rules_where_nobody_wrote_them() {
    let types = |spec: Value| directions(&policy(spec));
    assert_eq!(types(json!({"podSelector": {}})), [Direction::Ingress]);
    assert_eq!(types(json!({"podSelector": {}, "egress": []})), [Direction::Ingress, Direction::Egress]);
    assert_eq!(types(json!({"podSelector": {}, "policyTypes": ["Egress"]})), [Direction::Egress]);
}

#[test]
fn peers_are_pods_of_namespaces_or_networks() {
    let from = |from: Value| allowed(&rules(json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": from}]})), "from_");
    let client = json!({"matchLabels": {"app": "client"}});
    assert_eq!(from(json!([{"podSelector": client}])), ["ip saddr {10.42.1.2} accept"], "of the policy's namespace");
    assert_eq!(from(json!([{"podSelector": client, "namespaceSelector": {}}])), ["ip saddr {10.42.0.3,10.42.1.2} accept"]);
    assert_eq!(from(json!([{"namespaceSelector": {"matchLabels": {"team": "y"}}}])), ["ip saddr {10.42.0.3} accept"]);
    assert_eq!(from(json!([{"podSelector": {"matchLabels": {"app": "none"}}}])), ["ip saddr {} accept"], "nobody, until one comes");
    assert_eq!(
        from(json!([{"ipBlock": {"cidr": "10.0.0.0/30", "except": ["10.0.0.1/32"]}}])),
        ["ip saddr {10.0.0.0,10.0.0.2-10.0.0.3} accept"]
    );
    assert!(from(json!([{"ipBlock": {"cidr": "fd00::/8"}}])).is_empty(), "no IPv4 address is in it, which is not everybody");
    assert_eq!(from(json!([])), ["accept"]);
}

#[test]
fn ports_are_numbers_ranges_names_or_whole_protocols() {
    let ports = |ports: Value| allowed(&rules(json!({"podSelector": {}, "ingress": [{"ports": ports}]})), "from_");
    assert_eq!(ports(json!([{"port": 80}, {"port": 53, "protocol": "UDP"}])), ["tcp dport 80 accept", "udp dport 53 accept"]);
    assert_eq!(ports(json!([{"port": 80, "endPort": 90, "protocol": "SCTP"}])), ["sctp dport 80-90 accept"]);
    assert_eq!(ports(json!([{"port": 80, "endPort": 80}, {"port": 80}])), ["tcp dport 80 accept"], "the same twice");
    assert_eq!(ports(json!([{"protocol": "UDP"}])), ["meta l4proto udp accept"]);
    let named = "ip daddr . meta l4proto . th dport {10.42.0.2 . tcp . 8080,10.42.1.2 . tcp . 9090} accept";
    assert_eq!(ports(json!([{"port": "http"}])), [named], "a name is each pod's own number");
    assert!(ports(json!([{"port": 70000}])).is_empty());
}

#[test]
fn what_may_leave_a_pod_must_still_be_let_in() {
    let rules = rules(json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"namespaceSelector": {}}]}]}));
    assert_eq!(allowed(&rules, "to_"), ["ip daddr {10.42.0.2,10.42.0.3,10.42.1.2} goto to_ingress"]);
    assert_eq!(rules.chains["out_10_42_0_2"][0], "ip daddr 10.42.0.2 goto to_ingress");
}

#[test]
fn policies_add_up_and_share_their_sets() {
    let peer = json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]});
    let rules = compile(&state(vec![named_policy("p", peer.clone()), named_policy("q", peer)]));
    assert_eq!(rules.chains["in_10_42_0_2"].len(), 4, "{:?}", rules.chains);
    assert_eq!(rules.sets.len(), 1);
}

#[test]
fn many_peers_and_many_ports_are_a_sum_of_rules_and_too_many_are_cut() {
    let policy_of = |peers: usize, ports: usize| {
        let from: Vec<Value> = (0..peers).map(|n| json!({"podSelector": {"matchLabels": {"n": n.to_string()}}})).collect();
        let ports: Vec<Value> = (0..ports).map(|n| json!({"port": 1000 + n})).collect();
        rules(json!({"podSelector": {}, "ingress": [{"from": from, "ports": ports}]}))
    };
    let count = |rules: &RuleSet| rules.chains.values().map(Vec::len).sum::<usize>();
    assert_eq!(count(&policy_of(300, 300)), 600 + 3);
    let (chain, _) = policy_of(2, 2).chains.into_iter().find(|(name, _)| name.ends_with("_0") && name.starts_with("from_")).unwrap();
    assert!(allowed(&policy_of(2, 2), "from_").iter().all(|rule| rule.starts_with("ip saddr {} jump ") && rule.ends_with(&chain)));
    let cut = policy_of(20_000, 20_000);
    assert_eq!((count(&cut), cut.cut.len()), (3, 1), "nobody is let in, and it is said");
}

#[test]
fn a_pod_is_isolated_from_when_its_address_is_given_and_its_namesake_is_not() {
    let attached = |uid: &str| {
        let attached =
            Attached { pod: ("a".into(), "new".into()), uid: Some(uid.into()), address: "10.42.0.9".parse().unwrap(), seen: None };
        let pod = PodAddress {
            metadata: serde_json::from_value(json!({"namespace": "a", "name": "new", "uid": "7"})).unwrap(),
            node_name: "n1".into(),
            ..PodAddress::default()
        };
        let given = BTreeMap::from([("c".to_owned(), attached)]);
        let state = State::new("n1", vec![policy(json!({"podSelector": {}}))], &[], vec![Arc::new(pod)], &given);
        (compile(&state).verdicts.len(), state.unknown.len())
    };
    assert_eq!((attached("7"), attached("6")), ((1, 0), (0, 1)), "its rules are there, or it is waited for");
}

#[test]
fn a_pod_that_comes_changes_elements_only() {
    let spec = json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]});
    let before = state(vec![policy(spec.clone())]);
    let mut after = state(vec![policy(spec)]);
    after.pods.get_mut("a").unwrap().iter_mut().for_each(|pod| {
        if pod.object.name() == "far" {
            pod.addresses.insert("10.42.1.7".parse().unwrap());
        }
    });
    let mut transaction = Transaction::new(Family::Ip, ruleset::TABLE);
    ruleset::difference(&mut transaction, &compile(&before), &compile(&after));
    let script = transaction.script().unwrap();
    assert!(script.lines().count() == 1 && script.contains("add element") && script.contains("10.42.1.7"), "{script}");
}

#[test]
fn the_kernel_calls_a_chain_only_while_a_pod_is_isolated() {
    let (none, some) = (RuleSet::default(), rules(json!({"podSelector": {}})));
    let script = |old: &RuleSet, new: &RuleSet| {
        let mut transaction = Transaction::new(Family::Ip, ruleset::TABLE);
        ruleset::difference(&mut transaction, old, new);
        transaction.script().unwrap()
    };
    assert!(script(&none, &some).contains("hook forward"));
    assert!(!script(&some, &some).contains("forward"));
    assert!(script(&some, &none).contains("delete chain ip trireme_policy forward"));
    assert!(script(&none, &none).is_empty());
}
