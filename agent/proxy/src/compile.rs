//! Rules from Services.

use crate::{
    chained, ordinary,
    ruleset::{NodeView, RuleSet},
    services::Balanced,
};

/// The rules for these ports of a Service.
pub fn build(services: &[Balanced], node: &NodeView) -> RuleSet {
    let mut rules = RuleSet::default();
    for service in services {
        rules.cluster_ips.insert(service.cluster_ip);
        match ordinary::is_for(service) {
            true => ordinary::add(&mut rules, service, node),
            false => chained::add(&mut rules, service, node),
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use trireme_nft::Transaction;

    use super::*;
    use crate::{
        ruleset::{TABLE, difference},
        services::{
            balanced_ports,
            tests::{n1, service, slice},
        },
    };
    use serde_json::{Value, json};

    fn node() -> NodeView {
        NodeView { cluster_cidr: "10.42.0.0/16".parse().unwrap(), service_cidr: None, node_port_networks: Vec::new(), translated: None }
    }

    fn rules(spec: Value, pods: &[&str]) -> RuleSet {
        let endpoints: Vec<Value> = pods.iter().map(|p| json!({"addresses": [p], "nodeName": "n2"})).collect();
        let (service, slice) = (service(spec), slice(json!(endpoints)));
        build(&balanced_ports(&service, &[slice], &n1()), &node())
    }

    fn cluster_ip() -> Value {
        json!({"clusterIP": "10.43.0.9", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]})
    }

    #[test]
    fn an_ordinary_service_is_elements_of_maps() {
        let rules = rules(cluster_ip(), &["10.42.0.2", "10.42.0.3"]);
        let element = |map: &'static str, key: &str| rules.elements.get(&(map, key.to_owned())).map(String::as_str);
        assert_eq!(element("service_ips", "10.43.0.9 . tcp . 80"), Some("goto pick_inside_tcp_2"));
        assert_eq!(element("endpoints_tcp", "10.43.0.9 . 80 . 0x1"), Some("10.42.0.3 . 8080"));
        assert_eq!(element("node_ports", "tcp . 30080"), Some("goto pick_node_port_tcp_2"));
        assert_eq!(element("node_port_endpoints_tcp", "30080 . 0x0"), Some("10.42.0.2 . 8080"));
        assert!(rules.chains.is_empty());
        assert!(rules.shared_chains["pick_inside_tcp_2"].starts_with("ip saddr != 10.42.0.0/16 jump mark_masquerade\n"));
        assert!(rules.shared_chains["pick_node_port_tcp_2"].starts_with("jump mark_masquerade\n"));
        assert_eq!(rules.hairpins.len(), 2);
    }

    #[test]
    fn without_endpoints_the_client_hears_a_reject_and_with_policy_local_nothing() {
        let empty = rules(cluster_ip(), &[]);
        assert_eq!(empty.elements[&("no_endpoints", "10.43.0.9 . tcp . 80".to_owned())], "goto reject_packet");
        let mut local = cluster_ip();
        local["externalTrafficPolicy"] = json!("Local");
        let elsewhere = rules(local, &["10.42.0.2"]);
        let chain = elsewhere.elements[&("node_ports", "tcp . 30080".to_owned())].strip_prefix("goto ").unwrap();
        let rules: Vec<&str> = elsewhere.chains[chain].lines().collect();
        let [pods, node, outside] = rules.as_slice() else { panic!("{rules:?}") };
        assert!(pods.starts_with("ip saddr 10.42.0.0/16 goto svc_") && node.starts_with("fib saddr type local goto svc_"), "{rules:?}");
        assert_eq!(*outside, "drop");
    }

    #[test]
    fn a_load_balancer_admits_its_source_ranges_and_an_external_address_everybody() {
        let with = |ranges: Value| {
            let mut spec = cluster_ip();
            spec["externalIPs"] = json!(["198.51.100.7"]);
            spec["loadBalancerSourceRanges"] = ranges;
            let mut service = service(spec);
            let status = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.10"}, {"ip": "192.0.2.11", "ipMode": "Proxy"}, {"ip": "198.51.100.7"}]}});
            service.status = serde_json::from_value(status).unwrap();
            let slice = slice(json!([{"addresses": ["10.42.0.2"]}]));
            let node = NodeView { translated: Some(([192, 0, 2, 10].into(), [10, 0, 0, 10].into())), ..node() };
            build(&balanced_ports(&service, &[slice], &n1()), &node)
        };
        let chain = |rules: &RuleSet, ip: &str| {
            rules.elements.get(&("service_ips", format!("{ip} . tcp . 80"))).and_then(|v| v.strip_prefix("goto ")).map(str::to_owned)
        };
        let limited = with(json!(["203.0.113.0/24", " 10.0.0.0/8", "fd00::/8"]));
        let admits = chain(&limited, "192.0.2.10").unwrap();
        let body: Vec<&str> = limited.chains[&admits].lines().collect();
        assert!(
            body[0].starts_with("ip saddr 203.0.113.0/24 goto ext_") && body[1].starts_with("ip saddr 10.0.0.0/8 ") && body[2] == "drop",
            "{body:?}"
        );
        assert!(chain(&limited, "198.51.100.7").unwrap().starts_with("ext_"));
        assert_eq!(chain(&limited, "192.0.2.11"), None, "its traffic goes through a proxy");
        assert_eq!(limited.chains[&chain(&with(json!(["fd00::/8"])), "192.0.2.10").unwrap()].lines().last(), Some("drop"));
        assert!(chain(&with(json!([])), "192.0.2.10").unwrap().starts_with("pick_outside_"));
        assert_eq!(chain(&limited, "10.0.0.10").as_deref(), Some(admits.as_str()), "the node's own address behind the external one");
    }

    #[test]
    fn a_change_touches_only_what_changed() {
        let script = |old: &RuleSet, new: &RuleSet| {
            let mut transaction = Transaction::new(trireme_nft::Family::Ip, TABLE);
            // As `Loaded` gives it: chains for all Services stay.
            let new = RuleSet { shared_chains: Default::default(), ..new.clone() };
            difference(&mut transaction, old, &new);
            transaction.script().unwrap()
        };
        let two = rules(cluster_ip(), &["10.42.0.2", "10.42.0.3"]);
        let three = rules(cluster_ip(), &["10.42.0.2", "10.42.0.3", "10.42.0.4"]);
        let grow = script(&two, &three);
        assert!(grow.contains("{ 10.43.0.9 . 80 . 0x2 : 10.42.0.4 . 8080 }") && !grow.contains("10.42.0.2 "), "{grow}");
        let replaced = script(&two, &rules(cluster_ip(), &["10.42.0.2", "10.42.0.9"]));
        assert!(replaced.contains(" : 10.42.0.9 . 8080 }"), "{replaced}");
        // What leads to chains makes the kernel check the whole table.
        assert!(!replaced.contains("goto") && !replaced.contains("rule") && !replaced.contains("chain"), "{replaced}");
        let back = script(&three, &two);
        assert!(back.contains("delete element ip trireme endpoints_tcp { 10.43.0.9 . 80 . 0x2 }"), "{back}");
        assert!(script(&two, &two).is_empty());
    }

    #[test]
    fn each_of_many_endpoints_is_as_likely_as_any_other() {
        for count in [1_usize, 2, 16, 17, 32, 33, 100] {
            let pods: Vec<String> = (0..count).map(|n| format!("10.42.{}.{}", n / 200, n % 200 + 1)).collect();
            let endpoints: Vec<Value> = pods.iter().map(|pod| json!({"addresses": [pod]})).collect();
            let mut rules = RuleSet::default();
            for port in balanced_ports(&service(cluster_ip()), &[slice(json!(endpoints))], &n1()) {
                chained::add(&mut rules, &port, &node());
            }
            let start = rules.elements[&("service_ips", "10.43.0.9 . tcp . 80".to_owned())].strip_prefix("goto ").unwrap();
            let mut shares = BTreeMap::new();
            share(&rules, start, 1.0, &mut shares);
            assert_eq!(shares.len(), count);
            assert!(shares.values().all(|share: &f64| (share * count as f64 - 1.0).abs() < 1e-9), "{shares:?}");
        }
    }

    /// Follows a chain as the kernel would, and notes with what probability it comes to each endpoint.
    fn share(rules: &RuleSet, chain: &str, mut probability: f64, shares: &mut BTreeMap<String, f64>) {
        for rule in rules.chains[chain].lines().filter(|rule| !rule.contains("mark_masquerade")) {
            let words: Vec<&str> = rule.split(' ').collect();
            let (taken, next) = match words.as_slice() {
                ["numgen", "random", "mod", left, "==", "0", "goto", next] => (1.0 / left.parse::<f64>().unwrap(), *next),
                ["numgen", "random", "mod", left, "<", part, "goto", next] => {
                    (part.parse::<f64>().unwrap() / left.parse::<f64>().unwrap(), *next)
                }
                ["goto", next] => (1.0, *next),
                _ => panic!("{rule}"),
            };
            match next.starts_with("ep_") {
                true => *shares.entry(next.to_owned()).or_default() += probability * taken,
                false => share(rules, next, probability * taken, shares),
            }
            probability *= 1.0 - taken;
        }
    }

    #[test]
    fn changes_of_services_go_to_the_kernel_directly() {
        let mut spec = cluster_ip();
        spec["sessionAffinity"] = json!("ClientIP");
        spec["externalIPs"] = json!(["198.51.100.7"]);
        spec["loadBalancerSourceRanges"] = json!(["203.0.113.0/24"]);
        let many: Vec<String> = (1..=100).map(|n| format!("10.42.0.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let mut local = spec.clone();
        local["externalTrafficPolicy"] = json!("Local");
        let states =
            [RuleSet::default(), rules(spec.clone(), &[]), rules(spec.clone(), &["10.42.0.2"]), rules(spec, &many), rules(local, &many)];
        for (old, new) in states.iter().flat_map(|old| states.iter().map(move |new| (old, new))).filter(|(old, new)| old != new) {
            let mut transaction = Transaction::new(trireme_nft::Family::Ip, TABLE);
            difference(&mut transaction, old, new);
            assert!(trireme_nft::is_direct(&transaction), "{}", transaction.script().unwrap());
        }
    }

    #[test]
    fn another_timeout_of_affinity_is_another_set() {
        let with = |seconds: u32| {
            let mut spec = cluster_ip();
            spec["sessionAffinity"] = json!("ClientIP");
            spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": seconds}});
            rules(spec, &["10.42.0.2", "10.42.0.3"])
        };
        let mut transaction = Transaction::new(trireme_nft::Family::Ip, TABLE);
        crate::ruleset::difference(&mut transaction, &with(10), &with(20));
        let script = transaction.script().unwrap();
        let lines = |verb: &str, end: &str| script.lines().filter(|line| line.starts_with(verb) && line.contains(end)).count();
        assert_eq!((lines("add set", "_20 {"), lines("delete set", "8080_10"), lines("add set", "8080_10 {")), (2, 2, 0), "{script}");
    }
}
