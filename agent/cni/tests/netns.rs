//! Real links and routes in network namespaces made for it. Needs root.
#![allow(clippy::unwrap_used)]

// The same API server of fixed objects as the service proxy's tests have.
#[path = "../../proxy/tests/netns/api.rs"]
mod api;

use std::{process::Command, time::Duration};

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trireme_client::{Informer, InformerOptions};
use trireme_cni::{Backend, Network, NetworkOptions, netlink::Netlink};

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

async fn until(condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), met).await.expect("the condition is met in time");
}

#[test]
fn vm_11_a_host_without_a_default_route_reaches_services() {
    in_new_namespace(async || {
        sh("ip link set lo up; ip link add eth0 type bridge; ip addr add 192.0.2.10/24 dev eth0; ip link set eth0 up");
        sh("nft add table ip t; nft add chain ip t o '{ type nat hook output priority -100; }'
            nft add rule ip t o ip daddr 10.43.0.9 tcp dport 80 dnat to 192.0.2.10:8080");
        let listener = tokio::net::TcpListener::bind("192.0.2.10:8080").await.unwrap();
        let connect = || tokio::net::TcpStream::connect("10.43.0.9:80");
        let error = connect().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NetworkUnreachable, "{error}");
        let (netlink, services) = (Netlink::connect().unwrap(), "10.43.0.0/16".parse().unwrap());
        for _ in 0..2 {
            netlink.ensure_fallback_route(services, [192, 0, 2, 10].into()).await.unwrap();
        }
        let (connected, _) = tokio::join!(connect(), listener.accept());
        assert_eq!(connected.unwrap().local_addr().unwrap().ip().to_string(), "192.0.2.10");
        for _ in 0..2 {
            netlink.delete_fallback_route(services).await.unwrap();
        }
        assert_eq!(sh("ip route show table default 2>/dev/null || true"), "");
    });
}

#[test]
fn addresses_of_links_that_are_there_are_added_and_removed() {
    in_new_namespace(async || {
        sh("ip link set lo up");
        let (netlink, dns) = (Netlink::connect().unwrap(), "10.43.0.10/32".parse().unwrap());
        netlink.add_address("lo", dns).await.unwrap();
        netlink.add_address("lo", dns).await.unwrap();
        assert!(netlink.has_address("lo", dns).await.unwrap());
        netlink.delete_address("lo", dns).await.unwrap();
        netlink.delete_address("lo", dns).await.unwrap();
        assert!(!netlink.has_address("lo", dns).await.unwrap());
        netlink.delete_address("no-such-link", dns).await.unwrap();
    });
}

fn node(name: &str, cidr: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "resourceVersion": "5"}, "spec": {"podCIDR": cidr},
        "status": {"addresses": [{"type": "InternalIP", "address": ip}]},
    })
}

#[test]
fn d09_a_peer_in_another_subnet_keeps_no_other_from_being_routed_to_and_is_tried_again() {
    in_new_namespace(async || {
        sh("ip link set lo up; ip link add eth0 type bridge; ip addr add 192.0.2.10/24 dev eth0; ip link set eth0 up");
        let api = api::Api::with([
            ("/api/v1/nodes/a-me", node("a-me", "10.42.0.0/24", "192.0.2.10")),
            ("/api/v1/nodes/b-far", node("b-far", "10.42.1.0/24", "198.51.100.1")),
            ("/api/v1/nodes/c-near", node("c-near", "10.42.2.0/24", "192.0.2.12")),
        ]);
        let cancel = CancellationToken::new();
        let nodes = Informer::<Node>::start(api.client(), InformerOptions::default(), cancel.clone());
        let folder = tempfile::tempdir().unwrap();
        let options = NetworkOptions {
            node_name: "a-me".into(),
            node_ip: [192, 0, 2, 10].into(),
            backend: Backend::HostGw,
            folder: folder.path().to_owned(),
            owns_links: false,
        };
        let network = Network::new(options, None).await.unwrap();
        let running = tokio::spawn(async move { network.run(nodes, cancel).await });
        until(|| sh("ip route show 10.42.2.0/24").contains("via 192.0.2.12")).await;
        assert_eq!(sh("ip route show 10.42.1.0/24"), "");
        // The network between them changes; no Node object does.
        sh("ip addr add 198.51.100.2/24 dev eth0");
        until(|| sh("ip route show 10.42.1.0/24").contains("via 198.51.100.1")).await;
        running.abort();
    });
}
