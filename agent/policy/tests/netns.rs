//! Real rules and real traffic in network namespaces made for it. Needs root.
#![allow(clippy::unwrap_used)]

#[path = "../../proxy/tests/netns/api.rs"]
mod api;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../../proxy/tests/netns/lab.rs"]
mod lab;

use std::{io::ErrorKind, sync::Arc, time::Duration};

use lab::{Lab, Namespace, sh};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trireme_policy::{Enforcer, PolicyOptions, state::Attached};

const PATIENCE: Duration = Duration::from_secs(20);

fn pod(name: &str, address: &str) -> Value {
    json!({
        "apiVersion": "network.trireme.io/v1", "kind": "PodAddress",
        "metadata": {"namespace": "a", "name": name, "uid": name, "resourceVersion": "5", "labels": {"app": name}},
        "nodeName": "n1", "addresses": [address],
    })
}

fn policy(spec: Value) -> (&'static str, Value) {
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "a", "name": "p", "resourceVersion": "6"}, "spec": spec,
    });
    ("/apis/networking.k8s.io/v1/namespaces/a/networkpolicies/p", policy)
}

/// Pods `web` (10.42.0.2), `client` (10.42.0.3), `other` (10.42.0.4) and `new`, of which the API shows no address yet.
fn cluster(policy: (&'static str, Value)) -> api::Api {
    let mut new = pod("new", "");
    new["addresses"] = json!([]);
    api::Api::with([
        ("/api/v1/namespaces/a", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "resourceVersion": "4"}})),
        ("/apis/network.trireme.io/v1/namespaces/a/podaddresses/web", pod("web", "10.42.0.2")),
        ("/apis/network.trireme.io/v1/namespaces/a/podaddresses/client", pod("client", "10.42.0.3")),
        ("/apis/network.trireme.io/v1/namespaces/a/podaddresses/other", pod("other", "10.42.0.4")),
        ("/apis/network.trireme.io/v1/namespaces/a/podaddresses/new", new),
        policy,
    ])
}

/// An enforcer whose rules are in force for a new pod, and so for all.
async fn enforcer(api: &api::Api, cancel: &CancellationToken) -> Arc<Enforcer> {
    let enforcer = Enforcer::new(PolicyOptions { node_name: "n1".into(), client: api.client() }, cancel);
    let (running, stop) = (enforcer.clone(), cancel.clone());
    tokio::spawn(async move { running.run(stop).await.unwrap() });
    let attached = Attached { pod: ("a".into(), "new".into()), uid: Some("new".into()), address: "10.42.0.9".parse().unwrap(), seen: None };
    enforcer.attach("c", attached).await.unwrap();
    enforcer
}

fn is_dropped(from: &Namespace, address: &str) -> bool {
    from.ask(address).is_err_and(|error| error.kind() == ErrorKind::TimedOut)
}

#[test]
fn a_pod_hears_only_whom_its_policy_allows_and_its_own_node() {
    Lab::run(async |lab| {
        let (web, client, other) = (lab.pod("w", "10.42.0.2"), lab.pod("c", "10.42.0.3"), lab.pod("o", "10.42.0.4"));
        [8080, 9090].into_iter().for_each(|port| web.serve_tcp(port));
        other.serve_tcp(8080);
        assert!(other.ask("10.42.0.2:8080").is_ok() && lab.outside().ask("10.42.0.2:8080").is_ok(), "without a policy all is open");
        let allow = json!({"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": 8080}]});
        let spec = json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"], "ingress": [allow]});
        let cancel = CancellationToken::new();
        let enforcer = enforcer(&cluster(policy(spec)), &cancel).await;
        assert_eq!(client.ask("10.42.0.2:8080").unwrap(), "10.42.0.3");
        assert!(is_dropped(&client, "10.42.0.2:9090"), "a port that is not allowed");
        assert!(is_dropped(&other, "10.42.0.2:8080"), "a pod that is not allowed");
        assert!(is_dropped(&lab.outside(), "10.42.0.2:8080"), "the world");
        assert!(lab.ask("10.42.0.2:9090").await.is_ok(), "the node reaches its pods");
        assert!(web.ask("10.42.0.4:8080").is_ok(), "nothing is said of what the pod may reach");
        let counted = sh("nft list chain ip trireme_policy in_10_42_0_2");
        assert!(!counted.contains("packets 0 "), "{counted}");
        sh("nft flush ruleset");
        lab.until(PATIENCE, async || sh("nft list tables").contains("trireme_policy")).await;
        lab.until(PATIENCE, async || is_dropped(&other, "10.42.0.2:8080")).await;
        cancel.cancel();
        drop(enforcer);
    });
}

#[test]
fn a_new_pod_is_isolated_before_the_api_shows_its_address() {
    Lab::run(async |lab| {
        let (new, other) = (lab.pod("n", "10.42.0.9"), lab.pod("o", "10.42.0.4"));
        [&new, &other].into_iter().for_each(|pod| pod.serve_tcp(8080));
        let allowed = json!({"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.42.0.0/24"]}}]});
        let spec = json!({"podSelector": {"matchLabels": {"app": "new"}}, "policyTypes": ["Ingress", "Egress"], "egress": [allowed]});
        let cancel = CancellationToken::new();
        let enforcer = enforcer(&cluster(policy(spec)), &cancel).await;
        lab.outside().serve_tcp(8080);
        assert!(is_dropped(&new, "10.42.0.4:8080"), "a network that is an exception");
        assert!(new.ask(&format!("{}:8080", lab.outside_ip())).is_ok(), "the rest of the world");
        assert!(is_dropped(&other, "10.42.0.9:8080"), "nobody is let in");
        assert!(new.ask("10.42.0.9:8080").is_ok(), "a pod reaches itself");
        cancel.cancel();
        drop(enforcer);
    });
}

#[test]
fn a_cluster_without_policies_watches_no_pods_and_calls_no_chain() {
    Lab::run(async |lab| {
        let (client, other) = (lab.pod("c", "10.42.0.3"), lab.pod("o", "10.42.0.4"));
        other.serve_tcp(8080);
        let cancel = CancellationToken::new();
        let enforcer = enforcer(&api::Api::with([]), &cancel).await;
        lab.until(PATIENCE, async || sh("nft list tables").contains("trireme_policy")).await;
        assert!(!sh("nft list table ip trireme_policy").contains("hook"));
        assert!(client.ask("10.42.0.4:8080").is_ok());
        cancel.cancel();
        drop(enforcer);
    });
}
